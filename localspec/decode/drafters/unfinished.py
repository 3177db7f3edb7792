"""A draft in the making: token after token out of rows of scores, for draft models and heads.

A token's confidence is how likely the drafter itself finds it, in bins. With `stop` a token is
drawn only if one as likely is worth verifying: a drawn one is never thrown away.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from localspec.decode.drafters.base import NO_DRAFT, Draft, DraftRequest
from localspec.engine.base import Logits
from localspec.engine.sampling import Chooser, Distribution, Purpose, uniform

CONFIDENCES = (0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97)
"""Borders of the bins of confidence, by the probability of the drafter's best token."""
N_CONFIDENCES = len(CONFIDENCES) + 1

Place = TypeVar("Place")


def confidence_bin(probability: float) -> int:
    """The bin of a probability, 0 to 1: how many of `CONFIDENCES` it reaches."""
    return sum(probability >= border for border in CONFIDENCES)


@dataclass(slots=True)
class UnfinishedDraft(Generic[Place]):
    """One draft of at most `n_tokens`; `place` is what its drafter reads the text in."""

    request: DraftRequest
    place: Place
    chooser: Chooser
    n_tokens: int
    tokens: list[int] = field(default_factory=list[int])
    distributions: list[Distribution] = field(default_factory=list[Distribution])
    confidences: list[int] = field(default_factory=list[int])
    is_done: bool = False
    left: tuple[int, int] | None = None
    is_plain: bool = False
    """Whether its best guesses are wanted, however sure the drafter is of them."""

    def __post_init__(self) -> None:
        request, self.is_done = self.request, self.is_done or self.n_tokens <= 0
        edits = self.chooser.edits_row or request.wants_distributions
        self.is_plain = request.stop is None and not edits

    def take(self, logits: Logits, chance: float | None = None) -> None:
        """Choose the next token from its logits, if it is worth verifying. `chance`: what the
        drafter says of its best one."""
        if self.is_plain:
            tokens = self.tokens
            tokens.append(logits.argmax(0))
            self.confidences.append(0 if chance is None else confidence_bin(chance))
            self.is_done = len(tokens) >= self.n_tokens
            return
        stop = self.request.stop
        history = self.request.history
        text = [*history[-self.chooser.window :], *self.tokens]
        q, token = None, 0
        if self.request.wants_distributions:
            q = self.chooser.distribution(logits, 0, text)
            probability = float(q.probabilities.max())
        else:
            is_open = stop is not None and chance is None
            token, probability = self.chooser.best(logits, 0, text, measured=is_open)
        confidence = confidence_bin(probability if chance is None else chance)
        if stop and not stop.takes(self.confidences, confidence):
            self.is_done, self.left = True, None if q else (token, confidence)
            return
        if q is not None:
            place = len(history) + len(self.tokens)
            token = q.draw(uniform(self.chooser.sampling.seed, place, Purpose.DRAFT))
            self.distributions.append(q)
        self.tokens.append(token)
        self.confidences.append(confidence)
        self.is_done = len(self.tokens) >= self.n_tokens or bool(
            stop and not stop.evaluates(self.confidences)
        )

    def draft(self, source: str) -> Draft:
        """What it came to."""
        if self.request.n_tokens == 0:
            return NO_DRAFT
        distributions = self.distributions if self.request.wants_distributions else None
        return Draft(self.tokens, source, distributions, self.confidences, left=self.left)


def complete(
    drafts: Sequence[UnfinishedDraft[Place]],
    evaluate: Callable[[Sequence[UnfinishedDraft[Place]]], Sequence[tuple[Logits, float | None]]],
) -> None:
    """Draft on until all are done; `evaluate` gives a row for the next token of each, and what the
    drafter says of its chance."""
    active = [draft for draft in drafts if not draft.is_done]
    while active:
        for draft, (logits, chance) in zip(active, evaluate(active), strict=True):
            draft.take(logits, chance)
        active = [draft for draft in active if not draft.is_done]
