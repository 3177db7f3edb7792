"""What happens in a conversation, as values; a session file is a list of them, one a line.

Nothing is ever taken out of a file: undoing is an event too. `of_json` gives None for an event of a
kind that this version does not know, so that an older localspec reads a newer one's files.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said. `tokens` are ids of the tokenizer with that digest, exactly as emitted;
    none where the text is not that of whole tokens."""

    text: str
    tokens: tuple[int, ...] = ()
    tokenizer: str | None = None
    finish_reason: str = "stop"
    figures: dict[str, Any] = field(default_factory=dict[str, Any], compare=False)


@dataclass(frozen=True, slots=True)
class Asked:
    """The user's message; one that was never answered goes when the next one comes."""

    text: str
    at: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The model's answer to the last message."""

    answer: Answer


@dataclass(frozen=True, slots=True)
class Retried:
    """The last answer is forgotten and its message waits for another one."""


@dataclass(frozen=True, slots=True)
class Undone:
    """The last message and its answer are forgotten."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The model no longer sees the first `n_turns` of those that it saw."""

    n_turns: int


@dataclass(frozen=True, slots=True)
class SystemSet:
    """Another system prompt; None: none."""

    text: str | None


@dataclass(frozen=True, slots=True)
class Named:
    """What the user calls this conversation."""

    name: str


@dataclass(frozen=True, slots=True)
class Configured:
    """Settings by the names of command line options, e.g. `model`, `spec`, `temp`."""

    settings: dict[str, Any]


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
    """The event in a JSON object; None where it is none that is known here."""
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
    return Answer(**known)
