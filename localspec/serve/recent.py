"""The last minutes of a server in bins of equal length: who was here, how fast, with what drafts.

The engine's thread adds each pass, any other may read. A pass that lasts longer than a bin counts
in all that it touches, by its share of each.
"""

from dataclasses import dataclass
from math import floor

from localspec.serve.messages import Pass

BIN_S = 2.0
N_BINS = 150
"""Five minutes."""


@dataclass(slots=True)
class _Bin:
    number: int = -1
    n_users: int = 0
    n_waiting: int = 0
    n_tokens: float = 0.0
    n_drafted: float = 0.0
    n_passes: float = 0.0


@dataclass(frozen=True, slots=True)
class Moment:
    """A bin: the most users and waiting requests, tokens a second, drafted rows of a pass (B)."""

    users: int = 0
    waiting: int = 0
    tokens_per_s: float = 0.0
    drafted_rows: float = 0.0


class Recent:
    """Times are seconds of any clock that begins at or after 0."""

    def __init__(self) -> None:
        self._bins = [_Bin() for _ in range(N_BINS + 1)]  # one more than is shown is being filled

    def add(self, passed: Pass, started: float, ended: float) -> None:
        """Count a pass."""
        first, last = floor(started / BIN_S), floor(ended / BIN_S)
        for number in range(max(first, last - N_BINS), last + 1):
            within = min(ended, (number + 1) * BIN_S) - max(started, number * BIN_S)
            share = within / (ended - started) if ended > started else 1.0
            if share > 0:  # it may end where a bin begins
                self._count(self._bin(number), passed, share)

    def moment(self, now: float) -> Moment:
        """The last bin that is over."""
        return self._moment(floor(now / BIN_S) - 1)

    def curves(self, now: float) -> dict[str, list[float]]:
        """Each figure of a `Moment` over the last minutes, the oldest first."""
        last = floor(now / BIN_S)
        moments = [self._moment(number) for number in range(last - N_BINS, last)]
        return {name: [getattr(each, name) for each in moments] for name in Moment.__slots__}

    def _moment(self, number: int) -> Moment:
        found = self._bins[number % len(self._bins)]
        if found.number != number:
            return Moment()  # nothing happened then
        per_pass = found.n_drafted / found.n_passes if found.n_passes else 0.0
        return Moment(found.n_users, found.n_waiting, found.n_tokens / BIN_S, per_pass)

    def _bin(self, number: int) -> _Bin:
        place = number % len(self._bins)
        if self._bins[place].number != number:
            self._bins[place] = _Bin(number)
        return self._bins[place]

    def _count(self, found: _Bin, passed: Pass, share: float) -> None:
        found.n_users = max(found.n_users, passed.n_users)
        found.n_waiting = max(found.n_waiting, passed.n_waiting)
        found.n_tokens += share * passed.n_tokens
        found.n_drafted += share * passed.n_drafted
        found.n_passes += share
