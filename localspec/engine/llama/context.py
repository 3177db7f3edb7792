"""One sequence of a LlamaEngine, and the logits of its latest decode.

One reusable `llama_batch` over NumPy arrays.

The engine reads five parallel arrays; filling them by slices costs microseconds where a Python loop
over tokens costs as many as there are tokens. The memory is NumPy's, so nothing is to be freed.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from localspec.engine.base import require_number
from localspec.engine.llama.binding import C
from localspec.errors import EngineError

if TYPE_CHECKING:
    from localspec.engine.llama.engine import LlamaEngine


class LlamaContext:
    """One sequence of a LlamaEngine."""

    def __init__(self, engine: "LlamaEngine", sequence: int) -> None:
        self.engine = engine
        self.sequence = sequence
        self.held: list[int] = []

    @property
    def tokens(self) -> list[int]:
        """What the cache holds, in order. Not to be changed from outside."""
        return self.held

    def eval(self, tokens: Sequence[int], n_logits: int) -> "LlamaLogits":
        """Append `tokens` and return logits for the last `n_logits` of them."""
        result = self.engine.decode([(self, tokens, n_logits)])[0]
        if isinstance(result, EngineError):
            raise result
        return result

    def truncate(self, n: int) -> None:
        """Keep the first `n` tokens: by rollback, else by evaluating them again."""
        assert 0 <= n <= len(self.held), f"{len(self.held)} tokens held, {n} to keep"
        if n == len(self.held):
            return
        if self._can_roll_back(n) and self.engine.forget(self.sequence, n):
            del self.held[n:]
            return
        kept = self.held[:n]
        self.clear()
        self.eval(kept, 0)

    def clear(self) -> None:
        """Forget everything, which every kind of memory can."""
        self.engine.forget(self.sequence, -1)
        self.held = []

    def save(self, path: Path) -> None:
        """Write what the cache holds, with its tokens, to a file."""
        self.engine.save(self.sequence, self.held, path)

    def restore(self, path: Path) -> bool:
        """Hold what an engine with the same `state_key` saved; False, and empty, if it does not
        fit."""
        self.clear()
        tokens = self.engine.load(self.sequence, path)
        if tokens is None or len(tokens) != self.engine.length(self.sequence):
            self.clear()
            return False
        self.held = tokens
        return True

    @property
    def state_bytes(self) -> int:
        """The size of what `save` writes."""
        return self.engine.state_bytes(self.sequence)

    def resynchronise(self) -> None:
        """After a failed decode: hold what the cache says it holds."""
        if self.engine.rollback_limit == 0:
            self.clear()
        else:
            del self.held[self.engine.length(self.sequence) :]

    def refusal(self, n: int) -> EngineError | None:
        """Why `n` more tokens cannot be taken in: they would outgrow the sequence's limit."""
        needed, limit = len(self.held) + n, self.engine.config.n_ctx
        if needed <= limit:
            return None
        return EngineError(
            f"{needed:,} tokens do not fit into a context of {limit:,}: use a larger --ctx"
        )

    def _can_roll_back(self, n: int) -> bool:
        # A windowed cache forgets old cells; rolling back behind them is answered with "done" and
        # garbage.
        window = self.engine.n_window
        if n == 0 or not window:
            return True
        first = self.engine.first_position(self.sequence)
        return first == 0 or first < n - window


class LlamaLogits:
    """Rows of the engine's output buffer; use after the next decode is a bug that is caught."""

    def __init__(self, engine: "LlamaEngine", rows: npt.NDArray[np.float32]) -> None:
        self._engine = engine
        self._rows = rows
        self._decode = engine.n_decodes

    def row(self, i: int) -> npt.NDArray[np.float32]:
        """Scores of row `i`, shape (n_vocab,)."""
        assert self._engine.n_decodes == self._decode, "these logits died at a later decode"
        return self._rows[i]

    def argmax(self, i: int) -> int:
        """The id with the highest score in row `i`."""
        row = self.row(i)
        best = int(row.argmax())
        require_number(row[best])
        return best


class LlamaBatch:
    """Up to `capacity` rows (token, position, sequence, wants logits)."""

    def __init__(self, capacity: int, n_sequences: int) -> None:
        self.capacity = capacity
        self.n_rows = 0
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._wanted = np.zeros(capacity, np.int8)
        self._n_sequence_ids = np.ones(capacity, np.int32)
        self._sequence_ids = np.arange(n_sequences, dtype=np.int32)
        self._first_id = self._sequence_ids.ctypes.data
        self._sequence_of = np.full(capacity, self._first_id, np.uintp)
        self._steps = np.arange(capacity, dtype=np.int32)
        self._struct: Any = C.llama_batch(
            0,
            _pointer(self._token, C.llama_token),
            None,
            _pointer(self._position, C.llama_pos),
            _pointer(self._n_sequence_ids, ctypes.c_int32),
            ctypes.cast(
                self._sequence_of.ctypes.data, ctypes.POINTER(ctypes.POINTER(C.llama_seq_id))
            ),
            _pointer(self._wanted, ctypes.c_int8),
        )

    @property
    def room(self) -> int:
        """How many more rows fit."""
        return self.capacity - self.n_rows

    def clear(self) -> None:
        self.n_rows = 0

    def add(self, tokens: Sequence[int], position: int, sequence: int, *, wanted: bool) -> None:
        """Append tokens of one sequence from `position` on, with logits for all or none."""
        start = self.n_rows
        end = self.n_rows = start + len(tokens)
        # One row is what plain decoding adds, and four times cheaper to write than a slice.
        rows = start if end == start + 1 else slice(start, end)
        self._token[rows] = tokens[0] if end == start + 1 else tokens
        self._position[rows] = (
            position if end == start + 1 else self._steps[: end - start] + position
        )
        self._sequence_of[rows] = self._first_id + sequence * self._sequence_ids.itemsize
        self._wanted[rows] = wanted

    def filled(self) -> Any:
        """The engine's structure, with as many rows as were added."""
        self._struct.n_tokens = self.n_rows
        return self._struct


def _pointer(array: np.ndarray, kind: Any) -> object:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
