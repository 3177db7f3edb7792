"""What a drafter is asked and what it answers.

Each request brings the whole history, so there is no protocol of begin, accept and reset: a
drafter's index or cache is private and catches up. Verification makes any draft safe; a bad one
only costs time. Each token comes with a confidence, a bin on the drafter's own scale, from which a
policy learns how often such tokens are accepted.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol, Self

from localspec.engine.base import Context, Engine, Head
from localspec.engine.constraint import Constraint
from localspec.engine.sampling import Distribution, Sampling


class StopRule(Protocol):
    """Says while a draft is made whether the next token pays.

    It is asked with the confidences of the tokens so far, which are kept whatever it says: throwing
    a drawn token away would bend the law of rejection sampling.
    """

    def evaluates(self, confidences: Sequence[int]) -> bool:
        """Is it worth asking the drafter what comes next?"""
        ...

    def takes(self, confidences: Sequence[int], confidence: int) -> bool:
        """Is a next token of this confidence, not drawn yet, worth verifying?"""
        ...


class DraftRequest(NamedTuple):
    """Guess at most `n_tokens` tokens that follow `history`.

    `history` is one list for a whole reply and only ever grows, so a drafter can index what is new.
    With `wants_distributions` a drafter that draws says what from; otherwise it gives its best
    guesses. Without `stop` it drafts as many tokens as it can. A draft model that has not seen
    `history` reads only its last `window` tokens; None: all of them. `context` is the target's, for
    drafters that read its hidden states. `constraint` is what the reply keeps.
    """

    history: list[int]
    n_tokens: int
    sampling: Sampling
    wants_distributions: bool = False
    stop: StopRule | None = None
    window: int | None = None
    context: Context | None = None
    constraint: Constraint | None = None


class Draft(NamedTuple):
    """Guessed tokens, and the distribution that each was drawn from; None: guessed outright.

    `confidences` has one bin a token, 0 .. the drafter's `n_confidences` - 1, or is empty. `why`
    names the decision to draft, or not to. `left` is the token that would have come next and its
    confidence, where it was not worth verifying: what is said there shows whether it was right.
    """

    tokens: Sequence[int]
    source: str
    distributions: Sequence[Distribution] | None = None
    confidences: Sequence[int] = ()
    why: str = ""
    left: tuple[int, int] | None = None

    def first(self, n: int, why: str) -> "Draft":
        """Its first n tokens, and why they were drafted."""
        distributions = self.distributions and self.distributions[:n]
        return Draft(self.tokens[:n], self.source, distributions, self.confidences[:n], why)


NO_DRAFT = Draft((), "none")
"""Nobody was asked: plain decoding."""


class Drafter(Protocol):
    """Guesses tokens for any number of replies at once.

    `source` is the name under which its drafts are counted, `option` the value of --spec that means
    this drafter alone, `label` its name for people. A draft that `is_free` costs next to nothing,
    so it can be made before it is wanted. It drafts at most `n_longest` tokens (None: any number);
    `is_at_once`: in one call, so that a longer draft costs no more.
    """

    source: ClassVar[str]
    option: ClassVar[str]
    label: ClassVar[str]
    is_free: ClassVar[bool]
    n_confidences: ClassVar[int]

    @property
    def n_longest(self) -> int | None: ...

    @property
    def is_at_once(self) -> bool: ...

    @classmethod
    def of(cls, target: Engine, draft: Engine | None, head: Head | None) -> Self | None:
        """One for a target, and the draft model or head beside it; None where it lacks what it
        needs."""
        ...

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """One draft for each request, possibly shorter than asked; NO_DRAFT for one of 0 tokens.

        A reply keeps its index or cache while it is among the requests: ask for 0 tokens where none
        are wanted.
        """
        ...

    def forget(self) -> None:
        """Drop every index and cache, as if each reply were the first."""
        ...
