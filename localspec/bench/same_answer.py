"""Is it the same answer? DESIGN's rule for greedy output of plain and speculative decoding.

Batches of different width use different kernels, which round differently. Two greedy answers may
part only where the two best tokens are nearly tied: where the margin between their logits is at
most twice the largest difference of logits that this configuration shows between decoding one by
one and in verification batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from localspec.engine.base import Context, hold
from localspec.session import Session


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where an answer parts from the plain one; margin and difference are of logits."""

    position: int
    margin: float
    largest_difference: float

    @property
    def is_excused(self) -> bool:
        """A near tie, within what rounding does here."""
        return self.margin <= 2 * self.largest_difference


def first_difference(plain: Sequence[int], other: Sequence[int]) -> int | None:
    """The first position at which the answers differ, None where they do not."""
    if list(plain) == list(other):
        return None
    pairs = zip(plain, other, strict=False)
    shorter = min(len(plain), len(other))
    return next((i for i, (a, b) in enumerate(pairs) if a != b), shorter)


def diverge(
    session: Session, prompt: Sequence[int], plain: Sequence[int], other: Sequence[int], width: int
) -> Divergence | None:
    """Measure where `other` parts from `plain`, answers to `prompt`; None where it does not.

    `width` is the largest number of tokens in a verification batch.
    """
    position = first_difference(plain, other)
    if position is None:
        return None
    single = replay(session.context, prompt, plain, 1)
    batches = (replay(session.context, prompt, plain, n) for n in range(2, width + 1))
    largest = max(float(np.abs(single - batch).max()) for batch in batches)
    best = np.sort(single[position])[-2:]
    return Divergence(position, float(best[1] - best[0]), largest)


def replay(context: Context, prompt: Sequence[int], reply: Sequence[int], width: int) -> np.ndarray:
    """Logits after the prompt and each token of `reply`; shape (len(reply) + 1, n_vocab)."""
    rows = [hold(context, list(prompt), 1).row(0).copy()]
    for start in range(0, len(reply), width):
        tokens = list(reply[start : start + width])
        logits = context.eval(tokens, len(tokens))
        rows += [logits.row(i).copy() for i in range(len(tokens))]
    return np.stack(rows)
