"""How far a cache can go back, and the checkpoints that take it further.

libllama's memories are of three kinds, and some models mix them:

- Attention keeps cells of every token, and forgets any end of them at no cost.
- A window keeps the cells of its newest tokens and of a micro-batch. Taking back what lies behind
  them "succeeds", and the cache then has a hole.
- A state (recurrent and hybrid models) is one for all tokens. With `n_rs_seq` it also keeps those
  behind the last rows of its sequence's last decode. With m rows in it, b tokens can be taken back
  if b < m, b <= n_rs_seq and none were since. Beyond that `llama_memory_seq_rm` answers True and
  leaves a wrong state (llama.cpp issue 26695), so it is never asked to.

A checkpoint is a copy of what attention alone would not keep: the state, or the window's cells. Its
size does not grow with the context. `replay.py` tries out on each model what is claimed here.
"""

import ctypes
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from localspec.engine.llama.binding import C, Handle
from localspec.hardware.detect import available_memory_bytes

PARTIAL, WHOLE = 1, 0
"""Flags of llama_state_seq_get_data_ext: without attention's cells, or with them."""
MOST, MOST_BYTES, SHARE_OF_FREE = 3, 1 << 30, 4
"""Checkpoints of one sequence at a time, their bytes together, and a share of free memory."""
WORTH_A_PASS = 256
"""Tokens to be read before a window's checkpoint. It ends a pass early, and 3 % of this many is
what one more pass takes; of fewer, the place where reading begins will do."""


