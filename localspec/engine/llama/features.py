"""Hidden states of a target's passes, kept for a draft head: the newest rows of each sequence.

A row is what the head reads of one evaluated token: the state behind the last layer (`nextn`), or
the inputs of some layers side by side (taps). libllama hands them out after each call, one row for
every token of the batch, and the next call overwrites them. Where many tokens follow in the same
decode, none are asked for: a prompt is read as fast as without a head, which begins with its end.

What a draft head needs stands in llama-ext.h, which llama.cpp calls unstable, with names in C++.
Each function has its name in C, that of Itanium's ABI (Linux, macOS) and Microsoft's. A build that
lacks one runs everything but what needs it, and says so in a sentence.
"""

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from localspec.engine.llama.binding import C, Handle
from localspec.errors import EngineError
from localspec.model.facts import N_KEPT

_CONTEXT = ctypes.c_void_p


def _found(name: str, arguments: str, microsoft: str, result: Any, *types: Any) -> Any:
    """A function of libllama; None where this build does not have it."""
    names = (name, f"_Z{len(name)}{name}P13llama_context{arguments}", f"?{name}@@YA{microsoft}@Z")
    for each in names:
        with suppress(AttributeError):
            function = C._lib[each]  # pyright: ignore[reportPrivateUsage]
            function.restype, function.argtypes = result, [_CONTEXT, *types]
            return function
    return None


_FUNCTIONS: dict[str, Any] = {
    "llama_set_embeddings_nextn": _found(
        "llama_set_embeddings_nextn", "bb", "XPEAUllama_context@@_N1", None,
        ctypes.c_bool, ctypes.c_bool,
    ),
    "llama_get_embeddings_nextn": _found(
        "llama_get_embeddings_nextn", "", "PEAMPEAUllama_context@@", ctypes.c_void_p
    ),
    "llama_set_nextn_layer_offset": _found(
        "llama_set_nextn_layer_offset", "i", "XPEAUllama_context@@H", None, ctypes.c_int32
    ),
    "llama_set_embeddings_layer_inp": _found(
        "llama_set_embeddings_layer_inp", "jb", "XPEAUllama_context@@I_N", None,
        ctypes.c_uint32, ctypes.c_bool,
    ),
    "llama_get_embeddings_layer_inp": _found(
        "llama_get_embeddings_layer_inp", "j", "PEAMPEAUllama_context@@I", ctypes.c_void_p,
        ctypes.c_uint32,
    ),
}  # fmt: skip


def unstable(name: str) -> Any:
    """The function. EngineError where this build of the engine does not have it."""
    function = _FUNCTIONS[name]
    if function is None:
        raise EngineError(f"this build of the engine has no {name}, which draft heads need")
    return function


Rows = npt.NDArray[np.float32]

N_AWAKE = 16
"""Passes for which states are kept after a head asked for them: they cost each pass a copy, and a
head that does not pay may stay away for the rest of a reply."""
N_ON = 512
"""Passes after which taps are switched off that nobody asked for: to switch them takes a third of a
pass each time (SmolLM2), to hand them out cannot be measured."""
NEXT_WORTH, TAPS_WORTH = 32, 2048
"""So many tokens that follow are reason enough to do without rows. Taps are part of the graph, so
that switching them makes libllama plan its buffers anew."""


