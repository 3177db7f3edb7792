"""How likely the model found what it said: logarithms of its own distribution.

That is the softmax of the row as the model wrote it, at temperature 1, before bias, penalties,
filters and constraints; or what the token was drawn from, behind all of these. A position is judged
by the row that verified it, so a drafted token has the same figure as one without a draft.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from localspec.engine.sampling import Distribution


@dataclass(frozen=True, slots=True)
class Likelihoods:
    """What is noted of each token: `n_top` of the likeliest beside it. `drawn`: behind all filters,
    else the model's own."""

    n_top: int
    drawn: bool = False


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Of one position: the token that was said, and the likeliest ones, the best first; natural
    logarithms."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, row: npt.NDArray[np.float32], token: int, n_top: int) -> "TokenLogprobs":
        """From scores, shape (n_vocab,); equal scores go by id."""
        scores = row.astype(np.float64)
        highest = scores.max()
        log_total = float(highest + np.log(np.exp(scores - highest).sum()))
        top = tuple((int(i), float(scores[i]) - log_total) for i in _best(scores, n_top))
        return cls(token, float(scores[token]) - log_total, top)

    @classmethod
    def drawn(cls, found: Distribution, token: int, n_top: int) -> "TokenLogprobs":
        """From what the token was drawn from; ids without a chance are not among the likeliest."""
        best = _best(found.probabilities, n_top)
        best = best[found.probabilities[best] > 0]
        logs = np.log(found.probabilities[best])
        top = tuple(zip(found.ids[best].tolist(), logs.tolist(), strict=True))
        return cls(token, float(np.log(max(found.of(token), SMALLEST))), top)


SMALLEST = float(np.finfo(np.float64).tiny)
"""In place of a chance of 0, whose logarithm JSON cannot write."""


def _best(scores: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.int64]:
    if n == 0:
        return np.array([], np.int64)
    n = min(n, len(scores))
    least = np.partition(scores, -n)[-n]
    found = np.flatnonzero(scores >= least)
    return found[np.argsort(-scores[found], kind="stable")][:n]
