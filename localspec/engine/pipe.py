"""A child process with an engine, and the pipe to it.

A message is a pickled value behind its size. A decode and its result lie in the memory that both
share instead: a bell says so. The child rings twice, when the engine is done, which wakes the other
side, and when it has copied the logits.

The child looks for the next message for a moment before it sleeps, because waking takes longer than
the work between two passes.
"""

import os
import pickle
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from struct import Struct
from time import perf_counter
from typing import Any, NamedTuple

from localspec.engine.base import EngineConfig
from localspec.engine.child import PYTHON_M
from localspec.engine.interrupt import Interrupted
from localspec.engine.shared import Asked, Backs, Shared, unnamed_memory
from localspec.errors import EngineError, ModelError, UserError
from localspec.notify import Progress

CHILD = "localspec.engine.llama.served"
POLL_S, GRACE_S = 0.05, 1.0
SPIN_S = 3e-4
"""How long a message is looked for without sleep: as long as choosing a token takes."""
_SIZE, _READ_BYTES = Struct("<Q"), 1 << 16
ERRORS = {kind.__name__: kind for kind in (EngineError, ModelError, UserError)}
"""By the names under which they cross the pipe."""


class PipeAnswer(NamedTuple):
    """What the other side says: a value or the name of an error with its sentence; and how many
    tokens each context holds, where that may have changed."""

    value: Any
    error: str = ""
    held: list[int] | None = None


class Bell:
    """Rings that a process hears, each once. On Linux an eventfd, which is the lightest."""

    def __init__(self, fds: tuple[int, int] | None = None) -> None:
        self.fds = fds or _new_bell()
        """To hear and to ring."""

    def ring(self) -> None:
        os.write(self.fds[1], _RING)

    def hear(self) -> None:
        """Wait for the next ring."""
        os.read(self.fds[0], len(_RING))

    def close(self) -> None:
        for fd in {*self.fds}:
            os.close(fd)


_RING = (1).to_bytes(8, sys.byteorder)


def _new_bell() -> tuple[int, int]:
    if hasattr(os, "eventfd"):
        fd = os.eventfd(0, os.EFD_SEMAPHORE)
        return fd, fd
    return os.pipe()


class Pipe:
    """One end of it, with the bell that this side hears and the one that it rings."""

    def __init__(self, end: socket.socket, heard: Bell, rung: Bell) -> None:
        self._end, self._heard, self._rung = end, heard, rung
        self.ring = rung.ring
        self._come = b""
        self._found: list[tuple[int, int]] = []
        """What was ready when it was last asked."""
        self._bell_fd = heard.fds[0]
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)
        self._poll.register(self._bell_fd, select.POLLIN)

    def send(self, value: Any) -> None:
        """A value other than None. Raises OSError where the other side has ended."""
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._end.sendall(_SIZE.pack(len(data)) + data)

    def is_ready(self, wait_s: float) -> bool:
        """Whether something has come within that time."""
        if not self._come and not self._found:
            self._found = self._poll.poll(1e3 * wait_s)
        return bool(self._come or self._found)

    def look(self, seconds: float) -> None:
        """Wait for something without sleep, at most that long."""
        until_s = perf_counter() + seconds
        while not self.is_ready(0) and perf_counter() < until_s:
            os.sched_yield()

    def recv(self) -> Any:
        """The next value, None for a ring. Raises EOFError or OSError where the other side has
        ended."""
        while not self.is_ready(POLL_S):
            pass
        found, self._found = self._found, []
        if found and found[0][0] == self._bell_fd:
            self._heard.hear()
            return None
        while len(self._come) < (end := self._message_end()):
            more = self._end.recv(_READ_BYTES)
            if not more:
                raise EOFError
            self._come += more
        data, self._come = self._come[_SIZE.size : end], self._come[end:]
        return pickle.loads(data)

    def close(self) -> None:
        """Nothing is sent or received from now on."""
        self._end.close()
        self._heard.close()
        self._rung.close()

    def _message_end(self) -> int:
        """Of the next message in what has come, or of its size."""
        is_known = len(self._come) >= _SIZE.size
        return _SIZE.size + (_SIZE.unpack_from(self._come)[0] if is_known else 0)


class Child:
    """The process, its pipe and the memory that both share. `is_stopped` is asked while it waits
    for the other side."""

    def __init__(self, config: EngineConfig, n_vocab: int, is_stopped: Callable[[], bool]) -> None:
        self._is_stopped = is_stopped
        mine, theirs = socket.socketpair()
        with unnamed_memory(config.n_outputs, n_vocab) as file:
            self.shared = Shared(file.fileno(), n_vocab)
            bells = Bell(), Bell()
            self._pipe = Pipe(mine, *bells)
            self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
            fds = (theirs.fileno(), file.fileno(), *bells[1].fds, *bells[0].fds)
            self._process = subprocess.Popen(
                [*PYTHON_M, CHILD, str(n_vocab), *map(str, fds)],
                pass_fds={*fds}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=self._errors, start_new_session=True,
                env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            )  # fmt: skip
            theirs.close()
        self._pipe.send(config)

    def answer(self, request: Any) -> PipeAnswer:
        """Send a request and wait. Raises EOFError or OSError where the process has ended."""
        self.shared.is_stopped = self._is_stopped()
        self._pipe.send(request)
        return self._received()

    def decode(self, backs: Backs, asked: Asked) -> PipeAnswer | None:
        """The same of a decode. None: every request was taken, and the rows are there."""
        if not self.shared.write(backs, asked):
            return self.answer((backs, "decode", asked))
        self.shared.is_stopped = self._is_stopped()
        self._pipe.ring()
        return self._received()

    def loaded(self, on_progress: Progress) -> tuple[int | None, int]:
        """Wait for the model. Raises as `EngineProcess.ask`."""
        while isinstance(found := self._received(), float):
            on_progress(found)
        if found.error == Interrupted.__name__:
            raise Interrupted
        if found.error:
            raise ERRORS.get(found.error, EngineError)(found.value)
        return found.value

    def _received(self) -> Any:
        while not self._pipe.is_ready(POLL_S):
            self.shared.is_stopped = self._is_stopped()
        found = self._pipe.recv()
        return self._pipe.recv() if found is None else found

    def reason(self) -> str:
        """End it; why it ended before, in its own last words."""
        self._end()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        self._errors.close()
        return lines[-1].removeprefix("localspec: ") if lines else "it gave no reason"

    def close(self) -> None:
        """End it."""
        self._end()
        self._errors.close()

    def _end(self) -> None:
        self._pipe.close()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
