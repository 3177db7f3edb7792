"""An engine in a process of its own, for devices whose loss would end this one.

libllama ends its process where a worker is lost in the middle of a pass. So an engine with workers
stands behind a pipe. Requests and results cross it as plain values, or lie in shared memory.
When the process ends, every context is empty and the error says why. The next call starts it again,
without the workers if they are not back; whoever holds a conversation evaluates it again and goes
on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from localspec.engine.base import Context, EngineConfig, HeldTokens, Request
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.logits import BufferLogits
from localspec.engine.pipe import ERRORS, Child, PipeAnswer
from localspec.engine.workers import Worker, addresses_of, devices_of, greet
from localspec.errors import EngineError, LocalspecError
from localspec.model.facts import HeadFacts
from localspec.notify import Notify, Progress


class ProcessContext(HeldTokens):
    """One sequence of an EngineProcess; what it holds is known on both sides of the pipe."""

    def __init__(self, engine: "EngineProcess", place: int) -> None:
        self.engine = engine
        self.place = place
        self.tokens: list[int] = []

    def go_back(self, n: int) -> None:
        """Keep the first `n` tokens, or as many as can be kept; told with the next decode where
        the answer is known."""
        if n >= len(self.tokens):
            return
        if self.engine.rollback_limit is None:
            self.engine.later.append((self.place, n))
            del self.tokens[n:]
        else:
            del self.tokens[self._ask("go_back", n) :]

    def fork(self, other: Context, n: int) -> None:
        """Nothing: the engine with workers shares no cells."""

    def clear(self) -> None:
        self._ask("clear")
        self.tokens = []

    def checkpoint_place(self, n: int) -> int | None:
        return None if self.engine.rollback_limit is None else self._ask("checkpoint_place", n)

    def checkpoint(self) -> None:
        if self.engine.rollback_limit is not None:
            self._ask("checkpoint")

    def save(self, path: Path) -> None:
        self._ask("save", path)

    def restore(self, path: Path) -> bool:
        self.tokens = self._ask("restore", path) or []
        return bool(self.tokens)

    @property
    def state_bytes(self) -> int:
        return self._ask("state_bytes")

    def _ask(self, verb: str, *arguments: Any) -> Any:
        return self.engine.ask("context", self.place, verb, *arguments)


class EngineProcess:
    """The Engine of another process. `notify` hears when it goes on without its workers."""

    def __init__(
        self,
        config: EngineConfig,
        interrupt: Interrupt,
        on_progress: Progress = lambda fraction: None,
        notify: Notify = lambda message: None,
    ) -> None:
        self.config, self.interrupt, self._notify = config, interrupt, notify
        self.busy_s, self.n_decodes, self.n_window = 0.0, 0, 0
        self.later: list[tuple[int, int]] = []
        """Rollbacks that go along with the next request."""
        self.rollback_limit: int | None = None
        self._contexts: list[ProcessContext] = []
        self._child: Child | None = None
        from localspec.engine.llama.vocabulary import load_vocabulary  # noqa: PLC0415 - loads libllama

        self.vocabulary: Any = load_vocabulary(config.model)
        self._start(config, on_progress)

    def head(self, facts: HeadFacts, n: int) -> NoReturn:
        """None: hidden states would have to cross the pipe."""
        raise EngineError("an engine with --workers takes no draft head")

    def close(self) -> None:
        """End the process; a second call does nothing."""
        child, self._child = self._child, None
        if child:
            child.close()

    def context(self) -> ProcessContext:
        n = len(self._contexts)
        if n == self.config.settings.n_sequences:
            raise EngineError(f"all {n} sequences of this engine are in use")
        self._contexts.append(ProcessContext(self, n))
        return self._contexts[-1]

    def scratch(self) -> ProcessContext:
        return ProcessContext(self, 0)

    def set_threads(self, n_threads: int, n_threads_batch: int) -> None:
        self.ask("set_threads", n_threads, n_threads_batch)

    def decode(self, requests: Sequence[Request]) -> list[BufferLogits | LocalspecError]:
        """Evaluate all requests; see `engine.base.Engine.decode`.

        What a taken request leaves behind is prepared while the other side computes.
        """
        child = self._child or self._revived()
        backs, self.later = self.later, []
        asked = [(_place(context), tokens, n) for context, tokens, n in requests]
        try:
            is_rung = child.begin(backs, asked)
            self.n_decodes += 1
            rows = child.shared.rows
            results = self._taken(rows, requests)
            answer = child.end() if is_rung else child.answer((backs, "decode", asked))
        except (EOFError, OSError) as error:
            raise self._lost() from error
        self.busy_s = child.shared.busy_s
        if answer is None and child.shared.rows is rows:
            return results
        return self._results(child, requests, self._value(answer) if answer else ())

    def _taken(self, rows: Any, requests: Sequence[Request]) -> list[BufferLogits | LocalspecError]:
        """Results of requests that are all taken; their tokens are held."""
        results: list[BufferLogits | LocalspecError] = []
        start = 0
        for context, tokens, n_logits in requests:
            assert isinstance(context, ProcessContext)
            context.tokens += tokens
            results.append(BufferLogits(self, rows[start : start + n_logits]))
            start += n_logits
        return results

    def _results(
        self, child: Child, requests: Sequence[Request], refusals: Sequence[str | None]
    ) -> list[BufferLogits | LocalspecError]:
        """The same where some were refused, or where the rows have moved."""
        results: list[BufferLogits | LocalspecError] = []
        rows, start = child.shared.rows, 0
        for i, (_, _, n_logits) in enumerate(requests):
            refusal = refusals[i] if refusals else None
            end = start if refusal else start + n_logits
            results.append(EngineError(refusal) if refusal else BufferLogits(self, rows[start:end]))
            start = end
        return results

    def ask(self, *request: Any) -> Any:
        """The answer of the other side. Raises its error, Interrupted, or EngineError where the
        process has ended."""
        child = self._child or self._revived()
        backs, self.later = self.later, []
        try:
            answer = child.answer((backs, *request))
        except (EOFError, OSError) as error:
            raise self._lost() from error
        self.busy_s = child.shared.busy_s
        return self._value(answer)

    def _value(self, answer: PipeAnswer) -> Any:
        if answer.held is not None:
            for context, n in zip(self._contexts, answer.held, strict=False):
                del context.tokens[n:]
        if answer.error == Interrupted.__name__:
            raise Interrupted
        if answer.error:
            raise ERRORS.get(answer.error, EngineError)(answer.value)
        return answer.value

    def _start(self, config: EngineConfig, on_progress: Progress = lambda fraction: None) -> None:
        for address in addresses_of(config.settings.workers):
            greet(address)
        child = Child(config, self.vocabulary.n_tokens, lambda: self.interrupt.requested)
        try:
            found = child.loaded(on_progress)
        except (EOFError, OSError):
            workers = ", ".join(config.settings.workers)
            where = f" with {workers}" if workers else ""
            raise EngineError(
                f"the engine{where} was lost while it was loading ({child.reason()})"
            ) from None
        except BaseException:
            child.close()
            raise
        self.rollback_limit, self.n_window = found
        self._child = child

    def _lost(self) -> EngineError:
        child, self._child = self._child, None
        reason = child.reason() if child else "it is closed"
        for context in self._contexts:
            context.tokens = []
        workers = ", ".join(self.config.settings.workers)
        return EngineError(
            f"the engine with {workers} was lost ({reason}): what was said is kept, and the next"
            " message goes on"
        )

    def _revived(self) -> Child:
        """Again as it was, or without the workers where they are not back."""
        devices_of.cache_clear()
        workers = self.config.settings.workers
        try:
            for worker in workers:
                devices_of(Worker.of(worker))
            self._start(self.config)
        except LocalspecError as error:
            self._notify(f"{error}; this machine goes on alone")
            self._start(self.config.with_settings(workers=(), device=(), gpu_layers=0))
        assert self._child
        return self._child


def _place(context: Any) -> int:
    assert isinstance(context, ProcessContext)
    return context.place
