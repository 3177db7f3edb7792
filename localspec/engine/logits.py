"""Rows of logits in a buffer that the next decode overwrites."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from localspec.engine.base import require_number


class Counting(Protocol):
    """An engine that counts its decodes."""

    n_decodes: int


class BufferLogits:
    """Rows of an engine's output from `start` on; use after the next decode is a bug that is
    caught."""

    def __init__(
        self,
        engine: Counting,
        rows: npt.NDArray[np.float32],
        chance: float | None = None,
        start: int = 0,
    ) -> None:
        self.chance = chance
        self._engine, self._decode = engine, engine.n_decodes
        self._rows, self._start = rows, start

    def row(self, i: int) -> npt.NDArray[np.float32]:
        assert self._engine.n_decodes == self._decode, "these logits died at a later decode"
        return self._rows[self._start + i]

    def rows(self, n: int) -> npt.NDArray[np.float32]:
        """The first `n` of them, shape (n, n_vocab)."""
        return self._rows[self._start : self._start + n]

    def argmax(self, i: int) -> int:
        assert self._engine.n_decodes == self._decode, "these logits died at a later decode"
        row = self._rows[self._start + i]
        best = int(row.argmax())
        highest = row.item(best)
        if highest != highest:
            require_number(highest)
        return best
