"""A reference's predictions in a compact form: computed once, compared many times.

A full distribution takes 2 bytes a token of the vocabulary even in 16 bits, a gigabyte and more for
the shipped text. Here a position keeps its 512 likeliest tokens and a sample of 256 others. The
sample is drawn in proportion to probability and represents the mass of all others. An average over
p then has the right expectation, in 6 bytes a kept token:

    sum p f  =  sum over the likeliest of p f  +  rest * mean over the sample of f
"""

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from localspec.store import write_whole

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32]

N_LIKELIEST, N_SAMPLED = 512, 256
LOWEST = -24.0
"""The log probability that the code 65535 stands for."""
LOWEST_DRAWN = -18.0
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Rows:
    """Distributions of n positions.

    `ids` and `codes` of kept tokens, shape (n, kept), the likeliest first; the mass of the `rest`,
    the best token (`top`) and the true one's negative log likelihood (`nll`), shape (n,).
    """

    ids: Ids
    codes: npt.NDArray[np.uint16]
    rest: Floats
    top: Ids
    nll: Floats

    @property
    def log_p(self) -> Floats:
        """Log probabilities of the kept tokens."""
        return self.codes * np.float32(LOWEST / 65535)

    @property
    def n_likeliest(self) -> int:
        return min(N_LIKELIEST, self.ids.shape[1])

    @classmethod
    def of(cls, log_p: Floats, targets: Ids, first: int = 0) -> Self:
        """Rows of log probabilities, shape (n, n_vocab), of positions from `first` on."""
        kept = [_kept(row, first + i) for i, row in enumerate(log_p)]
        ids = np.stack([ids for ids, _ in kept])
        chosen = np.take_along_axis(log_p, ids, axis=1)
        return cls(
            ids=ids,
            codes=np.rint(np.maximum(chosen, LOWEST) * (65535 / LOWEST)).astype(np.uint16),
            rest=np.array([rest for _, rest in kept], np.float32),
            top=log_p.argmax(axis=1).astype(np.int32),
            nll=-log_p[np.arange(len(log_p)), targets],
        )

    def block(self, start: int, end: int) -> "Rows":
        """Positions `start` to `end`."""
        return Rows(*(getattr(self, name)[start:end] for name in Rows.__slots__))

    @classmethod
    def joined(cls, parts: "list[Rows]") -> "Rows":
        return Rows(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in Rows.__slots__)
        )


@dataclass(slots=True)
class Reference:
    """The rows of each window, in order."""

    windows: list[Rows] = field(default_factory=list[Rows])

    @property
    def nll(self) -> Floats:
        """Negative log likelihood of every scored token."""
        return np.concatenate([rows.nll for rows in self.windows])

    def save(self, path: Path) -> None:
        """Write a whole file, or none where the disk does not take it."""
        everything = Rows.joined(self.windows)
        arrays = {name: getattr(everything, name) for name in Rows.__slots__}
        with suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            with write_whole(path) as partial, partial.open("wb") as file:
                np.savez(file, n_windows=np.array(len(self.windows)), **arrays)

    @classmethod
    def load(cls, path: Path, n_windows: int) -> Self | None:
        """A saved reference; None where there is no whole one of that many windows."""
        try:
            with path.open("rb") as raw, np.load(raw) as file:
                everything = Rows(*(file[name] for name in Rows.__slots__))
                known = int(file["n_windows"])
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile):
            return None
        n_each, left = divmod(len(everything.nll), max(1, known))
        if known != n_windows or left or not n_each:
            return None
        return cls([everything.block(i * n_each, (i + 1) * n_each) for i in range(known)])


def _kept(log_p: Floats, position: int) -> tuple[Ids, float]:
    """The kept ids of one row, and the mass of all but the likeliest tokens."""
    if len(log_p) <= N_LIKELIEST:
        return np.arange(len(log_p), dtype=np.int32), 0.0
    # Most tokens of a large vocabulary are too unlikely to be drawn.
    candidates = np.flatnonzero(log_p > LOWEST_DRAWN)
    if len(candidates) < N_LIKELIEST + N_SAMPLED:
        candidates = np.arange(len(log_p))
    order = candidates[np.argpartition(log_p[candidates], len(candidates) - N_LIKELIEST)]
    likeliest, others = order[-N_LIKELIEST:], order[:-N_LIKELIEST]
    mass = np.cumsum(np.exp(log_p[others]), dtype=np.float64)
    # Evenly spaced marks on the scale of the mass; where they start differs by position.
    marks = (np.arange(N_SAMPLED) + (position * _GOLDEN) % 1) / N_SAMPLED * mass[-1]
    sampled = others[np.minimum(np.searchsorted(mass, marks), len(others) - 1)]
    return np.concatenate([likeliest, sampled]).astype(np.int32), float(mass[-1])
