"""What a drafter is asked and what it answers.

The whole history comes each time, so there is no protocol of begin, accept and reset: a drafter's
index or cache is private and catches up. Verification makes any draft safe; a bad one only costs
time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from localspec.engine.sampling import Distribution, Sampling


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """Guess at most `n_tokens` tokens that follow `history`.

    `history` is one list for a whole reply and only ever grows, which lets a drafter index what is
    new. With `wants_distributions` a drafter that draws says what from; otherwise it gives its best
    guesses.
    """

    history: list[int]
    n_tokens: int
    sampling: Sampling
    wants_distributions: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """Guessed tokens, and the distribution that each was drawn from; None: guessed outright."""

    tokens: Sequence[int]
    source: str
    distributions: Sequence[Distribution] | None = None


NO_DRAFT = Draft((), "none")


class Drafter(Protocol):
    """Guesses tokens for any number of replies at once."""

    @property
    def source(self) -> str:
        """The name under which its drafts are counted."""
        ...

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """One draft for each request, possibly shorter than asked, possibly empty."""
        ...
