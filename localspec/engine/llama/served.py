"""The child process of `engine.process`: an engine that answers requests from a pipe.

    python -m localspec.engine.llama.served PIPE MEMORY N_VOCAB

PIPE and MEMORY are inherited file descriptors. It ends with the pipe.
"""

import mmap
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from localspec.engine.base import EngineConfig, rows_of
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.pipe import FLAG_BYTES, SPIN_S, Pipe, PipeAnswer
from localspec.errors import LocalspecError


class _SharedInterrupt(Interrupt):
    """The wish of the other side, in shared memory."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        super().__init__()

    @property
    def requested(self) -> bool:
        return self._memory[0] != 0

    @requested.setter
    def requested(self, wanted: bool) -> None:
        self._memory[0] = wanted


class Served:
    """An engine, its contexts, and the verbs of the pipe."""

    def __init__(self, engine: LlamaEngine, memory: mmap.mmap, n_vocab: int) -> None:
        self.engine = engine
        n_outputs = engine.config.n_outputs
        rows = np.frombuffer(memory, np.float32, n_outputs * n_vocab, FLAG_BYTES)
        self._rows = rows.reshape(n_outputs, n_vocab)
        self.contexts = [engine.context() for _ in range(engine.config.settings.n_sequences)]
        self._verbs: dict[str, Callable[..., Any]] = {
            "decode": self._decode,
            "set_threads": engine.set_threads,
            "context": self._context,
        }

    def answer(self, backs: list[tuple[int, int]], verb: str, *arguments: Any) -> PipeAnswer:
        """Do what was put off, and what is asked for."""
        try:
            for place, n in backs:
                self.contexts[place].go_back(n)
            return PipeAnswer(self._verbs[verb](*arguments), "", None, self.engine.busy_s)
        except (LocalspecError, Interrupted) as error:
            held = [len(context.tokens) for context in self.contexts]
            return PipeAnswer(str(error), type(error).__name__, held, self.engine.busy_s)

    def _decode(self, asked: list[tuple[int, list[int], int]]) -> list[str | None]:
        """Why each request was refused; the rows of the others are in shared memory."""
        results = self.engine.decode([(self.contexts[i], tokens, n) for i, tokens, n in asked])
        refusals: list[str | None] = []
        start = 0
        for result, (_, _, n_logits) in zip(results, asked, strict=True):
            refusals.append(str(result) if isinstance(result, LocalspecError) else None)
            if refusals[-1] is None:
                for i in range(n_logits):
                    self._rows[start + i] = rows_of(result).row(i)
                start += n_logits
        return refusals

    def _context(self, place: int, verb: str, *arguments: Any) -> Any:
        context = self.contexts[place]
        if verb == "state_bytes":
            return context.state_bytes
        if verb == "restore":
            return list(context.tokens) if context.restore(*arguments) else []
        found = getattr(context, verb)(*arguments)
        return len(context.tokens) if verb == "go_back" else found


def main() -> int:
    pipe_fd, memory_fd, n_vocab = map(int, sys.argv[1:])
    pipe = Pipe(socket.socket(fileno=pipe_fd))
    memory = mmap.mmap(memory_fd, os.fstat(memory_fd).st_size)
    config: EngineConfig = pipe.recv()
    with suppress(EOFError, OSError):
        served = _load(config, pipe, memory, n_vocab)
        while served:
            pipe.send(served.answer(*pipe.recv(SPIN_S)))
    return 0


def _load(config: EngineConfig, pipe: Pipe, memory: mmap.mmap, n_vocab: int) -> Served | None:
    """The engine; None where it does not load, which the other side is told."""
    try:
        engine = LlamaEngine(config, _SharedInterrupt(memory), pipe.send)
    except (LocalspecError, Interrupted) as error:
        pipe.send(PipeAnswer(str(error), type(error).__name__, None, 0.0))
        return None
    served = Served(engine, memory, n_vocab)
    pipe.send(PipeAnswer((engine.rollback_limit, engine.n_window), "", None, engine.busy_s))
    return served


if __name__ == "__main__":
    sys.exit(main())
