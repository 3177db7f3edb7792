"""What a drafter is asked and what it answers.

The whole history comes each time, so there is no protocol of begin, accept and reset: a drafter's
index or cache is private and catches up. Verification makes any draft safe; a bad one only costs
time. Each token comes with a confidence, a place on the drafter's own scale of how sure it is, from
which a policy learns how often such tokens stand.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from localspec.engine.sampling import Distribution, Sampling


class StopRule(Protocol):
    """Says while a draft is made whether the next token pays.

    It is asked with the confidences of the tokens so far, which are kept whatever it says: throwing a
    drawn token away would bend the law of rejection sampling.
    """

    def evaluates(self, confidences: Sequence[int]) -> bool:
        """Is it worth asking the drafter what comes next?"""
        ...

    def takes(self, confidences: Sequence[int], confidence: int) -> bool:
        """Is a next token of this confidence, not drawn yet, worth verifying?"""
        ...


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """Guess at most `n_tokens` tokens that follow `history`.

    `history` is one list for a whole reply and only ever grows, which lets a drafter index what is
    new. With `wants_distributions` a drafter that draws says what from; otherwise it gives its best
    guesses. Without `stop` it drafts as many tokens as it can. Of a history that is new to it a
    draft model reads the last `window` tokens; None: all of them.
    """

    history: list[int]
    n_tokens: int
    sampling: Sampling
    wants_distributions: bool = False
    stop: StopRule | None = None
    window: int | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """Guessed tokens, and the distribution that each was drawn from; None: guessed outright.

    `confidences` has one number a token, 0 .. the drafter's `n_confidences` - 1, or is empty.
    """

    tokens: Sequence[int]
    source: str
    distributions: Sequence[Distribution] | None = None
    confidences: Sequence[int] = ()
    reason: str = ""
    """Why it was made, or why not, for JSON."""

    def first(self, n: int) -> "Draft":
        """The same with its first `n` tokens; only for drafts that were guessed outright."""
        assert self.distributions is None, "a drawn token is never thrown away"
        return replace(self, tokens=self.tokens[:n], confidences=self.confidences[:n])


NO_DRAFT = Draft((), "none")


class Drafter(Protocol):
    """Guesses tokens for any number of replies at once."""

    @property
    def source(self) -> str:
        """The name under which its drafts are counted."""
        ...

    @property
    def is_free(self) -> bool:
        """Whether a draft costs next to nothing, so that it can be made before it is wanted."""
        ...

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """One draft for each request, possibly shorter than asked, possibly empty."""
        ...
