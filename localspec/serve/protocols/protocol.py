"""A protocol: addresses at which replies are ordered, and how their answers and errors are written.

Each reads a body into the one `Order` and writes what the one `Answer` has; none knows the engine.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from localspec.serve.answer import News, ServedAnswer
from localspec.serve.order import Order
from localspec.serve.problem import Problem

_encoded = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
quoted = json.encoder.encode_basestring
"""A text as JSON has it."""
PING = ": ping\n\n"
"""A comment of an event stream, which clients pass over."""


class AnswerWriter(Protocol):
    """Writes one answer: whole as `document`, or as texts of an event stream."""

    @property
    def document(self) -> Any:
        """All of it, when every choice is done."""
        ...

    def opening(self) -> Iterable[str]:
        """What a stream begins with."""
        ...

    def said(self, place: int, news: Sequence[News]) -> Iterable[str]:
        """What is new of a choice."""
        ...

    def closing(self) -> Iterable[str]:
        """What a stream ends with, behind all choices."""
        ...

    def failed(self, problem: Problem) -> str:
        """An error in a stream that has begun; its last event."""
        ...

    @property
    def ping(self) -> str:
        """What fills a silence."""
        ...


@dataclass(frozen=True, slots=True)
class Door:
    """Addresses at which replies are ordered with POST. `writer` takes an answer and the name of
    the model; `written` is how an error is written. `names_model`: its API has each request name
    one, which a strict server keeps to."""

    paths: Sequence[str]
    read: Callable[[Any], Order]
    writer: Callable[[ServedAnswer, str], AnswerWriter]
    written: Callable[[Problem], dict[str, Any]] = Problem.as_openai
    names_model: bool = False


def event(document: Any, name: str | None = None) -> str:
    """One event of a stream."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {_encoded(document)}\n\n"
