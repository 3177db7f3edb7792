"""The child process of `engine.process`: an engine that answers requests from a pipe.

    python -m localspec.engine.llama.served N_VOCAB PIPE MEMORY HEARD HEARD RUNG RUNG

All but the first are inherited file descriptors. It ends with the pipe.
"""

import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt

from localspec.engine.base import EngineConfig
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.logits import BufferLogits
from localspec.engine.pipe import SPIN_S, Bell, Pipe, PipeAnswer
from localspec.engine.shared import Asked, Backs, Shared
from localspec.errors import LocalspecError


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
    """Rings when a decode is evaluated, so that the other side wakes while rows are copied."""

    ring: Callable[[], None] | None = None

    def _output(self, n_rows: int) -> npt.NDArray[np.float32]:
        if self.ring:
            self.ring()
        return super()._output(n_rows)


class Served:
    """An engine, its contexts, and the verbs of the pipe."""

    def __init__(self, engine: _RingingEngine, pipe: Pipe, shared: Shared) -> None:
        self.engine, self._pipe, self._shared = engine, pipe, shared
        self.contexts = [engine.context() for _ in range(engine.config.settings.n_sequences)]
        engine.ring = pipe.ring
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
                answer = self._answer(backs, "decode", asked)
            else:
                answer = self._answer(*request)
            self._shared.busy_s = self.engine.busy_s
            if answer is None:
                self._pipe.ring()
            else:
                self._pipe.send(answer)

    def _answer(self, backs: Backs, verb: str, *arguments: Any) -> PipeAnswer | None:
        """Do what was put off, and what is asked for; None: its result is in shared memory."""
        try:
            for place, n in backs:
                self.contexts[place].go_back(n)
            value = self._verbs[verb](*arguments)
            return None if value is self else PipeAnswer(value)
        except (LocalspecError, Interrupted) as error:
            held = [len(context.tokens) for context in self.contexts]
            return PipeAnswer(str(error), type(error).__name__, held)

    def _decode(self, asked: Asked) -> Any:
        """Copy the rows of what was taken. Why each request was refused, or this object itself
        where none was."""
        results = self.engine.decode([(self.contexts[i], tokens, n) for i, tokens, n in asked])
        start, is_whole = 0, True
        for result, (_, _, n_logits) in zip(results, asked, strict=True):
            if not isinstance(result, BufferLogits):
                is_whole = False
            elif n_logits:
                self._shared.rows[start : start + n_logits] = result.rows
                start += n_logits
        if is_whole:
            return self
        return [None if isinstance(each, BufferLogits) else str(each) for each in results]

    def _context(self, place: int, verb: str, *arguments: Any) -> Any:
        context = self.contexts[place]
        if verb == "state_bytes":
            return context.state_bytes
        if verb == "restore":
            return list(context.tokens) if context.restore(*arguments) else []
        found = getattr(context, verb)(*arguments)
        return len(context.tokens) if verb == "go_back" else found


def main() -> int:
    n_vocab, pipe_fd, memory_fd, *bells = map(int, sys.argv[1:])
    heard, rung = Bell((bells[0], bells[1])), Bell((bells[2], bells[3]))
    pipe, shared = Pipe(socket.socket(fileno=pipe_fd), heard, rung), Shared(memory_fd, n_vocab)
    with suppress(EOFError, OSError):
        served = _load(pipe.recv(), pipe, shared)
        if served:
            served.serve()
    return 0


def _load(config: EngineConfig, pipe: Pipe, shared: Shared) -> Served | None:
    """The engine; None where it does not load, which the other side is told."""
    try:
        engine = _RingingEngine(config, _SharedInterrupt(shared), pipe.send)
    except (LocalspecError, Interrupted) as error:
        pipe.send(PipeAnswer(str(error), type(error).__name__))
        return None
    shared.busy_s = engine.busy_s
    served = Served(engine, pipe, shared)
    pipe.send(PipeAnswer((engine.rollback_limit, engine.n_window)))
    return served


if __name__ == "__main__":
    sys.exit(main())
