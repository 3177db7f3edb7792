"""One prompt from the command line: a text, a file, and what is piped.

It is in UTF-8 and not empty. What is piped stands before the text of -p: a second question on the
same text then begins like the first, and reads itself alone.
"""

import os
import select
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localspec.cli.notify import notify
from localspec.cli.options import option
from localspec.errors import UserError
from localspec.format import count

if TYPE_CHECKING:
    from localspec.dialogue.template import Message

INPUT = "-"
"""How a command line names standard input."""
PATIENCE_S = 1.0
"""How long a pipe may be silent before the user hears that it is waited for."""
GLANCE_S = 0.1
"""How long a socket is looked at, which programs leave open behind a command that has -p."""
_WANTED = "give one prompt: -p TEXT, -f FILE, or text in a pipe"


@dataclass(frozen=True)
class PromptFlags:
    """One prompt: a question, or a text to continue."""

    prompt: str | None = option(
        None, "The prompt; what is piped stands before it.", "--prompt", "-p", metavar="TEXT"
    )
    file: str | None = option(
        None, "Prompt from a file; - is standard input.", "--file", "-f", metavar="FILE"
    )
    raw: bool = option(False, "Continue the text as it is, without a chat template.", "--raw")

    jsonl: str | None = option(
        None, "Prompts from a file, one a line; answers as JSON lines. - is standard input.",
        "--jsonl", metavar="FILE",
    )  # fmt: skip

    def text(self, system: str | None) -> str:
        """The prompt. Raises UserError for none, two, an empty one, or one that is not UTF-8."""
        if self.raw and system:
            raise UserError(
                "--raw takes the prompt as it is: leave --system out, or write it into the prompt"
            )
        if self.prompt is not None and self.file is not None:
            raise UserError(_WANTED)
        text = self._asked() if self.file is None else read_prompts(self.file)
        if not text.strip():
            raise UserError("the prompt is empty: give some text")
        return text

    def _asked(self) -> str:
        """What is piped, and the text of -p behind it."""
        if self.prompt in (None, INPUT):
            if sys.stdin is None or sys.stdin.isatty():
                raise UserError(_WANTED)
            if (text := read_prompts(INPUT)) or self.prompt:
                return text
            raise UserError(f"{_WANTED} (standard input is empty)")
        asked = check_text("the prompt", self.prompt or "")
        piped = read_prompts(INPUT) if _is_piped() else ""
        if not piped.strip():
            return asked
        notify(f"{count(len(piped), 'character')} of standard input stand before the prompt")
        return piped + asked if self.raw else f"{piped.rstrip()}\n\n{asked}".rstrip()

    def messages(self, text: str, system: str | None) -> "str | list[Message]":
        """The text to continue where `raw`, else messages."""
        from localspec.dialogue.template import Message

        if self.raw:
            return text
        before = [Message(role="system", content=system)] if system else []
        return [*before, Message(role="user", content=text)]


def _is_piped() -> bool:
    """Whether somebody means standard input to be read, though there is a prompt."""
    if sys.stdin is None or sys.stdin.isatty():
        return False
    kind = _stdin_kind()
    if stat.S_ISSOCK(kind):
        return bool(select.select([0], [], [], GLANCE_S)[0])
    return stat.S_ISFIFO(kind) or stat.S_ISREG(kind)


def _stdin_kind() -> int:
    """A mode as `stat` has it; 0 where it is no file of the system."""
    try:
        return os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return 0


def read_prompts(file: str) -> str:
    """A file of prompts; - is standard input. UserError for one that cannot be read."""
    return _decode("the prompt", _read(file)).removeprefix("\ufeff")


def check_text(what: str, text: str) -> str:
    """`text` as it is. Raises UserError where its bytes were not UTF-8."""
    return _decode(what, text.encode(errors="surrogateescape"))


def _read(file: str) -> bytes:
    try:
        return _read_input() if file == INPUT else Path(file).read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"the prompt file {file!r} cannot be read ({reason}): check -f") from error


def _read_input() -> bytes:
    """All of it. Who waits for a silent pipe is told."""
    is_pipe = os.name == "posix" and stat.S_ISFIFO(_stdin_kind())
    if is_pipe and not select.select([sys.stdin.fileno()], [], [], PATIENCE_S)[0]:
        notify("waiting for standard input to end (`< /dev/null` leaves it out)")
    return sys.stdin.buffer.read()


def _decode(what: str, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        byte = f"byte 0x{data[error.start]:02x} at {error.start:,}"
        raise UserError(f"{what} is not UTF-8 text ({byte}): convert it to UTF-8") from error
