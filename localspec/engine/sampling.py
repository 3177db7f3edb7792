"""Logits to a distribution to a token, and the rules by which drafted tokens are accepted.

The chain follows llama.cpp's default order: bias, penalties, top-k, top-p, min-p, then
temperature; each truncation looks at the probabilities of what the one before it left. A
`Distribution` is sparse, because a truncated one has tens of tokens where the vocabulary has 10^5.

Acceptance, with p the target's distribution and q the one that the draft was drawn from:
- match: draw from p at the position's own random number and compare. Exact at any temperature, and
  the same text as without a draft.
- rejection (Leviathan et al. 2023, algorithm 1): accept x with probability min(1, p(x) / q(x)),
  else draw from the residual max(p - q, 0), normalised. Exact too, and accepts 1 - TV(p, q), the
  most that is possible.
A looked-up draft has q = 1 at its token, for which the two rules accept alike.

Random numbers keyed by seed, position and purpose.

A number belongs to a place in the text, not to the order in which code asks for it, so that rolling
a draft back costs nothing and `match` verification gives the same text as plain decoding. The mixer
is SplitMix64's finalizer (Steele, Lea, Flood 2014), applied to each key in turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from localspec.engine.base import Logits, require_number
from localspec.engine.constraint import Constraint
from localspec.errors import EngineError
from localspec.sampling_fields import Sampling

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Purpose(IntEnum):
    """What a random number decides; different purposes at one position are independent."""

    TOKEN = 1
    ACCEPT = 2
    RESIDUAL = 3
    DRAFT = 4


def uniform(seed: int, position: int, purpose: Purpose) -> float:
    """A number in [0, 1) with 53 random bits."""
    key = _mix(_mix(_mix(seed & _MASK) ^ (position + 1)) ^ purpose)
    return (key >> 11) / (1 << 53)


def _mix(x: int) -> int:
    x = (x + _GOLDEN) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


_BLOCKS = 32
"""The vocabulary is folded this many times to find a threshold for top-k."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """Ids with their probabilities, shapes (n,) and (n,); every other id has probability 0.

    Ids ascend. That keeps a draw stable: rounding moves the borders between ids a little, where the
    order of probabilities would swap two tokens that nearly tie.
    """

    ids: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64]

    def of(self, token: int) -> float:
        """The probability of one id."""
        place = int(self.ids.searchsorted(token))
        found = place < len(self.ids) and self.ids[place] == token
        return float(self.probabilities[place]) if found else 0.0

    def draw(self, number: float) -> int:
        """The id at quantile `number` of [0, 1)."""
        cumulative = self.probabilities.cumsum()
        place = int(cumulative.searchsorted(number * cumulative[-1], side="right"))
        return int(self.ids[min(place, len(self.ids) - 1)])

    def without(self, other: "Distribution") -> "Distribution | None":
        """The residual max(self - other, 0), normalised; None where nothing is left."""
        place = other.ids.searchsorted(self.ids).clip(max=len(other.ids) - 1)
        shared = np.where(other.ids[place] == self.ids, other.probabilities[place], 0.0)
        rest = (self.probabilities - shared).clip(min=0.0)
        total = rest.sum()
        return Distribution(self.ids, rest / total) if total > 0 else None


def certain(token: int) -> Distribution:
    """All probability on one id."""
    return Distribution(np.array([token]), np.array([1.0]))


@dataclass(frozen=True, slots=True)
class Least:
    """None of `ends` is chosen while a history is shorter than `n_tokens`."""

    n_tokens: int
    ends: frozenset[int]


class Chooser:
    """Applies one `Sampling` to rows of logits that continue a history.

    A `constraint` says which tokens may follow at all, `least` how long a reply is.
    """

    def __init__(
        self, sampling: Sampling, constraint: Constraint | None = None, least: Least | None = None
    ) -> None:
        self.sampling, self._is_greedy = sampling, sampling.is_greedy
        self._constraint = constraint
        self._least = least
        self._banned = np.array(sorted(sampling.banned), np.int64)
        self._ends = np.array(sorted(least.ends) if least else [], np.int64)
        self._biased = np.array([token for token, _ in sampling.bias], np.int64)
        self._bias = np.array([value for _, value in sampling.bias], np.float32)
        penalizes = sampling.repeat_penalty != 1 or sampling.frequency_penalty
        penalizes = penalizes or sampling.presence_penalty
        self._penalizes = bool(penalizes and sampling.repeat_last_n)
        """Whether a token's place in the history matters."""
        self._moves_row = bool(self._penalizes or sampling.bias)
        self.edits_row = bool(self._moves_row or sampling.banned or constraint or least)

    @property
    def window(self) -> int:
        """How many of the newest tokens matter to the choice of the next; 0: all of them."""
        return max(0, self.sampling.repeat_last_n) if self._penalizes else 1

    def greedy(self, logits: Logits, i: int, history: Sequence[int]) -> int:
        """The best id in row `i`."""
        if not self.edits_row:
            return logits.argmax(i)
        if not self._moves_row:
            best = logits.argmax(i)
            if self._allows(history, best):
                return best
        return int(self._edited(logits.row(i), history).argmax())

    def best(
        self, logits: Logits, i: int, history: Sequence[int], *, measured: bool = True
    ) -> tuple[int, float]:
        """The best id in row `i`, and about how likely the model finds it (0 if not `measured`)."""
        token = self.greedy(logits, i, history)
        return token, confidence(logits.row(i), token) if measured else 0.0

    def distribution(self, logits: Logits, i: int, history: Sequence[int]) -> Distribution:
        """What the next token is drawn from, after every filter and the temperature."""
        if self._is_greedy:
            return certain(self.greedy(logits, i, history))
        row = logits.row(i)
        require_number(row.max())
        return truncated(self._edited(row, history) if self.edits_row else row, self.sampling)

    def token(self, logits: Logits, i: int, history: Sequence[int]) -> int:
        """Draw the token that follows `history`: row `i`, at the random number of that position."""
        if self._is_greedy:
            return self.greedy(logits, i, history) if self.edits_row else logits.argmax(i)
        number = uniform(self.sampling.seed, len(history), Purpose.TOKEN)
        return self.distribution(logits, i, history).draw(number)

    def _allows(self, history: Sequence[int], token: int) -> bool:
        if token in self.sampling.banned or (self._is_short(history) and token in self._ends):
            return False
        return self._constraint is None or self._constraint.allows(history, token)

    def _is_short(self, history: Sequence[int]) -> bool:
        return self._least is not None and len(history) < self._least.n_tokens

    def _edited(
        self, row: npt.NDArray[np.float32], history: Sequence[int]
    ) -> npt.NDArray[np.float32]:
        """Raises EngineError where no token is left."""
        require_number(row.max())
        row = row.copy()
        row[self._biased] += self._bias
        if self._penalizes:
            _penalize(row, self.sampling, history[-self.window :])
        row[self._banned] = -np.inf
        if self._is_short(history):
            row[self._ends] = -np.inf
        if self._constraint is not None:
            row[~self._constraint.allowed(history)] = -np.inf
        if row.max() == -np.inf:
            raise EngineError("no token is left to choose: forbid fewer by logit_bias")
        return row


