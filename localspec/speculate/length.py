"""How many tokens to draft now, and by whom.

A policy is asked before each step and told of each step; `Fixed` ignores what it is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from localspec.speculate.drafters.base import Draft, Patience
from localspec.speculate.step import Step
from localspec.speculate.story import Gain


@dataclass(frozen=True, slots=True)
class Situation:
    """Where a reply is: `room` for drafts, `depth` of the history, `n_tokens` of the reply."""

    room: int
    depth: int
    n_tokens: int


@dataclass(frozen=True, slots=True)
class Choice:
    """At most `n_tokens` by the drafter of that name, and why; None: by whoever there is.

    What is not `verified` is drafted and compared with what a plain pass says: a trial where wider
    passes are dear. Of a text that is new to it a draft model reads the last `window` tokens.
    """

    n_tokens: int
    source: str | None = None
    why: str = ""
    patience: Patience | None = None
    verified: bool = True
    window: int | None = None


class DraftLength(Protocol):
    """A policy for who drafts and how much."""

    def n_offered(self, now: Situation) -> int:
        """How many tokens the free drafters should offer before the choice; 0: do not ask them."""
        ...

    def choose(self, now: Situation, offers: Sequence[Draft]) -> Choice:
        """Who drafts now and how much; 0 tokens is plain decoding."""
        ...

    def watch(self, draft: Draft) -> None:
        """A draft that is not verified, to be compared with the step."""
        ...

    def learn(self, step: Step, seconds: float) -> None:
        """What became of it, and the seconds of the whole step."""
        ...

    @property
    def gain(self) -> Gain:
        """What it expected, and what came of it."""
        ...

    @property
    def verdict(self) -> str:
        """Why drafts are as they are, for people; empty where there is nothing to say."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always `n_tokens`, as far as there is room."""

    n_tokens: int
    source: str | None = None

    def n_offered(self, now: Situation) -> int:
        """None: there is nothing to choose from."""
        return 0

    def choose(self, now: Situation, offers: Sequence[Draft]) -> Choice:
        """The fixed number, or what is left."""
        return Choice(min(self.n_tokens, now.room), self.source)

    def watch(self, draft: Draft) -> None:
        """Compare nothing."""

    def learn(self, step: Step, seconds: float) -> None:
        """Learn nothing."""

    @property
    def gain(self) -> Gain:
        """Unknown: nothing is measured."""
        return Gain()

    @property
    def verdict(self) -> str:
        """None."""
        return ""
