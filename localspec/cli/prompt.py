"""What the user gave as text: one prompt, in UTF-8, that says something."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localspec.errors import UserError

if TYPE_CHECKING:
    from localspec.dialogue.template import Message


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

    def messages(self, text: str, system: str | None) -> "str | list[Message]":
        """What a model is asked: a text to continue where `raw`, else messages."""
        from localspec.dialogue.template import Message

        if self.raw:
            return text
        before = [Message(role="system", content=system)] if system else []
        return [*before, Message(role="user", content=text)]


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
