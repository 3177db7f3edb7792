"""Rows of logits in a buffer that the next decode overwrites."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from localspec.engine.base import require_number


class Counting(Protocol):
    """An engine that counts its decodes."""

    n_decodes: int


class BufferLogits:
    """Rows of an engine's output; use after the next decode is a bug that is caught."""

    def __init__(
        self, engine: Counting, rows: npt.NDArray[np.float32], chance: float | None = None
    ) -> None:
        self.chance = chance
        self._engine = engine
        self.rows = rows
        self._decode = engine.n_decodes

    def row(self, i: int) -> npt.NDArray[np.float32]:
        """Scores of row `i`, shape (n_vocab,)."""
        assert self._engine.n_decodes == self._decode, "these logits died at a later decode"
        return self.rows[i]

    def argmax(self, i: int) -> int:
        """The id with the highest score in row `i`."""
        row = self.row(i)
        best = int(row.argmax())
        highest = row.item(best)
        if highest != highest:
            require_number(highest)
        return best
