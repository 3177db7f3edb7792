"""What the user gave as text: one prompt, in UTF-8, that says something.

The file of a model that a command names, fetched first if it is a web or hub reference.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localspec.errors import UserError

if TYPE_CHECKING:
    from localspec.session import Session


@dataclass(frozen=True)
class PromptFlags:
    """One prompt, and whether it is a question or a text to continue."""

    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="TEXT", help="The prompt.")
    ] = None
    file: Annotated[
        str | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="Prompt from a file; - is standard input."
        ),
    ] = None
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the text as it is, without a chat template.")
    ] = False

    def text(self, system: str | None) -> str:
        """The prompt. UserError unless there is one, in UTF-8, that says something."""
        if self.raw and system:
            raise UserError(
                "--raw takes the prompt as it is: leave --system out, or write it into the prompt"
            )
        if self.prompt is not None and self.file is None:
            text = check_text("the prompt", self.prompt)
        elif self.file is not None and self.prompt is None:
            text = _decode("the prompt", _read(self.file))
        else:
            raise UserError("give one prompt: -p TEXT, or -f FILE (- is standard input)")
        if not text.strip():
            raise UserError("the prompt is empty: give some text")
        return text

    def tokens(self, session: "Session", text: str, system: str | None) -> list[int]:
        """Token ids of a text, through the model's chat template unless `raw`."""
        from localspec.dialogue.template import Message

        if self.raw:
            return session.raw_prompt(text)
        messages = [Message(role="system", content=system)] if system else []
        return session.chat_prompt([*messages, Message(role="user", content=text)])


def check_text(what: str, text: str) -> str:
    """`text` as it is; UserError where the bytes that it was read from are not UTF-8."""
    return _decode(what, text.encode(errors="surrogateescape"))


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"the prompt file {file!r} cannot be read ({reason}): check -f") from error


def _decode(what: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        byte = f"byte 0x{data[error.start]:02x} at {error.start:,}"
        raise UserError(f"{what} is not UTF-8 text ({byte}): convert it to UTF-8") from error


def file_of(reference: str | None) -> Path:
    """As `resolve`; what is spelled out as `hf:...` or an address is pulled if it is not here.

    A name of the catalog is not: it can mean gigabytes that nobody asked for.
    """
    from localspec.registry.resolve import NotHereError, resolve

    try:
        return resolve(reference)
    except NotHereError:
        if reference is None or not reference.startswith(("hf:", "http://", "https://")):
            raise
    from localspec.cli.pull import fetch

    return fetch(reference)[0].path
