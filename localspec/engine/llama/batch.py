"""What goes into a decode: a `llama_batch` over NumPy arrays.

A draft head reads hidden states, too: a row may have a token and a vector of `n_embd` numbers, or
nothing but the vector.

The engine reads five parallel arrays. Slices fill them in microseconds; a Python loop would take as
many per token. NumPy owns the memory, so nothing has to be freed.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from localspec.engine.llama.binding import C

_FEW = 16
"""Tokens that are written one by one in less time than slices take."""


class LlamaBatch:
    """Up to `capacity` rows (token, position, sequence, wants logits).

    Where each has `n_positions` the rows have states without tokens. Models with several positions
    a row (M-RoPE) then want all of them, one after another: those of a text are alike but for the
    last, 0.
    """

    def __init__(
        self, capacity: int, n_sequences: int, n_embd: int = 0, n_positions: int = 0
    ) -> None:
        self.capacity = capacity
        self.n_rows = 0
        self._token = np.zeros(capacity, np.int32)
        self._position = np.zeros(capacity, np.int32)
        self._n_alike, self._n_nameless = n_positions - 1, 0
        self._positions = np.zeros(n_positions * capacity, np.int32)
        self._wanted = np.zeros(capacity, np.int8)
        self._n_sequence_ids = np.ones(capacity, np.int32)
        self._sequence_ids = np.arange(n_sequences, dtype=np.int32)
        self._first_id = self._sequence_ids.ctypes.data
        self._sequence_of = np.full(capacity, self._first_id, np.uintp)
        self._steps = np.arange(capacity, dtype=np.int32)
        self._states = np.zeros((capacity, n_embd), np.float32)
        # Views whose single items are written in a few instructions: between two passes nothing
        # of Python or NumPy is in the processor's caches.
        self._one_token, self._one_position = self._token.data, self._position.data
        self._one_sequence, self._one_wanted = self._sequence_of.data, self._wanted.data
        self._states_address, self._row_bytes = self._states.ctypes.data, 4 * n_embd
        positions = self._positions if n_positions > 1 else self._position
        self._struct: Any = C.llama_batch(
            0,
            None if n_positions else _pointer(self._token, C.llama_token),
            _pointer(self._states, ctypes.c_float) if n_embd else None,
            _pointer(positions, C.llama_pos),
            _pointer(self._n_sequence_ids, ctypes.c_int32),
            ctypes.cast(
                self._sequence_of.ctypes.data, ctypes.POINTER(ctypes.POINTER(C.llama_seq_id))
            ),
            _pointer(self._wanted, ctypes.c_int8),
        )

    def add(self, tokens: Sequence[int], position: int, sequence: int, *, wanted: bool) -> None:
        """Append tokens of one sequence from `position` on, with logits for all or none; hidden
        states of few rows stay."""
        if len(tokens) <= _FEW:
            row, address = self.n_rows, self._first_id + 4 * sequence
            for token in tokens:
                self._one_token[row], self._one_position[row] = token, position
                self._one_sequence[row], self._one_wanted[row] = address, wanted
                row, position = row + 1, position + 1
            self.n_rows = row
            return
        start = self.n_rows
        end = self.n_rows = start + len(tokens)
        self._token[start:end] = tokens
        self._position[start:end] = self._steps[: end - start] + position
        self._sequence_of[start:end] = self._first_id + 4 * sequence
        self._wanted[start:end] = wanted

    def replace(self, token: int, position: int, address: int) -> None:
        """Of the only row: another token and position, and as its state what lies there."""
        self._one_token[0], self._one_position[0] = token, position
        ctypes.memmove(self._states_address, address, self._row_bytes)

    def add_states(
        self,
        tokens: Sequence[int],
        position: int,
        sequence: int,
        states: npt.NDArray[np.float32],
        *,
        wanted: bool,
    ) -> None:
        """The same with a hidden state for each token, whose numbers may lie in several parts."""
        room = self._states[self.n_rows : self.n_rows + len(tokens)]
        room.reshape(states.shape)[:] = states
        self.add(tokens, position, sequence, wanted=wanted)

    def add_nameless(self, sequence: int, states: npt.NDArray[np.float32]) -> None:
        """As many rows as there are states, from position 0 on, all with an output.

        For a batch without tokens of which nobody else uses any row: the rest is written once.
        """
        n = len(states)
        if n > self._n_nameless:
            self._position[:n], self._wanted[:n] = self._steps[:n], True
            self._sequence_of[:n], self._n_nameless = self._first_id + 4 * sequence, n
        self._states[:n].reshape(states.shape)[:] = states
        self.n_rows = n

    def want_last(self) -> None:
        """Logits for the row that was added last."""
        self._wanted[self.n_rows - 1] = True

    def filled(self) -> Any:
        """The engine's structure, with as many rows as were added."""
        n, n_alike = self.n_rows, self._n_alike
        self._struct.n_tokens = n
        if n_alike > 0:
            self._positions[: n_alike * n] = np.tile(self._position[:n], n_alike)
            self._positions[n_alike * n : (n_alike + 1) * n] = 0
        return self._struct


def _pointer(array: np.ndarray, kind: Any) -> object:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))