class LlamaMemory:
    """The cache of one libllama context, for all its sequences."""

    def __init__(self, context: Handle, model: Handle) -> None:
        self.context = context
        self.n_window: int = C.llama_model_n_swa(model)
        self.n_snapshots: int = C.llama_n_rs_seq(context)
        self.keeps_state: bool = (
            self.n_snapshots > 0
            or C.llama_model_is_recurrent(model)
            or C.llama_model_is_hybrid(model)
        )
        self.flags: int | None = PARTIAL
        """How checkpoints are copied; None: they cannot be."""
        self.n_flushes = 0
        """Calls of the engine so far, where a state is kept."""
        self._memory = C.llama_get_memory(context)

    @property
    def is_limited(self) -> bool:
        """Whether it cannot go back to every place by itself."""
        return self.keeps_state or self.n_window > 0

    def forget(self, sequence: int, start: int) -> bool:
        """Drop a sequence's cells from position `start` on; False where the memory refuses."""
        return C.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def share(self, source: int, target: int, n: int) -> None:
        """Make the cells of the first `n` positions of `source` those of `target`, too."""
        C.llama_memory_seq_cp(self._memory, source, target, 0, n)

    def length(self, sequence: int) -> int:
        """How many positions of the sequence have been evaluated."""
        return C.llama_memory_seq_pos_max(self._memory, sequence) + 1

    def first(self, sequence: int) -> int:
        """The first position whose cells are there in every layer."""
        return C.llama_memory_seq_pos_min(self._memory, sequence)

    def read(self, sequence: int, flags: int) -> npt.NDArray[np.uint8] | None:
        """A copy of a sequence's part; None where it is too large, or the engine fails."""
        size = C.llama_state_seq_get_size_ext(self.context, sequence, flags)
        if size == 0 or size > min(MOST_BYTES, available_memory_bytes() // SHARE_OF_FREE):
            return None
        data = np.empty(size, np.uint8)
        n = C.llama_state_seq_get_data_ext(self.context, _pointer(data), size, sequence, flags)
        return data if n == size else None

    def write(self, sequence: int, data: npt.NDArray[np.uint8], flags: int) -> bool:
        """Put a copy back; False where the engine fails."""
        n = C.llama_state_seq_set_data_ext(self.context, _pointer(data), data.size, sequence, flags)
        return n == data.size


def _pointer(data: npt.NDArray[np.uint8]) -> Any:
    return ctypes.cast(data.ctypes.data, ctypes.POINTER(ctypes.c_uint8))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The memory behind `n_tokens`; if it `is_whole`, it holds all of fewer tokens, too."""

    n_tokens: int
    data: npt.NDArray[np.uint8]
    is_whole: bool

    def reach(self, n: int) -> int:
        """To how many of the first `n` tokens it leads back; 0 where it does not."""
        return self.n_tokens if self.n_tokens <= n else n if self.is_whole else 0


class SequenceMemory:
    """One sequence's part of a cache. It counts tokens and does not know them."""

    def __init__(self, memory: LlamaMemory, sequence: int) -> None:
        self.memory = memory
        self.sequence = sequence
        self.checkpoints: list[Checkpoint] = []
        """Oldest first, each behind more tokens than the one before."""
        self._flush, self._start = -1, 0  # the last call of the engine, and what was held before

    def begin(self, n_held: int) -> None:
        """Rows are about to be added behind `n_held`, where a state is kept."""
        if self._flush != self.memory.n_flushes:
            self._flush, self._start = self.memory.n_flushes, n_held

    def clear(self) -> None:
        """Forget everything, which every kind of memory can."""
        self.memory.forget(self.sequence, -1)
        self.checkpoints, self._start = [], 0

    def go_back(self, n: int, n_held: int) -> int:
        """Keep `n` of `n_held` tokens, or as many of them as a checkpoint has; how many."""
        if n == 0:
            self.clear()
            return 0
        if not (self._can_roll_back(n, n_held) and self.memory.forget(self.sequence, n)):
            n = self.resume(n)
        self._settle(n)
        return n

    def resume(self, n: int) -> int:
        """Go back to the best checkpoint for the first `n` tokens, or to none; what it holds."""
        while self.checkpoints:
            best = max(self.checkpoints, key=lambda each: each.reach(n))
            n_kept = best.reach(n)
            if n_kept and self._restore(best, n_kept):
                self._settle(n_kept)
                return n_kept
            self.checkpoints.remove(best)
        self.clear()
        return 0

    def place(self, n: int, n_held: int) -> int | None:
        """Where on the way from `n_held` to `n` tokens to take a checkpoint; None: nowhere."""
        memory = self.memory
        if not memory.is_limited or n < n_held or memory.flags is None:
            return None
        if memory.keeps_state:
            return n
        if n > memory.n_window and (n - n_held >= WORTH_A_PASS or not n_held):
            return n
        # A window that is not full yet is copied when it is about to be: `note_window`.
        return n_held if n_held > memory.n_window else None

    def note_window(self, n_held: int, n_more: int) -> None:
        """`n_more` tokens are coming. A window that loses its first cells for them is copied."""
        if 0 < n_held <= self.memory.n_window < n_held + n_more:
            self.checkpoint(n_held)

    def checkpoint(self, n_held: int) -> None:
        """Remember this place, if there is room; the oldest ones make it."""
        memory = self.memory
        known = self.newest is not None and self.newest.n_tokens == n_held
        if not n_held or known or not memory.is_limited or memory.flags is None:
            return
        self._make_room(self.newest.data.size if self.newest else 0)
        data = memory.read(self.sequence, memory.flags)
        if data is None:
            return
        self._make_room(data.size)
        is_whole = not memory.keeps_state and n_held <= memory.n_window
        self.checkpoints.append(Checkpoint(n_held, data, is_whole))

    def _make_room(self, size: int) -> None:
        """For one more of that size: before it is copied, that of the newest is a good guess."""
        full = self.n_bytes + size > MOST_BYTES
        while self.checkpoints and (full or len(self.checkpoints) >= MOST):
            del self.checkpoints[0]
            full = self.n_bytes + size > MOST_BYTES

    def take_over(self, checkpoint: Checkpoint | None) -> None:
        """After everything it holds was loaded from elsewhere: with this checkpoint of it."""
        self._start = self.memory.length(self.sequence)
        self.checkpoints = [checkpoint] if checkpoint else []

    def behind(self, n_held: int) -> Checkpoint | None:
        """The newest checkpoint that leads back from `n_held` tokens."""
        leading = (c for c in reversed(self.checkpoints) if c.is_whole or c.n_tokens < n_held)
        return next(leading, None)

    @property
    def newest(self) -> Checkpoint | None:
        """The newest checkpoint."""
        return self.checkpoints[-1] if self.checkpoints else None

    @property
    def n_bytes(self) -> int:
        """What the checkpoints take of this machine's memory."""
        return sum(each.data.size for each in self.checkpoints)

    def _can_roll_back(self, n: int, n_held: int) -> bool:
        memory = self.memory
        if memory.keeps_state:  # a window, too, has the cells of the last decode
            is_last = self._flush + 1 == memory.n_flushes
            return is_last and n > self._start and n_held - n <= memory.n_snapshots
        first = memory.first(self.sequence)
        return first == 0 or first < n - memory.n_window

    def _restore(self, checkpoint: Checkpoint, n: int) -> bool:
        memory, sequence = self.memory, self.sequence
        flags = memory.flags
        return (
            flags is not None
            and memory.write(sequence, checkpoint.data, flags)
            and memory.forget(sequence, n)
            and memory.length(sequence) == n
        )

    def _settle(self, n: int) -> None:
        """After going back to `n`: a state has no rows that could be taken back, and what was
        copied of later tokens is of no use."""
        self._start = n
        kept = [each for each in self.checkpoints if each.reach(n)]
        self.checkpoints = [
            each if each.n_tokens <= n else replace(each, n_tokens=n) for each in kept
        ]
