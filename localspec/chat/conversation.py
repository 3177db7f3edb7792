"""A conversation: the fold of its events. What was dropped or undone is in the events only."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

from localspec.chat.events import (
    Answer,
    Answered,
    Asked,
    Configured,
    Dropped,
    Event,
    Named,
    Retried,
    SystemSet,
    Undone,
)
from localspec.engine.text import Message


@dataclass(frozen=True, slots=True)
class Turn:
    """A message and its answer; None while there is none."""

    question: str
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Conversation:
    """`turns` are all that stand, the first `n_dropped` of which the model does not see.

    `n_retries` counts answers that were asked for again: each takes another seed.
    """

    system: str | None = None
    turns: tuple[Turn, ...] = ()
    n_dropped: int = 0
    n_retries: int = 0
    name: str | None = None
    settings: dict[str, Any] = field(default_factory=dict[str, Any])

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
            case Asked(text):
                return self._with_turns((*self._answered, Turn(text)))
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
    def seen(self) -> tuple[Turn, ...]:
        """The turns that the model sees."""
        return self.turns[self.n_dropped :]

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


def messages(system: str | None, turns: Iterable[Turn]) -> list[Message]:
    """What a chat template takes."""
    said = [Message(role="system", content=system)] if system else []
    for turn in turns:
        said.append(Message(role="user", content=turn.question))
        if turn.answer is not None:
            said.append(Message(role="assistant", content=turn.answer.text))
    return said