class FeatureRows:
    """Rows of one sequence's positions `first` .. `end` - 1, the newest that it evaluated.

    Those of the last call stay where the engine has them until its next one: a head that reads them
    at once is all that needs them, and then they are never copied.
    """

    def __init__(self, n_parts: int, n_embd: int) -> None:
        self.first = self.end = 0
        self.n_unchanged = 0
        """Tokens that are what they were when this was set."""
        self._start = 0  # the place of row `first`
        self._rows = np.zeros((4 * N_KEPT, n_parts, n_embd), np.float32)
        self._newest: Rows | None = None
        self._first_newest = 0  # the position of the first of them
        self._is_read = False

    def take(self, position: int, n: int, rows: Rows | None) -> None:
        """`n` tokens were evaluated from `position` on, in place of what was there. `rows`: theirs,
        shape (n, parts, numbers of a part), until `settle`; None: they are not known."""
        if self._newest is not None:  # another part of the same call
            self.settle()
        if position < self.n_unchanged:
            self.n_unchanged = position
        end = position + n
        if rows is None or not self.first <= position <= self.end:
            self.first = end if rows is None else position
        surplus = end - N_KEPT - self.first
        if surplus > 0:
            self.first, self._start = self.first + surplus, self._start + surplus
        self.end, self._newest, self._first_newest, self._is_read = end, rows, position, False

    def settle(self) -> None:
        """The engine's next call will overwrite the newest rows: keep them, unless they were read,
        and no others then."""
        rows, self._newest = self._newest, None
        if rows is None:
            return
        if self._is_read:
            self.first = self.end
            return
        start = max(self.first, self._first_newest)
        self._make_room(start - self.first, self.end - start)
        place = self._start + start - self.first
        self._rows[place : place + self.end - start] = rows[start - self._first_newest :]

    def _make_room(self, held: int, n: int) -> None:
        """For `n` more rows behind those that are `held`, which move to the front, seldom."""
        if held == 0:
            self._start = 0
        elif self._start + held + n > len(self._rows):
            self._rows[:held] = self._rows[self._start : self._start + held].copy()
            self._start = 0

    def forget(self) -> None:
        """Nothing is known of what the sequence holds."""
        self.first = self.end = self.n_unchanged = self._start = 0
        self._newest = None

    def of(self, start: int, end: int) -> Rows:
        """Rows of positions `start` .. `end` - 1, shape (rows, parts, numbers of a part), a view;
        all of them must be kept."""
        assert self.first <= start <= end <= self.end
        if self._newest is not None and start >= self._first_newest:
            self._is_read = True
            return self._newest[start - self._first_newest : end - self._first_newest]
        self._is_read = False
        self.settle()
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
        self._n_awake, self._n_on = N_AWAKE, N_ON if layers else N_AWAKE
        self._sequences: dict[int, FeatureRows] = {}
        what = "layer_inp" if self.layers else "nextn"
        self._switch = unstable(f"llama_set_embeddings_{what}")
        self._address = unstable(f"llama_get_embeddings_{what}")
        self._n_embd = n_embd
        self._taps = sorted({*self.layers})
        self._where = (context, *self._taps[:1])
        is_in_order = self._taps == [*self.layers]
        self._order = None if is_in_order else [self._taps.index(each) for each in self.layers]
        self._unsettled: list[FeatureRows] = []
        self._given: dict[int, Rows] = {}

    def of(self, sequence: int) -> FeatureRows:
        """The rows of a sequence."""
        rows = self._sequences.get(sequence)
        if rows is None:
            rows = self._sequences[sequence] = FeatureRows(len(self.layers) or 1, self._n_embd)
        return rows

    def forget(self, sequence: int) -> None:
        """The sequence now holds what no pass has evaluated."""
        self._sequences.pop(sequence, None)

    def ask(self) -> None:
        """A head wants states, now and for some passes."""
        self._n_awake, self._n_on = N_AWAKE, N_ON if self.layers else N_AWAKE

    def prepare(self, n_following: int) -> None:
        """Before a call that is followed by that many rows of the same decode."""
        for rows in self._unsettled:
            rows.settle()
        self._unsettled.clear()
        self._n_awake -= n_following == 0
        if self._n_awake == -1:
            for rows in self._sequences.values():
                rows.forget()
        self._n_on -= n_following == 0
        is_near = n_following < (TAPS_WORTH if self.layers else NEXT_WORTH)
        is_wanted = is_near and self._n_on >= 0
        if is_wanted != self._is_on:
            self.switch(on=is_wanted)

    def switch(self, *, on: bool) -> None:
        """From the next call on."""
        self._is_on = on
        self._given.clear()
        if not self.layers:
            self._switch(self._context, on, False)
        for layer in self.layers:
            self._switch(self._context, layer, on)

    def take(self, parts: Sequence[tuple[int, int, int]]) -> None:
        """After a call: (sequence, position, rows) of its parts, in the order of the batch."""
        if self._n_awake < 0:
            return
        start, end = 0, sum([n for _, _, n in parts])
        given = self._rows_given(end) if self._is_on else None
        for sequence, position, n in parts:
            rows, own = self.of(sequence), None
            if given is not None:
                own = given[start : start + n]
                own = own if self._order is None else own[:, self._order]
            rows.take(position, n, own)
            self._unsettled.append(rows)
            start += n

    def _rows_given(self, n: int) -> Rows:
        """What the engine gave in its last call, at least `n` rows, shape (n, layers, n_embd).

        All taps lie in one buffer and move together (output_reserve in llama-context.cpp), so the
        place of the first one says where the others are.
        """
        first = self._address(*self._where)
        given = self._given.get(first)
        if given is None or n > len(given):
            others = [self._address(self._context, layer) for layer in self._taps[1:]]
            given = _side_by_side([first, *others], n, self._n_embd)
            self._given[first] = given
        return given


def _side_by_side(addresses: Sequence[int | None], n: int, width: int) -> Rows:
    """`n` rows of `width` at each of these ascending addresses, as an array of shape
    (n, addresses, width). EngineError where they do not lie at equal distances."""
    first, *others = [address or 0 for address in addresses]
    step = others[0] - first if others else 0
    if not first or any(each != first + i * step for i, each in enumerate(others, 1)):
        raise EngineError("the engine gave no hidden states where they were looked for")
    buffer: Any = (ctypes.c_char * (step * len(others) + 4 * n * width)).from_address(first)
    return np.ndarray((n, len(addresses), width), np.float32, buffer, 0, (4 * width, step, 4))


class EngineRows:
    """Floats of the engine as an array, shape (n, `width`), which its next call overwrites.

    Where they lie seldom changes. A decode leaves nothing of Python in the processor's caches, so
    making an array each time would take longer than what is done with it.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._address: int | None = None
        self._rows = np.empty((0, width), np.float32)

    def at(self, address: int | None, n: int) -> Rows:
        """The first `n` rows there, a view. EngineError: the engine gives none."""
        if address != self._address or n > len(self._rows):
            if address is None:
                raise EngineError("the engine gave no hidden states")
            buffer: Any = (ctypes.c_float * (n * self._width)).from_address(address)
            self._rows = np.frombuffer(buffer, np.float32).reshape(n, self._width)
            self._address = address
        return self._rows[:n]
