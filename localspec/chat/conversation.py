"""What happens in a conversation, as events, and the conversation as the fold of its events.

A session file is a list of events, one a line. Nothing is ever taken out of a file: undoing is an
event too. An event of an unknown kind is passed over, so an older localspec reads a newer one's
files.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Self

from localspec.dialogue.answer_parser import parts_of
from localspec.dialogue.transcript import Answer, Turn


@dataclass(frozen=True, slots=True)
class Asked:
    """The user's message; it replaces one that was never answered."""

    text: str
    at: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The model's answer to the last message."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Retried:
    """The last answer is forgotten; its message waits for another."""


@dataclass(frozen=True, slots=True)
class Undone:
    """The last message and its answer are forgotten."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The model no longer sees the oldest `n_turns` of those that it saw."""

    n_turns: int


@dataclass(frozen=True, slots=True)
class SystemSet:
    """Another system prompt; None: none."""

    text: str | None


@dataclass(frozen=True, slots=True)
class Named:
    """The user names this conversation."""

    name: str


@dataclass(frozen=True, slots=True)
class Configured:
    """Settings by the names of command line options, e.g. `model`, `spec`, `temp`."""

    settings: dict[str, Any]


def first_line(message: str) -> str:
    """What stands for a message in a list."""
    return message.strip().partition("\n")[0]


Event = Asked | Answered | Retried | Undone | Dropped | SystemSet | Named | Configured

_KINDS: dict[str, type[Any]] = {
    "asked": Asked,
    "answered": Answered,
    "retried": Retried,
    "undone": Undone,
    "dropped": Dropped,
    "system": SystemSet,
    "named": Named,
    "configured": Configured,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def to_json(event: Event) -> dict[str, Any]:
    """The event as a JSON object."""
    return {"event": _NAMES[type(event)], **asdict(event)}


def of_json(document: Any) -> Event | None:
    """The event in a JSON object; None where this version does not know it."""
    if not isinstance(document, dict) or (kind := _KINDS.get(str(document.get("event")))) is None:
        return None
    known = {f.name: document[f.name] for f in fields(kind) if f.name in document}
    try:
        if kind is Answered:
            return Answered(_answer(known["answer"]))
        return kind(**known)
    except (TypeError, KeyError, ValueError):
        return None


def _answer(document: dict[str, Any]) -> Answer:
    known = {f.name: document[f.name] for f in fields(Answer) if f.name in document}
    known["tokens"] = tuple(int(token) for token in known.get("tokens", ()))
    if "thought" not in known:  # an earlier version saved both as one
        parts = parts_of(known["text"])
        for name, is_thought in (("text", False), ("thought", True)):
            known[name] = "".join(part.text for part in parts if part.is_thought == is_thought)
    return Answer(**known)


@dataclass(frozen=True, slots=True)
class Conversation:
    """`turns` are all that were not undone; the model does not see the first `n_dropped`.

    `n_retries` counts answers that were asked for again; each takes another seed. `began`: when
    the first of the turns was asked.
    """

    system: str | None = None
    turns: tuple[Turn, ...] = ()
    n_dropped: int = 0
    n_retries: int = 0
    name: str | None = None
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    began: str | None = None

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """The conversation after `events`."""
        conversation = cls()
        for event in events:
            conversation = conversation.after(event)
        return conversation

    def after(self, event: Event) -> Self:
        """The conversation after one more event."""
        match event:
            case Asked(text, at):
                asked = self._with_turns((*self._answered, Turn(text)))
                return replace(asked, began=self.began if self._answered else at)
            case Answered(answer):
                return self._answer(answer)
            case Retried():
                return self._retry()
            case Undone():
                return self._with_turns(self.turns[:-1])
            case Dropped(n_turns):
                return replace(self, n_dropped=min(self.n_dropped + n_turns, len(self.turns)))
            case _:
                return self._named(event)

    @property
    def pending(self) -> str | None:
        """The last message, if it has no answer."""
        last = self.turns[-1] if self.turns else None
        return last.question if last and last.answer is None else None

    @property
    def date(self) -> datetime | None:
        """What its templates take for today: tomorrow's prompts begin like today's."""
        try:
            return datetime.fromisoformat(self.began) if self.began else None
        except ValueError:
            return None

    @property
    def seen(self) -> tuple[Turn, ...]:
        """The turns that the model sees."""
        return self.turns[self.n_dropped :]

    @property
    def sizes(self) -> list[int]:
        """Characters of these."""
        return [
            len(turn.question) + len(turn.answer.text if turn.answer else "") for turn in self.seen
        ]

    @property
    def _answered(self) -> tuple[Turn, ...]:
        return self.turns[:-1] if self.pending is not None else self.turns

    def _named(self, event: SystemSet | Named | Configured) -> Self:
        match event:
            case SystemSet(text):
                return replace(self, system=text)
            case Named(name):
                return replace(self, name=name)
            case Configured(settings):
                return replace(self, settings=self.settings | settings)

    def _answer(self, answer: Answer) -> Self:
        if self.pending is None:
            return self
        return self._with_turns((*self.turns[:-1], replace(self.turns[-1], answer=answer)))

    def _retry(self) -> Self:
        if not self.turns or self.turns[-1].answer is None:
            return self
        again = self._with_turns((*self.turns[:-1], Turn(self.turns[-1].question)))
        return replace(again, n_retries=self.n_retries + 1)

    def _with_turns(self, turns: tuple[Turn, ...]) -> Self:
        return replace(self, turns=turns, n_dropped=min(self.n_dropped, len(turns)))
