"""How fast threads can read memory and do nothing else: the ceiling of decoding on a processor."""

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np

SIZE_BYTES = 512 << 20
REPEATS = 5


def memory_read_bytes_per_s(n_threads: int) -> float:
    """The best of several reads of 512 MB by `n_threads`; NumPy lets go of the interpreter."""
    parts = np.array_split(np.empty(SIZE_BYTES // 8), n_threads)
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(_fill, parts))
        return max(SIZE_BYTES / _seconds(pool, parts) for _ in range(REPEATS))


def _fill(part: np.ndarray) -> None:
    """By the thread that reads it, so that the memory is near to it."""
    part.fill(1.0)


def _seconds(pool: ThreadPoolExecutor, parts: list[np.ndarray]) -> float:
    started = perf_counter()
    list(pool.map(np.max, parts))
    return perf_counter() - started
