"""Who drafts before a pass, and how much: the seam between the loop and a policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from localspec.decode.drafters.base import NO_DRAFT, Draft, Drafter
from localspec.decode.generation import Generation
from localspec.decode.step import Step


@dataclass(frozen=True, slots=True)
class Gain:
    """Times plain speed: what was expected of the passes with drafts, and what all of the reply
    came to; None where nothing was drafted or a speculator does not estimate it.
    """

    predicted: float | None = None
    measured: float | None = None


class Speculator(Protocol):
    """Drafts before each pass, and learns from it. It owns its drafters."""

    def draft(
        self, generations: Sequence[Generation], n_other_rows: int = 0, limit_s: float = inf
    ) -> list[Draft]:
        """A draft of at most `room` tokens for each generation; NO_DRAFT is plain decoding.

        The pass evaluates their pending tokens as well, and `n_other_rows` rows of prompts. Drafts
        that are chosen by cost make it no longer than `limit_s`.
        """
        ...

    def learn(self, steps: Sequence[Step], width: int, seconds: float) -> None:
        """What became of the last drafts: a step for each, the rows and seconds of the whole pass.

        A pass that was interrupted is not learned from.
        """
        ...

    @property
    def gain(self) -> Gain:
        """What it expected, and what came of it."""
        ...

    @property
    def reason(self) -> str:
        """Why drafts are as they are, for people; empty where there is nothing to say."""
        ...


class Plain:
    """Drafts nothing."""

    gain = Gain()
    reason = ""

    def draft(
        self, generations: Sequence[Generation], n_other_rows: int = 0, limit_s: float = inf
    ) -> list[Draft]:
        """Nothing for anybody."""
        return [NO_DRAFT] * len(generations)

    def learn(self, steps: Sequence[Step], width: int, seconds: float) -> None:
        """Learn nothing."""


class Fixed(Plain):
    """Drafts `n` tokens each time, as far as there is room."""

    def __init__(self, drafter: Drafter, n: int) -> None:
        self.drafter = drafter
        self.n = n

    def draft(
        self, generations: Sequence[Generation], n_other_rows: int = 0, limit_s: float = inf
    ) -> list[Draft]:
        """What the drafter finds."""
        n = self.n
        return self.drafter.draft([each.request(min(n, each.room)) for each in generations])
