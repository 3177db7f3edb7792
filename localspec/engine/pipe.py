"""A child process with an engine, the pipe to it, and the memory that both share.

Requests and answers are pickled values. Logits are not: the child writes them into a file that has
no name and that both have mapped, behind a flag by which a pass is asked to stop.
"""

import mmap
import os
import subprocess
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection, Pipe
from typing import Any

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
ERRORS = {kind.__name__: kind for kind in (EngineError, ModelError, UserError)}
"""By the names under which they cross the pipe."""


class PipeAnswer:
    """What the other side says: a value or the name of an error with its sentence; how many tokens
    each context holds, where that may have changed; and its seconds inside the engine."""

    __slots__ = ("busy_s", "error", "held", "value")

    def __init__(self, value: Any, error: str, held: list[int] | None, busy_s: float) -> None:
        self.value, self.error, self.held, self.busy_s = value, error, held, busy_s


class Child:
    """The process, its pipe and the memory that both share."""

    def __init__(self, config: EngineConfig, n_vocab: int) -> None:
        n_bytes = FLAG_BYTES + 4 * config.n_outputs * n_vocab
        with tempfile.TemporaryFile() as file:
            file.truncate(n_bytes)
            self._memory = mmap.mmap(file.fileno(), n_bytes)
            self._pipe, theirs = Pipe()
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
        while not self._pipe.poll(POLL_S):
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


def connection(fd: int) -> Connection:
    """The child's end of the pipe."""
    return Connection(fd)
