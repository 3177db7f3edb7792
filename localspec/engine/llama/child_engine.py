"""The child process of `engine.process`: an engine that answers requests from a pipe.

    python -m localspec.engine.llama.child_engine N_VOCAB PIPE MEMORY HEARD HEARD RUNG RUNG

All but the first are inherited file descriptors. It ends with the pipe.

`SharedOutput` is the engine's buffer of logits, seen by another process. libllama copies logits
into a buffer that it allocates. Copying them once more into shared memory takes 60 to 80 us for a
vocabulary of 49,152, because a pass has thrown that memory out of the caches. So the whole pages of
the buffer are exchanged for those of the shared memory, where its owner writes from then on. What
lies in pages that the buffer has in common with others is copied.

libllama frees the buffer when a decode wants more rows than any before, so its pages are its own
again before that. Only Linux exchanges pages, and no memory that a device's driver knows of.
"""

import ctypes
import mmap
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from localspec.engine.base import EngineConfig
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.llama.binding import output_address
from localspec.engine.llama.devices import reported
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.logits import BufferLogits
from localspec.engine.pipe import SPIN_S, Bell, Pipe, PipeAnswer
from localspec.engine.shared import PAGE, ROWS_AT, Asked, Backs, Shared
from localspec.errors import LocalspecError

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


_FEW_ROWS = 64
"""More are a prompt, which the engine may read in pieces."""


class _SharedInterrupt(Interrupt):
    """The wish of the other side, in shared memory."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        super().__init__()

    @property
    def requested(self) -> bool:
        return self._shared.is_stopped

    @requested.setter
    def requested(self, wanted: bool) -> None:
        self._shared.is_stopped = wanted


class _RingingEngine(LlamaEngine):
    """Tells that a pass has ended at once, while its own bookkeeping goes on."""

    tell: Callable[[], None]
    n_awaited = 0
    """Rows of the pass that is to be told of; 0: none."""

    @property
    def most_rows(self) -> int:
        """That are surely evaluated in one pass."""
        return min(_FEW_ROWS, self._batch.capacity)

    def _decode_batch(self) -> int:
        code = super()._decode_batch()
        if self.n_awaited and code == 0 and self._batch.n_rows == self.n_awaited:
            self.n_awaited = 0
            self.tell()
        return code


class Served:
    """An engine, its contexts, and the verbs of the pipe."""

    def __init__(self, engine: _RingingEngine, pipe: Pipe, shared: Shared, fd: int) -> None:
        self.engine, self._pipe, self._shared = engine, pipe, shared
        self.contexts = [engine.context() for _ in range(engine.config.settings.n_sequences)]
        self._output = SharedOutput(shared, fd, may_exchange=not _has_host_buffers())
        self._n_rows = 0
        """With logits, of the decode that is under way."""
        engine.tell = self._tell
        self._verbs: dict[str, Callable[..., Any]] = {
            "decode": self._decode,
            "set_threads": engine.set_threads,
            "context": self._context,
        }

    def serve(self) -> None:
        """Answer until the pipe ends, which raises EOFError or OSError."""
        while True:
            self._pipe.look(SPIN_S)
            request = self._pipe.recv()
            if request is None:
                backs, asked = self._shared.read()
                answer = self._answer(backs, self._decode, asked, True)
            else:
                backs, verb, *arguments = request
                answer = self._answer(backs, self._verbs[verb], *arguments)
            if answer is not None:
                self._shared.busy_s = self.engine.busy_s
                self._pipe.send(answer)

    def _answer(self, backs: Backs, verb: Callable[..., Any], *arguments: Any) -> PipeAnswer | None:
        """Do what was put off, and what is asked for; None: the other side knows."""
        try:
            for place, n in backs:
                self.contexts[place].go_back(n)
            value = verb(*arguments)
            if value is self:
                return None
            return value if isinstance(value, PipeAnswer) else PipeAnswer(value)
        except (LocalspecError, Interrupted) as error:
            held = [len(context.tokens) for context in self.contexts]
            return PipeAnswer(str(error), type(error).__name__, held)

    def _decode(self, asked: Asked, is_rung: bool = False) -> Any:
        """Why each request was refused; this object itself where the rows were told of."""
        engine, n_rows = self.engine, sum([n for _, _, n in asked])
        self._output.make_room(n_rows)
        self._n_rows = n_rows
        if is_rung and n_rows:
            n_tokens = sum([len(tokens) for _, tokens, _ in asked])
            engine.n_awaited = n_tokens if n_tokens <= engine.most_rows else 0
            is_rung = engine.n_awaited > 0
        results = engine.decode([(self.contexts[i], tokens, n) for i, tokens, n in asked])
        if is_rung and n_rows and not engine.n_awaited:
            return self
        engine.n_awaited = 0
        both = zip(results, asked, strict=True)
        self._output.copy([r.rows(n) for r, (_, _, n) in both if isinstance(r, BufferLogits)])
        refusals = [None if isinstance(each, BufferLogits) else str(each) for each in results]
        return PipeAnswer(refusals, held=[len(context.tokens) for context in self.contexts])

    def _tell(self) -> None:
        self._output.show(output_address(self.engine.handle), self._n_rows)
        self._shared.busy_s = self.engine.busy_s
        self._pipe.ring()

    def _context(self, place: int, verb: str, *arguments: Any) -> Any:
        context = self.contexts[place]
        if verb == "state_bytes":
            return context.state_bytes
        if verb == "restore":
            return list(context.tokens) if context.restore(*arguments) else []
        found = getattr(context, verb)(*arguments)
        return len(context.tokens) if verb == "go_back" else found


def _has_host_buffers() -> bool:
    """Whether a device is here that may want logits in memory of its driver."""
    return any(device.kind in ("gpu", "igpu") and device.backend != "rpc" for device in reported())


def main() -> int:
    n_vocab, pipe_fd, memory_fd, *bells = map(int, sys.argv[1:])
    heard, rung = Bell((bells[0], bells[1])), Bell((bells[2], bells[3]))
    shared = Shared(memory_fd, n_vocab)
    pipe = Pipe(socket.socket(fileno=pipe_fd), heard, rung, shared.marks[::-1])
    with suppress(EOFError, OSError):
        config = pipe.recv()
        if engine := _load(config, pipe, shared):
            served = Served(engine, pipe, shared, memory_fd)
            pipe.send(PipeAnswer((engine.rollback_limit, engine.n_window)))
            served.serve()
    return 0


def _load(config: EngineConfig, pipe: Pipe, shared: Shared) -> _RingingEngine | None:
    """The engine; None where it does not load, which the other side is told."""
    try:
        engine = _RingingEngine(config, _SharedInterrupt(shared), pipe.send)
    except (LocalspecError, Interrupted) as error:
        pipe.send(PipeAnswer(str(error), type(error).__name__))
        return None
    shared.busy_s = engine.busy_s
    return engine


if __name__ == "__main__":
    sys.exit(main())
