"""Memory that an engine's child process shares with its parent, and small decodes written into it.

    | stop | busy_s | ..page.. | words of a decode ..page.. | rows of logits |

A pass over SmolLM2 throws everything out of the processor's caches. What runs between two passes
then pays for each line of code and data that it touches, so a decode of some tokens goes through
this memory as plain numbers: pickling them would take longer than all the rest.

    words: how many, n backs, (place, n)..., n requests, (place, n tokens, n logits)..., tokens...
"""

import mmap
import os
import tempfile
from array import array
from collections.abc import Sequence
from itertools import chain
from typing import IO

import numpy as np

PAGE = mmap.PAGESIZE
MOST_WORDS = PAGE // 4 - 1

Backs = Sequence[tuple[int, int]]
"""Rollbacks: a context's place, and how many tokens stay."""
Asked = Sequence[tuple[int, Sequence[int], int]]
"""Requests: a context's place, tokens, and how many rows of logits are wanted."""


class Shared:
    """The memory, mapped from a file descriptor; `rows` has shape (n_outputs, n_vocab)."""

    def __init__(self, fd: int, n_vocab: int) -> None:
        size = os.fstat(fd).st_size
        self._memory = mmap.mmap(fd, size)
        self._busy_s = memoryview(self._memory)[8:16].cast("d")
        self._words = memoryview(self._memory)[PAGE : 2 * PAGE].cast("i")
        rows = np.frombuffer(self._memory, np.float32, offset=2 * PAGE)
        self.rows = rows.reshape(-1, n_vocab)

    @property
    def is_stopped(self) -> bool:
        """Whether the pass is asked to end."""
        return self._memory[0] != 0

    @is_stopped.setter
    def is_stopped(self, wanted: bool) -> None:
        self._memory[0] = wanted

    @property
    def busy_s(self) -> float:
        """The child's seconds inside the engine."""
        return self._busy_s[0]

    @busy_s.setter
    def busy_s(self, seconds: float) -> None:
        self._busy_s[0] = seconds

    def write(self, backs: Backs, asked: Asked) -> bool:
        """Write a decode; False where it is too long for this."""
        n_tokens = sum([len(tokens) for _, tokens, _ in asked])
        n_words = 2 + 2 * len(backs) + 3 * len(asked) + n_tokens
        if n_words > MOST_WORDS:
            return False
        words = [n_words, len(backs), *chain(*backs), len(asked)]
        for place, tokens, n_logits in asked:
            words += place, len(tokens), n_logits
        for _, tokens, _ in asked:
            words += tokens
        self._words[: n_words + 1] = array("i", words)
        return True

    def read(self) -> tuple[list[tuple[int, int]], list[tuple[int, list[int], int]]]:
        """What `write` wrote."""
        words = self._words[1 : 1 + self._words[0]].tolist()
        first = 1 + 2 * words[0]
        backs = list(zip(words[1:first:2], words[2:first:2], strict=True))
        start = first + 1 + 3 * words[first]
        asked: list[tuple[int, list[int], int]] = []
        for i in range(first + 1, start, 3):
            end = start + words[i + 1]
            asked.append((words[i], words[start:end], words[i + 2]))
            start = end
        return backs, asked


def unnamed_memory(n_outputs: int, n_vocab: int) -> IO[bytes]:
    """A file of that size for `Shared`. It is on no disk where the system can do that: a disk would
    be waited for now and then."""
    file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the caller closes it
    if hasattr(os, "memfd_create"):
        file.close()
        file = open(os.memfd_create("localspec"), "r+b", buffering=0)  # noqa: SIM115, PTH123
    file.truncate(2 * PAGE + 4 * n_outputs * n_vocab)
    return file
