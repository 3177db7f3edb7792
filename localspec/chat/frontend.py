"""What a conversation asks of the place where it is held, and the places that only write lines.

A program talks in JSON lines. In: a line is a message, as text or as a JSON string or object
{"message": "..."}. Out, one object a line: {"event": "loaded" | "note" | "text" | "answer" |
"table", ...}.
"""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from localspec.decode.drafters import OPTIONS
from localspec.display import json_line, shown_on
from localspec.errors import UserError
from localspec.notify import Notify

if TYPE_CHECKING:
    from localspec.chat.answering import RoomDecision, Shortage
    from localspec.chat.figures import Figures
    from localspec.chat.loading import LoadingModel, Partner
    from localspec.decode.step import Step
    from localspec.dialogue.markup import AnswerPart, Opening


class AnswerView:
    """Where an answer appears while it comes."""

    @property
    def paused_s(self) -> float:
        """How long the program was suspended meanwhile."""
        return 0.0

    def begin(self, opening: "Opening", n_prompt: int) -> None:
        """An answer to `n_prompt` tokens is coming; `opening`: where it begins."""

    def write(self, parts: "Sequence[AnswerPart]", step: "Step | None") -> None:
        """Show more parts, of one step; None for what was held back at the end."""
        raise NotImplementedError

    def end(self) -> None:
        """The answer is over."""


class PlainView(AnswerView):
    """Writes the answer through, without its thought; it ends with a new line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._shown = shown_on(out)

    def write(self, parts: "Sequence[AnswerPart]", step: "Step | None") -> None:
        """Show it at once."""
        said = "".join(part.text for part in parts if not part.is_thought)
        self._out.write(self._shown(said))
        self._out.flush()

    def end(self) -> None:
        self._out.write("\n")
        self._out.flush()


class Frontend:
    """Where messages come from and answers go: of this one to stdout, and notes to stderr, for
    nobody who could edit or decide.

    `next_message` raises EOFError or StopIteration at the end, and UserError for what is no text.
    """

    can_edit = False
    """Whether `read` lets the user change its draft."""

    def __init__(self, next_message: Callable[[], str], notify: Notify) -> None:
        self._next_message = next_message
        self._notify = notify

    def read(self, draft: str) -> str:
        """The next message; the user can edit `draft` to make it, or it is sent as it is.

        Raises EOFError at the end, KeyboardInterrupt, and UserError for what is no text.
        """
        if draft:
            return draft
        try:
            return self._next_message()
        except StopIteration:
            raise EOFError from None

    def say(self, text: str) -> None:
        """Tell the user something, from any thread."""
        self._notify(text)

    def wait(self, loading: "LoadingModel") -> "Partner":
        """The model, once it has loaded. Raises what loading raised, and KeyboardInterrupt."""
        while not loading.wait(0.2):
            pass
        return loading.result()

    def view(self, loaded: "Partner") -> AnswerView:
        """Where the next answer appears."""
        return PlainView(sys.stdout)

    def finished(self, figures: "Figures", *, is_first: bool) -> None:
        """Show the figures of an answer that is over."""
        from localspec.chat.figures import line  # noqa: PLC0415 - `generate` needs none

        self.say(line(figures, with_first_token=is_first))

    def table(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Show what was asked for, in columns."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.say("  ".join(cells).rstrip())

    def decide(self, found: "Shortage") -> "RoomDecision":
        """What to do where the context is nearly full: let the answer stop there."""
        return "stop"


def is_dumb() -> bool:
    """Whether the terminal can do no more than write: in an editor's shell, say."""
    return os.environ.get("TERM", "dumb").lower() in ("dumb", "unknown", "")


def typed_line() -> str:
    """A line from such a terminal; the second Ctrl-C in a row leaves, with EOFError."""
    try:
        return input("> ")
    except KeyboardInterrupt:
        print("\nCtrl-C again leaves; so does Ctrl-D")  # noqa: T201
    try:
        return input("> ")
    except KeyboardInterrupt:
        raise EOFError from None


def emit(event: str, values: dict[str, Any]) -> None:
    """Write one event."""
    print(json_line({"event": event, **values}), flush=True)  # noqa: T201


class EventsView(AnswerView):
    """Text as events, reasoning apart from the answer.

    An event has `drafted_by` where a drafted token was accepted, and `is_tool_call` in a tool call.
    """

    def write(self, parts: "Sequence[AnswerPart]", step: "Step | None") -> None:
        """Write one event a part."""
        source = None
        if step is not None and step.accepted:
            source = OPTIONS.get(step.source, step.source)
        more = {"drafted_by": source} if source else {}
        for part in parts:
            called = {"is_tool_call": True} if part.kind == "tool_call" else {}
            emit("text", {"text": part.text, "is_thought": part.is_thought, **called, **more})


class ProgramFrontend(Frontend):
    """What a person would see becomes events."""

    def __init__(self, next_line: Callable[[], str]) -> None:
        super().__init__(lambda: message_of(next_line()), lambda text: emit("note", {"text": text}))
        self._is_loaded = False

    def wait(self, loading: "LoadingModel") -> "Partner":
        """Tell once that the model has loaded, and what it is."""
        loaded = super().wait(loading)
        if not self._is_loaded:
            self._is_loaded = True
            emit("loaded", loaded.described)
        return loaded

    def view(self, loaded: "Partner") -> AnswerView:
        return EventsView()

    def finished(self, figures: "Figures", *, is_first: bool) -> None:
        emit("answer", figures.to_json())

    def table(self, rows: Sequence[tuple[str, ...]]) -> None:
        emit("table", {"rows": [list(row) for row in rows]})


def message_of(line: str) -> str:
    """The message in a line. A line that is no JSON string or object is itself the message.

    UserError for an object without one: its braces are not what a program means to ask.
    """
    try:
        document = json.loads(line)
    except ValueError:
        return line
    if isinstance(document, dict):
        if not isinstance(document.get("message"), str):
            such = '{"message": "..."}'
            raise UserError(f'{line.strip()} has no text as its "message": write {such}')
        return document["message"]
    return document if isinstance(document, str) else line
