"""Text files as context of a message."""

from collections.abc import Sequence
from pathlib import Path

from localspec.chat.commands.base import Attachment
from localspec.errors import UserError

MAX_BYTES = 10_000_000


def read_attachment(name: str) -> Attachment:
    """A file's text. UserError where it cannot be read, is not text, or is absurdly large."""
    path = Path(name.strip().strip("'\"")).expanduser()
    try:
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} is larger than {MAX_BYTES // 1_000_000} MB: cut out a part")
        return Attachment(path.name, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: only text files can be added") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def with_attachments(text: str, attachments: Sequence[Attachment]) -> str:
    """The message with its files before it, each in a fence that it does not contain."""
    parts = [_fenced(attachment) for attachment in attachments]
    return "\n\n".join([*parts, text])


def _fenced(attachment: Attachment) -> str:
    fence = "```"
    while fence in attachment.text:
        fence += "`"
    return f"{attachment.name}:\n{fence}\n{attachment.text.rstrip()}\n{fence}"
