"""Who drafts before a pass, and how much: the seam between the loop and a policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from localspec.decode.drafters.base import Draft, DraftRequest, StopRule
from localspec.decode.step import Step


class Generation(Protocol):
    """A reply in progress, as a policy sees it."""

    @property
    def history(self) -> list[int]:
        """Prompt and reply: one list for the whole reply, which only grows."""
        ...

    @property
    def n_tokens(self) -> int:
        """Tokens of the reply so far."""
        ...

    @property
    def room(self) -> int:
        """The longest draft that is allowed now; 0 before the first pass."""
        ...

    @property
    def law(self) -> str:
        """How drafts are verified: the key under which chances are learned."""
        ...

    def request(
        self, n_tokens: int, stop: StopRule | None = None, window: int | None = None
    ) -> DraftRequest:
        """What a drafter needs to know to guess `n_tokens` tokens."""
        ...


@dataclass(frozen=True, slots=True)
class Gain:
    """Times plain speed: what was expected of the passes with drafts, and what all of the reply
    came to; None where nothing was drafted or a policy does not estimate it.
    """

    predicted: float | None = None
    measured: float | None = None


class Speculator(Protocol):
    """Drafts before each pass, and learns from it."""

    def draft(self, generations: Sequence[Generation], n_other_rows: int = 0) -> list[Draft]:
        """One draft for each generation, possibly empty; the pass evaluates `n_other_rows` rows
        of prompts as well."""
        ...

    def learn(self, steps: Sequence[Step], width: int, seconds: float) -> None:
        """What the pass came to: a step for each generation of the last `draft`, the rows of the
        whole pass, and its seconds with drafting."""
        ...

    @property
    def gain(self) -> Gain:
        """What it expected, and what came of it."""
        ...

    @property
    def reason(self) -> str:
        """Why drafts are as they are, for people; empty where there is nothing to say."""
        ...
