"""The engine's buffer of logits, seen by another process.

libllama copies logits into a buffer that it allocates. Copying them once more into shared memory
takes 60 to 80 us for a vocabulary of 49,152, because a pass has thrown that memory out of the
caches. So the whole pages of the buffer are exchanged for those of the shared memory, where its
owner writes from then on. What lies in pages that the buffer has in common with others is copied.

libllama frees the buffer when a decode wants more rows than any before, so its pages are its own
again before that. Only Linux exchanges pages, and no memory that a device's driver knows of.
"""

import ctypes
import mmap
import sys
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from localspec.engine.shared import PAGE, ROWS_AT, Shared

_FIXED = 0x10
"""MAP_FIXED of Linux."""
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE if sys.platform == "linux" else 0


class SharedOutput:
    """Rows of logits of an engine whose buffer lies at an address; `fd` is the shared memory's."""

    def __init__(self, shared: Shared, fd: int, *, may_exchange: bool) -> None:
        self._shared, self._fd = shared, fd
        self._row_bytes = 4 * shared.rows.shape[1]
        self._may_exchange = may_exchange and sys.platform == "linux"
        self._address = self._n_rows = 0
        """Of the buffer, and how many of its rows the exchanged pages hold."""
        self._pages = range(0)
        """Addresses of the exchanged memory."""
        self._parts: list[tuple[memoryview, memoryview]] = []
        """What lies beside those pages: to where, and from where."""
        self._shown = shared.rows.ctypes.data

    def make_room(self, n_rows: int) -> None:
        """Before a decode that wants so many rows."""
        if self._pages and n_rows > self._n_rows:
            self._map(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
            self._pages, self._address, self._parts = range(0), 0, []

    def show(self, address: int, n_rows: int) -> None:
        """Let the other side see the first rows of the buffer."""
        if address != self._address:
            self._exchange(address, n_rows)
        if not self._pages:
            ctypes.memmove(self._shown, address, n_rows * self._row_bytes)
        for target, source in self._parts:
            target[:] = source

    def copy(self, parts: Sequence[npt.NDArray[np.float32]]) -> None:
        """Let it see these rows, one part after another."""
        start = 0
        for rows in parts:
            self._shared.rows[start : start + len(rows)] = rows
            start += len(rows)

    def _exchange(self, address: int, n_rows: int) -> None:
        end = address + n_rows * self._row_bytes
        first, last = -(-address // PAGE) * PAGE, end // PAGE * PAGE
        self._address, self._n_rows = address, n_rows
        if not self._may_exchange or first >= last:
            return
        self._shared.place_rows(address % PAGE)
        self._shown = self._shared.rows.ctypes.data
        ctypes.memmove(self._shown, address, end - address)
        self._pages = range(first, last)
        self._map(mmap.MAP_SHARED, self._fd, ROWS_AT + first - address // PAGE * PAGE)
        ends = (0, first - address), (last - address, end - last)
        self._parts = [
            (_memory(self._shown + start, n_bytes), _memory(address + start, n_bytes))
            for start, n_bytes in ends
            if n_bytes
        ]

    def _map(self, kind: int, fd: int, offset: int) -> None:
        start, length = self._pages.start, len(self._pages)
        found = _map_pages(start, length, _READ_WRITE, kind | _FIXED, fd, offset)
        if found != start:
            raise OSError(ctypes.get_errno(), "the engine's logits cannot be shared")


def _memory(address: int, n_bytes: int) -> memoryview:
    return memoryview((ctypes.c_char * n_bytes).from_address(address)).cast("B")


def _map_pages(*arguments: int) -> int:
    """mmap(2), which Python's own module calls without an address."""
    function = ctypes.CDLL(None, use_errno=True).mmap
    function.restype = ctypes.c_void_p
    size, number = ctypes.c_size_t, ctypes.c_int
    function.argtypes = [ctypes.c_void_p, size, number, number, number, ctypes.c_ssize_t]
    return function(*arguments) or 0
