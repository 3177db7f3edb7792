"""Large pages for the weights, the cache and the buffers that libllama allocates.

Each pass reads all of the weights and the cache once. With pages of 2 MiB in place of 4 KiB the
processor looks up fewer addresses: passes of SmolLM2 and Gemma are up to 1.15 x as fast, by how the
system has cached their files (docs/measurements/speed.md). Linux gives them to memory that asks
before it is filled, where /sys/kernel/mm/transparent_hugepage/enabled says `madvise`, as most
distributions do; libllama does not ask. Mapped files seldom have them. Elsewhere nothing happens.
"""

import ctypes
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path

from localspec.engine.llama.binding import quietly

LEAST = 4 << 20
"""Bytes of memory that is worth it: what a pass reads is more, what Python allocates is less."""
CLEARED_BYTES = 128 << 20
"""Of a cache from which on it is cleared in small pages."""
_MAPS = Path("/proc/self/maps")
_LARGE, _FILL = 14, 23
"""MADV_HUGEPAGE and MADV_POPULATE_WRITE of Linux's mman.h."""
_STEP = 8 << 20
"""Bytes to fill at once: other threads, which import meanwhile, get no memory until it is done."""
_ALLOCATED, _FILLED = b"KV buffer size", b"sched_reserve"
"""How libllama's log says that a cache has its memory, and later that all caches are cleared."""


class LargePages:
    """What is allocated from now on gets large pages, once `ask` is called before it is filled."""

    def __init__(self) -> None:
        self._known = frozenset(_mappings())

    def ask(self, most_bytes: float = inf) -> None:
        """For memory that was not there at the beginning. Pieces beyond `most_bytes` get all of
        their small pages at once, in two thirds of the time that they take one by one."""
        for start, end in frozenset(_mappings()) - self._known:
            if end - start <= most_bytes:
                _advise(start, end, _LARGE)
                continue
            for at in range(start, end, _STEP):
                _advise(at, min(at + _STEP, end), _FILL)


def _advise(start: int, end: int, advice: int) -> None:
    """A system that does not know it refuses."""
    if sys.platform == "linux":
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


def _mappings() -> Generator[tuple[int, int]]:
    """The first address and the end of each piece of the program's own memory."""
    if sys.platform != "linux":
        return
    with suppress(OSError):
        for line in _MAPS.read_bytes().splitlines():
            where, rights, _, _, inode, *name = line.split(None, 5)
            start, end = (int(each, 16) for each in where.split(b"-"))
            if end - start >= LEAST and rights == b"rw-p" and inode == b"0" and not name:
                yield start, end


@contextmanager
def large_caches() -> Generator[None]:
    """What a context allocates meanwhile gets large pages.

    libllama clears a cache as soon as it has its memory; the line of its log between both is the
    only moment to ask. Compute buffers are filled by the first pass. A large cache is cleared
    first: on virtual machines whose host takes free pages back, large ones come at a third of a
    second for 280 MB, before the first token. Linux makes those of it large later that are used.
    """
    pages = LargePages()

    def on_line(text: bytes) -> bool:
        if _ALLOCATED in text:
            pages.ask(CLEARED_BYTES)
        return not text.startswith(_FILLED)

    with quietly(on_line):
        yield
    pages.ask()
