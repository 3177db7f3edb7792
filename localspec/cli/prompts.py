"""Prompts from the command line: one as a text, a file or what is piped, or one a line of a file.

A prompt is in UTF-8 and not empty. What is piped stands before the text of -p: a second question on
the same text then begins like the first, and reads itself alone.

A line of `--jsonl` is a JSON string, or an object with `prompt` or `messages`; its other fields are
keywords of the Python API and go before the options. The lines share one loaded model, several at
once, and the answers keep their order. A line that is wrong, or fails, gets its sentence.
"""

import json
import os
import select
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from localspec.cli.options import option
from localspec.cli.output import notify
from localspec.errors import LocalspecError, UserError
from localspec.format import count

if TYPE_CHECKING:
    from localspec.api import Model
    from localspec.dialogue.template import Message
    from localspec.session.reply import Reply

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


Document = Callable[["Reply"], dict[str, Any]]
_OWN = ("id", "prompt", "messages", "system")


class PromptLines:
    """The lines of a file; `keywords` are those that the options gave."""

    def __init__(self, flags: PromptFlags, system: str | None, keywords: Mapping[str, Any]) -> None:
        assert flags.jsonl is not None
        self._flags, self._system, self._keywords = flags, system, keywords
        self._texts = read_prompts(flags.jsonl)

    @property
    def n_prompts(self) -> int:
        """Lines with something in them; 1 at the least."""
        return max(1, sum(bool(text.strip()) for text in self._texts.split("\n")))

    def answer(self, model: "Model", document: Document) -> int:
        """Print an answer a line; how many have none. Raises KeyboardInterrupt."""
        n_failed = 0
        for answer in self._answers(model, document):
            n_failed += "error" in answer
            typer.echo(json.dumps(answer, allow_nan=False))
        return n_failed

    def _answers(self, model: "Model", document: Document) -> Iterator[dict[str, Any]]:
        from localspec.serve.engine_thread import AHEAD, Many
        from localspec.serve.server import Load, scheduler_of

        heads: list[dict[str, Any]] = []
        scheduler = scheduler_of(model.session, Load(n_waiting=AHEAD))
        asked = self._asked(model, heads)
        for i, found in Many(scheduler, model.session.target.interrupt, asked).answered():
            is_wrong = isinstance(found, LocalspecError)
            yield heads[i] | ({"error": str(found)} if is_wrong else document(found))

    def _asked(
        self, model: "Model", heads: list[dict[str, Any]]
    ) -> Iterator["Reply | LocalspecError"]:
        """Replies that have not begun; `heads` is told of which line."""
        for n, text in enumerate(self._texts.split("\n"), 1):
            if not text.strip():
                continue
            heads.append({"line": n})
            try:
                asked = _fields(text)
                heads[-1] |= {"id": asked["id"]} if "id" in asked else {}
                yield self._reply(model, asked)
            except LocalspecError as error:
                yield error

    def _reply(self, model: "Model", asked: Mapping[str, Any]) -> "Reply":
        more = {name: value for name, value in asked.items() if name not in _OWN}
        return model.stream(self._prompt(asked), raw=self._flags.raw, **{**self._keywords, **more})

    def _prompt(self, asked: Mapping[str, Any]) -> Any:
        given = [name for name in ("prompt", "messages") if name in asked]
        if len(given) != 1:
            raise UserError("the line has no prompt and no messages, or both: give one of them")
        if given == ["messages"]:
            if self._flags.raw:
                raise UserError("--raw takes a prompt, and the line has messages")
            return asked["messages"]
        from localspec.dialogue.prompts import checked_text

        text, system = checked_text(asked["prompt"]), asked.get("system", self._system)
        return self._flags.messages(text, system and checked_text(system))


def _fields(text: str) -> dict[str, Any]:
    """A line's fields. UserError for what is neither an object nor a text."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"the line is no JSON ({error}): write an object or a string") from error
    if isinstance(line, str):
        return {"prompt": line}
    if not isinstance(line, dict):
        raise UserError("the line is neither an object nor a string")
    for name in ("sampling", "raw", "split_thought", "asked"):
        if name in line:
            raise UserError(f"the line has {name!r}, which is no field of a line")
    return line
