"""A child process with an engine, the pipe to it, and the memory that both share.

Requests and answers are pickled values of some hundred bytes. Logits are not: the child writes them
into memory that has no name and that both have mapped, behind a flag by which a pass is asked to
stop. A file of a disk would do the same, and wait for its disk now and then.

Whoever has answered looks for the next message for a moment before it sleeps, because waking takes
longer than the work between two passes.
"""

import mmap
import os
import pickle
import select
import socket
import subprocess
import tempfile
from collections.abc import Callable
from struct import Struct
from time import perf_counter
from typing import IO, Any, NamedTuple

import numpy as np

from localspec.engine.base import EngineConfig
from localspec.engine.child import PYTHON_M
from localspec.engine.interrupt import Interrupted
from localspec.errors import EngineError, ModelError, UserError
from localspec.notify import Progress

CHILD = "localspec.engine.llama.served"
FLAG_BYTES = mmap.PAGESIZE
"""Before the logits."""
POLL_S, GRACE_S = 0.05, 1.0
SPIN_S = 3e-4
"""How long the child looks for the next request before it sleeps: as long as choosing a token."""
_SIZE, _READ_BYTES = Struct("<Q"), 1 << 16
ERRORS = {kind.__name__: kind for kind in (EngineError, ModelError, UserError)}
"""By the names under which they cross the pipe."""


class PipeAnswer(NamedTuple):
    """What the other side says: a value or the name of an error with its sentence; how many tokens
    each context holds, where that may have changed; and its seconds inside the engine."""

    value: Any
    error: str
    held: list[int] | None
    busy_s: float


class Pipe:
    """One end of it: values, each behind its size."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._come = b""
        self._poll = select.poll()
        self._poll.register(end, select.POLLIN)

    def send(self, value: Any) -> None:
        """Raises OSError where the other side has ended."""
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._end.sendall(_SIZE.pack(len(data)) + data)

    def is_ready(self, wait_s: float) -> bool:
        """Whether something has come within that time."""
        return bool(self._come or self._poll.poll(1e3 * wait_s))

    def recv(self, spin_s: float = 0.0) -> Any:
        """The next value, looked for without sleep at first. Raises EOFError or OSError where the
        other side has ended."""
        until_s = perf_counter() + spin_s
        while spin_s and not self.is_ready(0) and perf_counter() < until_s:
            pass
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

    def _message_end(self) -> int:
        """Of the next message in what has come, or of its size."""
        is_known = len(self._come) >= _SIZE.size
        return _SIZE.size + (_SIZE.unpack_from(self._come)[0] if is_known else 0)


class Child:
    """The process, its pipe and the memory that both share."""

    def __init__(self, config: EngineConfig, n_vocab: int) -> None:
        n_bytes = FLAG_BYTES + 4 * config.n_outputs * n_vocab
        mine, theirs = socket.socketpair()
        with _unnamed_memory() as file:
            file.truncate(n_bytes)
            self._memory = mmap.mmap(file.fileno(), n_bytes)
            self._pipe = Pipe(mine)
            self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
            fds = (theirs.fileno(), file.fileno())
            self._process = subprocess.Popen(
                [*PYTHON_M, CHILD, *map(str, fds), str(n_vocab)],
                pass_fds=fds, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=self._errors, start_new_session=True,
                env={**os.environ, "GGML_NO_BACKTRACE": "1"},
            )  # fmt: skip
            theirs.close()
        shape = config.n_outputs, n_vocab
        self.rows = np.frombuffer(self._memory, np.float32, shape[0] * shape[1], FLAG_BYTES)
        self.rows = self.rows.reshape(shape)
        self._pipe.send(config)

    def answer(self, request: Any, is_stopped: Callable[[], bool]) -> PipeAnswer:
        """Send a request and wait. Raises EOFError or OSError where the process has ended."""
        self._memory[0] = is_stopped()
        self._pipe.send(request)
        return self._received(is_stopped)

    def loaded(
        self, on_progress: Progress, is_stopped: Callable[[], bool]
    ) -> tuple[int | None, int]:
        """Wait for the model. Raises as `EngineProcess.ask`."""
        while isinstance(found := self._received(is_stopped), float):
            on_progress(found)
        if found.error == Interrupted.__name__:
            raise Interrupted
        if found.error:
            raise ERRORS.get(found.error, EngineError)(found.value)
        return found.value

    def _received(self, is_stopped: Callable[[], bool]) -> Any:
        while not self._pipe.is_ready(POLL_S):
            self._memory[0] = is_stopped()
        return self._pipe.recv()

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


def _unnamed_memory() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("localspec"), "r+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
