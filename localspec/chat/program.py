"""A conversation with a program: JSON lines both ways.

In: a line is a message, as text or as a JSON string or object {"message": "..."}.
Out, one object a line: {"event": "loaded" | "note" | "text" | "answer" | "table" | "error", ...}.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from localspec.chat.figures import Figures
from localspec.chat.lines import PipeFrontend
from localspec.chat.models import LoadedModel, LoadingModel
from localspec.decode.drafters import OPTIONS
from localspec.decode.step import Step
from localspec.dialogue.markup import AnswerPart, Thoughts

Emit = Callable[[str, dict[str, Any]], None]


def emit(event: str, values: dict[str, Any]) -> None:
    """Write one event."""
    print(json.dumps({"event": event, **values}, ensure_ascii=False, allow_nan=False), flush=True)  # noqa: T201


class EventsView:
    """Text as events, thoughts apart from the answer; `drafted_by` names who drafted it."""

    def __init__(self) -> None:
        self.thought = ""
        self.paused_s = 0.0
        self._text = ""
        self._thoughts = Thoughts(in_thought=False)

    def begin(self, *, in_thought: bool, n_prompt: int) -> None:
        """An answer is coming."""
        self._thoughts = Thoughts(in_thought=in_thought)

    def write(self, text: str, step: Step | None) -> None:
        """One event a step."""
        source = None
        if step is not None and step.accepted:
            source = OPTIONS.get(step.source, step.source)
        for part in self._thoughts.feed(text):
            self._emit(part, source)

    def end(self) -> None:
        """What was held back."""
        for part in self._thoughts.finish():
            self._emit(part, None)

    def _emit(self, part: AnswerPart, source: str | None) -> None:
        if not part.text:
            return
        if part.is_thought:
            self.thought += part.text
        drafted = {"drafted_by": source} if source else {}
        emit("text", {"text": part.text, "is_thought": part.is_thought, **drafted})


class ProgramFrontend(PipeFrontend):
    """Everything that a person would see is an event."""

    def __init__(self, messages: Iterator[str]) -> None:
        super().__init__(map(message_of, messages), _note)
        self._is_loaded = False

    def wait(self, loading: LoadingModel[LoadedModel]) -> LoadedModel:
        """Tell once that the model is there, and what it is."""
        opened = super().wait(loading)
        if not self._is_loaded:
            self._is_loaded = True
            emit("loaded", _loaded(opened))
        return opened

    def view(self, opened: LoadedModel) -> EventsView:  # pyright: ignore[reportIncompatibleMethodOverride]
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
    """The message in a line; a line that is no JSON string or object is one itself."""
    try:
        document = json.loads(line)
    except ValueError:
        return line
    if isinstance(document, dict):
        document = document.get("message")
    return document if isinstance(document, str) else line


def _loaded(opened: LoadedModel) -> dict[str, Any]:
    session = opened.session
    return {
        "model": str(opened.config.model),
        "n_ctx": session.n_ctx,
        "speculation": session.speculation,
        "n_restored": opened.n_restored,
        "load_s": session.load_s,
    }
