"""Memory that an engine's child process shares with its parent, and small decodes written into it.

    | stop | busy_s | first row | two marks ..page.. | words of a decode ..page.. | rows of logits |

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
import numpy.typing as npt

PAGE = mmap.PAGESIZE
MOST_WORDS = PAGE // 4 - 1
ROWS_AT = 2 * PAGE
_ONE, _FEW = 6, 16
"""Where the tokens of a request without others are; how many are faster written one by one."""

Backs = Sequence[tuple[int, int]]
"""Rollbacks: a context's place, and how many tokens stay."""
Asked = Sequence[tuple[int, Sequence[int], int]]
"""Requests: a context's place, tokens, and how many rows of logits are wanted."""


class Shared:
    """The memory, mapped from a file descriptor."""

    def __init__(self, fd: int, n_vocab: int) -> None:
        self.memory = mmap.mmap(fd, os.fstat(fd).st_size)
        view = memoryview(self.memory)
        self._busy_s = view[8:16].cast("d")
        self._first_row = view[16:24].cast("q")
        self.marks = view[24:32].cast("q"), view[32:40].cast("q")
        """Of the parent and of the child: how much each has said; see `engine.pipe`."""
        self._words = view[PAGE:ROWS_AT].cast("i")
        self._n_vocab = n_vocab
        self._rows, self._rows_at = self._rows_from(0), 0

    @property
    def rows(self) -> npt.NDArray[np.float32]:
        """Logits, shape (n_outputs, n_vocab)."""
        if self._rows_at != self._first_row[0]:
            self._rows_at = self._first_row[0]
            self._rows = self._rows_from(self._rows_at)
        return self._rows

    def place_rows(self, offset: int) -> None:
        """Let the first row begin that many bytes after a page does."""
        self._first_row[0] = offset

    @property
    def is_stopped(self) -> bool:
        """Whether the pass is asked to end."""
        return self.memory[0] != 0

    @is_stopped.setter
    def is_stopped(self, wanted: bool) -> None:
        self.memory[0] = wanted

    @property
    def busy_s(self) -> float:
        """The child's seconds inside the engine."""
        return self._busy_s[0]

    @busy_s.setter
    def busy_s(self, seconds: float) -> None:
        self._busy_s[0] = seconds

    @property
    def n_words(self) -> int:
        """Of the decode that was written last."""
        return self._words[0]

    def write(self, backs: Backs, asked: Asked) -> bool:
        """Write a decode; False where it is too long for this."""
        if len(asked) == 1 and not backs and len(asked[0][1]) <= _FEW:
            self._write_one(*asked[0])
            return True
        words = [0, len(backs), *chain(*backs), len(asked)]
        for place, tokens, n_logits in asked:
            words += place, len(tokens), n_logits
        for _, tokens, _ in asked:
            words += tokens
        words[0] = n_words = len(words) - 1
        if n_words > MOST_WORDS:
            return False
        self._words[: n_words + 1] = array("i", words)
        return True

    def _write_one(self, place: int, tokens: Sequence[int], n_logits: int) -> None:
        words, n = self._words, len(tokens)
        words[0], words[1], words[2] = _ONE + n - 1, 0, 1
        words[3], words[4], words[5] = place, n, n_logits
        for i, token in enumerate(tokens, _ONE):
            words[i] = token

    def read(self) -> tuple[Backs, Asked]:
        """What `write` wrote."""
        if self._words[1] == 0 and self._words[2] == 1:
            place, n, n_logits = self._words[3], self._words[4], self._words[5]
            return (), [(place, self._words[_ONE : _ONE + n].tolist(), n_logits)]
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

    def _rows_from(self, offset: int) -> npt.NDArray[np.float32]:
        """A page is left over for what `place_rows` skips."""
        n_bytes = len(self.memory) - ROWS_AT - PAGE
        rows = np.frombuffer(self.memory, np.float32, n_bytes // 4, ROWS_AT + offset)
        return rows.reshape(-1, self._n_vocab)


def unnamed_memory(n_outputs: int, n_vocab: int) -> IO[bytes]:
    """A file of that size for `Shared`. It is on no disk where the system can do that: a disk would
    be waited for now and then."""
    file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the caller closes it
    if hasattr(os, "memfd_create"):
        file.close()
        file = open(os.memfd_create("localspec"), "r+b", buffering=0)  # noqa: SIM115, PTH123
    file.truncate(ROWS_AT + PAGE + 4 * n_outputs * n_vocab)
    return file
