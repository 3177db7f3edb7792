"""A conversation with a program: JSON lines both ways.

In: a line is a message, as text or as a JSON string or object {"message": "..."}.
Out, one object a line: {"event": "loaded" | "note" | "text" | "answer" | "table", ...}.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any

from localspec.chat.answering import AnswerView
from localspec.chat.figures import Figures
from localspec.chat.frontend import PipeFrontend
from localspec.chat.loading import LoadingModel, Partner
from localspec.decode.drafters import OPTIONS
from localspec.decode.step import Step
from localspec.dialogue.markup import AnswerPart, Opening
from localspec.display import json_line
from localspec.errors import UserError


def emit(event: str, values: dict[str, Any]) -> None:
    """Write one event."""
    print(json_line({"event": event, **values}), flush=True)  # noqa: T201


class EventsView:
    """Text as events, reasoning apart from the answer.

    An event has `drafted_by` where a drafted token was accepted, and `is_tool_call` in a tool call.
    """

    paused_s = 0.0

    def begin(self, opening: Opening, n_prompt: int) -> None:
        """Nothing is said yet."""

    def write(self, parts: Sequence[AnswerPart], step: Step | None) -> None:
        """Write one event a part."""
        source = None
        if step is not None and step.accepted:
            source = OPTIONS.get(step.source, step.source)
        more = {"drafted_by": source} if source else {}
        for part in parts:
            called = {"is_tool_call": True} if part.kind == "tool_call" else {}
            emit("text", {"text": part.text, "is_thought": part.is_thought, **called, **more})

    def end(self) -> None:
        """The figures follow."""


class ProgramFrontend(PipeFrontend):
    """What a person would see becomes events."""

    def __init__(self, next_line: Callable[[], str]) -> None:
        super().__init__(lambda: message_of(next_line()), _note)
        self._is_loaded = False

    def wait(self, loading: LoadingModel) -> Partner:
        """Tell once that the model has loaded, and what it is."""
        loaded = super().wait(loading)
        if not self._is_loaded:
            self._is_loaded = True
            emit("loaded", loaded.described)
        return loaded

    def view(self, loaded: Partner) -> AnswerView:
        """Text as events."""
        return EventsView()

    def finished(self, figures: Figures, *, is_first: bool) -> None:
        """All figures of the answer."""
        emit("answer", figures.to_json())

    def table(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Rows as lists."""
        emit("table", {"rows": [list(row) for row in rows]})


def _note(text: str) -> None:
    emit("note", {"text": text})


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