def _penalize(row: npt.NDArray[np.float32], sampling: Sampling, window: Sequence[int]) -> None:
    """As llama.cpp does: divide or multiply, then subtract by count and by presence."""
    if not window:
        return
    seen, counts = np.unique(np.array(window, np.int64), return_counts=True)
    scores, penalty = row[seen], sampling.repeat_penalty
    scores = np.where(scores > 0, scores / penalty, scores * penalty)
    scores -= counts * sampling.frequency_penalty + sampling.presence_penalty
    row[seen] = scores


def truncated(row: npt.NDArray[np.float32], sampling: Sampling) -> Distribution:
    """Filter logits, shape (n_vocab,), by top-k, top-p and min-p, then apply the temperature."""
    ids = _best(row, sampling.top_k)
    scores = row[ids].astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    ids, scores = ids[order], scores[order]
    if sampling.top_p < 1:
        cumulative = _softmax(scores).cumsum()
        n = int(cumulative.searchsorted(sampling.top_p)) + 1
        ids, scores = ids[:n], scores[:n]
    if sampling.min_p > 0:
        n = int((scores >= scores[0] + np.log(sampling.min_p)).sum())
        ids, scores = ids[:n], scores[:n]
    ascending = np.argsort(ids)
    return Distribution(ids[ascending], _softmax(scores / sampling.temperature)[ascending])


def confidence(row: npt.NDArray[np.float32], token: int) -> float:
    """The probability of the best token, at temperature 1, or a little more.

    Of each group of ids only the highest score counts, which misses little of the sum and saves
    most of its exponentials.
    """
    n_groups = len(row) // _BLOCKS
    if n_groups > _BLOCKS:
        row_max = row[: n_groups * _BLOCKS].reshape(_BLOCKS, n_groups).max(axis=0)
    else:
        row_max = row
    return min(1.0, 1 / float(np.exp(row_max - row[token]).sum()))


def _best(row: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
    """Ids of at least the `k` highest scores, exactly those unless scores tie.

    The maxima of disjoint groups are scores themselves, so the k-th highest of them is at most the
    k-th highest score: only what reaches it needs to be looked at. That is 10 times faster than
    partitioning the row.
    """
    n_groups = len(row) // _BLOCKS
    if k <= 0 or k >= len(row):
        return np.arange(len(row))
    if n_groups <= k:
        return np.argpartition(row, -k)[-k:]
    maxima = row[: n_groups * _BLOCKS].reshape(_BLOCKS, n_groups).max(axis=0)
    threshold = np.partition(maxima, -k)[-k]
    candidates = np.flatnonzero(row >= threshold)
    scores = row[candidates]
    return candidates[np.argpartition(scores, -k)[-k:]] if len(candidates) > k else candidates


def _softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    weights = np.exp(scores - scores[0])
    return weights / weights.sum()


def accept_match(
    drafted: Sequence[int], logits: Logits, chooser: Chooser, history: list[int]
) -> None:
    """Extend `history` by draws from the target, as long as the draft says the same."""
    for i, draft in enumerate(drafted):
        history.append(chooser.token(logits, i, history))
        if history[-1] != draft:
            return
    history.append(chooser.token(logits, len(drafted), history))


def accept_rejection(
    draft: Sequence[tuple[int, Distribution]], logits: Logits, chooser: Chooser, history: list[int]
) -> None:
    """Extend `history` by each drafted x with probability min(1, p(x) / q(x)), then by one more
    token.

    `draft` pairs each token with the q that it was drawn from. The last token comes from the
    residual where a draft failed and from the target where all were accepted.
    """
    seed = chooser.sampling.seed
    for i, (token, q) in enumerate(draft):
        p = chooser.distribution(logits, i, history)
        position = len(history)
        if uniform(seed, position, Purpose.ACCEPT) * q.of(token) >= p.of(token):
            residual = p.without(q) or p
            history.append(residual.draw(uniform(seed, position, Purpose.RESIDUAL)))
            return
        history.append(token)
    history.append(chooser.token(logits, len(draft), history))
