"""Hidden states of a target's passes, kept for a draft head: the newest rows of each sequence.

A row is what the head reads of one evaluated token: the state behind the last layer (`nextn`), or
the inputs of some layers side by side (taps). libllama hands them out after each call, one row for
every token of the batch, and the next call overwrites them. Where many tokens follow in the same
decode, none are asked for: a prompt is read as fast as without a head, which begins with its end.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from localspec.engine.llama.binding import Handle
from localspec.engine.llama.unstable import unstable
from localspec.errors import EngineError
from localspec.model.heads import N_KEPT

Rows = npt.NDArray[np.float32]

N_AWAKE = 16
"""Passes for which states are handed out after a head asked for them: they cost each pass a copy,
and a head that does not pay may stay away for the rest of a reply."""
NEXT_WORTH, TAPS_WORTH = 32, 2048
"""So many tokens that follow are reason enough to do without rows. Taps are part of the graph, so
that switching them makes libllama plan its buffers anew."""


class FeatureRows:
    """Rows of one sequence's positions `first` .. `end` - 1, the newest that it evaluated."""

    def __init__(self, width: int) -> None:
        self.first = self.end = 0
        self.n_unchanged = 0
        """Tokens that are what they were when this was set."""
        self._start = 0  # the place of row `first`
        self._rows = np.zeros((4 * N_KEPT, width), np.float32)

    def take(self, position: int, n: int, columns: Sequence[Rows] = ()) -> None:
        """`n` tokens were evaluated from `position` on, in place of what was there. `columns`:
        their rows, in parts that lie side by side; none: they are not known."""
        self.n_unchanged = min(self.n_unchanged, position)
        if not columns:
            self.first = self.end = position + n
            return
        if not self.first <= position <= self.end:
            self.first = self.end = position
        n_new = min(n, N_KEPT)
        first_new = position + n - n_new
        if n_new < n:
            self.first = first_new
        self.end = first_new
        self._make_room(n_new)
        place, column = self._start + self.end - self.first, 0
        for rows in columns:
            width = rows.shape[1]
            self._rows[place : place + n_new, column : column + width] = rows[n - n_new :]
            column += width
        self.end += n_new
        surplus = max(0, self.end - self.first - N_KEPT)
        self.first, self._start = self.first + surplus, self._start + surplus

    def _make_room(self, n: int) -> None:
        """For `n` more rows behind `end`: what is kept moves to the front, seldom."""
        held = self.end - self.first
        if held == 0:
            self._start = 0
        elif self._start + held + n > len(self._rows):
            self._rows[:held] = self._rows[self._start : self._start + held].copy()
            self._start = 0

    def of(self, start: int, end: int) -> Rows:
        """Rows of positions `start` .. `end` - 1, a view; all of them must be kept."""
        assert self.first <= start <= end <= self.end
        place = self._start + start - self.first
        return self._rows[place : place + end - start]


class Features:
    """What a target's context gives to a head, and what is kept of it.

    `layers`: taps by layer, at its input; none: the state behind the last one.
    """

    def __init__(self, context: Handle, n_embd: int, layers: Sequence[int]) -> None:
        self.layers = tuple(layers)
        self.width = n_embd * max(1, len(self.layers))
        self._context, self._is_on = context, False
        self._n_awake = N_AWAKE
        self._sequences: dict[int, FeatureRows] = {}
        what = "layer_inp" if self.layers else "nextn"
        self._switch = unstable(f"llama_set_embeddings_{what}")
        self._address = unstable(f"llama_get_embeddings_{what}")
        self._given = [EngineRows(n_embd) for _ in self.layers or (None,)]
        self._first_address, self._n_given = None, 0

    def of(self, sequence: int) -> FeatureRows:
        """The rows of a sequence."""
        if sequence not in self._sequences:
            self._sequences[sequence] = FeatureRows(self.width)
        return self._sequences[sequence]

    def forget(self, sequence: int) -> None:
        """The sequence now holds what no pass has evaluated."""
        self._sequences.pop(sequence, None)

    def ask(self) -> None:
        """A head wants states, now and for some passes."""
        self._n_awake = N_AWAKE

    def prepare(self, n_following: int) -> None:
        """Before a call that is followed by that many rows of the same decode."""
        self._n_awake -= n_following == 0
        is_near = n_following < (TAPS_WORTH if self.layers else NEXT_WORTH)
        is_wanted = is_near and self._n_awake >= 0
        if is_wanted != self._is_on:
            self.switch(on=is_wanted)

    def switch(self, *, on: bool) -> None:
        """From the next call on."""
        self._is_on = on
        if not self.layers:
            self._switch(self._context, on, False)
        for layer in self.layers:
            self._switch(self._context, layer, on)

    def take(self, parts: Sequence[tuple[int, int, int]]) -> None:
        """After a call: (sequence, position, rows) of its parts, in the order of the batch."""
        n_rows, start = sum([n for _, _, n in parts]), 0
        columns = self._columns(n_rows) if self._is_on else []
        for sequence, position, n in parts:
            own = columns if n == n_rows else [each[start : start + n] for each in columns]
            self.of(sequence).take(position, n, own)
            start += n

    def _columns(self, n: int) -> list[Rows]:
        if not self.layers:
            return [self._given[0].at(self._address(self._context), n)]
        address = self._address(self._context, self.layers[0])
        # All taps lie in one buffer and move together (output_reserve in llama-context.cpp).
        if address != self._first_address or n > self._n_given:
            for given, layer in zip(self._given, self.layers, strict=True):
                given.at(self._address(self._context, layer), n)
            self._first_address, self._n_given = address, n
        return [given.rows[:n] for given in self._given]


class EngineRows:
    """Floats of the engine as an array, shape (n, `width`), which its next call overwrites.

    Where they lie seldom changes. A decode leaves nothing of Python in the processor's caches, so
    making an array each time would take longer than what is done with it.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._address: int | None = None
        self.rows = np.empty((0, width), np.float32)
        """All that were asked for so far."""

    def at(self, address: int | None, n: int) -> Rows:
        """The first `n` rows there, a view. EngineError: the engine gives none."""
        if address != self._address or n > len(self.rows):
            self.rows, self._address = _array_at(address, n, self._width), address
        return self.rows[:n]


def _array_at(address: int | None, n: int, width: int) -> Rows:
    if address is None:
        raise EngineError("the engine gave no hidden states")
    buffer: Any = (ctypes.c_float * (n * width)).from_address(address)
    return np.frombuffer(buffer, np.float32).reshape(n, width)
