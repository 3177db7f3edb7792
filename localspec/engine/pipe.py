"""A child process with an engine, and the pipe to it.

A message is a pickled value behind its size. A decode and its result lie in the memory that both
share instead: a bell says so. Each side counts what it says in a mark there, which the other one
looks at for a moment before it sleeps, because waking takes longer than the work between two
passes. The parent sleeps until shortly before the pass should end, where a core is left for it.
"""

import os
import pickle
import select
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from struct import Struct
from time import perf_counter
from typing import Any, NamedTuple

from localspec.engine.base import EngineConfig
from localspec.engine.child import PYTHON
from localspec.engine.interrupt import Interrupted
from localspec.engine.shared import Asked, Backs, Shared, unnamed_memory
from localspec.errors import EngineError, ModelError, UserError
from localspec.hardware.detect import usable_cores
from localspec.notify import Progress

CHILD = "localspec.engine.llama.child_engine"
POLL_S, GRACE_S = 0.05, 1.0
SPIN_S = 3e-4
"""How long the child looks for a message without sleep: as long as choosing a token takes."""
EARLY_S = 2.5e-4
"""How long before the end of a pass the parent begins to look for it, and ends after it: a timer's
slack, the time to wake, and what passes differ by."""
_MOST_FDS = 1024
"""Beyond which select() fails; poll() knows no time below a millisecond."""
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
    """One end of it, with the bell that this side hears and the one that it rings. `marks` are this
    side's own and the other's: twice the number of what was said, plus 1 after a ring."""

    def __init__(
        self, end: socket.socket, heard: Bell, rung: Bell, marks: Sequence[memoryview]
    ) -> None:
        self._end, self._heard, self._rung = end, heard, rung
        self._mine, self._theirs = marks
        self._n_said, self._next = 0, 2
        self._come = b""
        self._found: list[tuple[int, int]] = []
        """What was ready when it was last asked."""
        self._bell_fd = heard.fds[0]
        self._fds = [end.fileno(), self._bell_fd]
        self._poll = select.poll()
        for fd in self._fds:
            self._poll.register(fd, select.POLLIN)

    def send(self, value: Any) -> None:
        """A value other than None. Raises OSError where the other side has ended."""
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._end.sendall(_SIZE.pack(len(data)) + data)
        self._n_said += 2
        self._mine[0] = self._n_said

    def ring(self) -> None:
        """Say that a decode or its result is in the shared memory."""
        self._rung.ring()
        self._n_said += 2
        # After the ring: what reads the mark does not wait for the bell.
        self._mine[0] = self._n_said + 1

    def is_ready(self, wait_s: float) -> bool:
        """Whether something has come within that time."""
        if self._theirs[0] >= self._next or self._come:
            return True
        self._found = self._found or self._poll.poll(1e3 * wait_s)
        return bool(self._found)

    def look(self, seconds: float) -> bool:
        """Whether something is said within that time, which is spent without sleep."""
        theirs, wanted = self._theirs, self._next
        until_s = perf_counter() + seconds
        while theirs[0] < wanted and perf_counter() < until_s:
            os.sched_yield()
        return theirs[0] >= wanted

    def sleep(self, seconds: float) -> None:
        """Until something comes, at most that long, to a tenth of a millisecond."""
        if max(self._fds) < _MOST_FDS:
            select.select(self._fds, (), (), seconds)

    def recv(self) -> Any:
        """The next value, None for a ring. Raises EOFError or OSError where the other side has
        ended."""
        wanted = self._next
        self._next = wanted + 2
        if self._theirs[0] == wanted + 1:
            self._found = []
            self._heard.hear()
            return None
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
        self._pass_s: dict[int, float] | None = {} if _leaves_a_core(config) else None
        """What a decode of as many words took last; None: no core is left to look for its end."""
        self._begun_s = 0.0
        mine, theirs = socket.socketpair()
        with unnamed_memory(config.n_outputs, n_vocab) as file:
            self.shared = Shared(file.fileno(), n_vocab)
            bells = Bell(), Bell()
            self._pipe = Pipe(mine, *bells, self.shared.marks)
            self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
            fds = (theirs.fileno(), file.fileno(), *bells[1].fds, *bells[0].fds)
            self._process = subprocess.Popen(
                [*PYTHON, "-m", CHILD, str(n_vocab), *map(str, fds)],
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

    def begin(self, backs: Backs, asked: Asked) -> bool:
        """Ask for a decode by a ring; False where it is too long for that."""
        if not self.shared.write(backs, asked):
            return False
        self.shared.is_stopped = self._is_stopped()
        self._pipe.ring()
        self._begun_s = perf_counter()
        return True

    def end(self) -> PipeAnswer | None:
        """Of what `begin` asked for. None: every request was taken, and the rows are there."""
        if self._pass_s is not None:
            n_words = self.shared.n_words
            early_s = self._pass_s.get(n_words, POLL_S) - EARLY_S
            if early_s < POLL_S - EARLY_S:  # when it should end is known
                if early_s > 0:
                    self._pipe.sleep(early_s)
                self._pipe.look(2 * EARLY_S)
            self._wait()
            self._pass_s[n_words] = perf_counter() - self._begun_s
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
        self._wait()
        return self._pipe.recv()

    def _wait(self) -> None:
        while not self._pipe.is_ready(POLL_S):
            self.shared.is_stopped = self._is_stopped()

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


def _leaves_a_core(config: EngineConfig) -> bool:
    """Whether a core is idle at the end of a pass: not all compute, or all layers are elsewhere."""
    settings = config.settings
    is_elsewhere = settings.gpu_layers == -1 and bool(settings.workers)
    return is_elsewhere or config.n_threads < usable_cores()
