"""Several users at once: one decode serves all of their sequences (continuous batching's step).

Each pass evaluates one token of every sequence and takes the best next one of each.
"""

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

from localspec.bench.case import Case
from localspec.bench.sample import Sample
from localspec.engine.base import missing
from localspec.engine.interrupt import Interrupt
from localspec.engine.timing import made_up_tokens
from localspec.notify import Notify
from localspec.session.loading import check_memory, load_engine, sound_plan

if TYPE_CHECKING:
    from localspec.engine.llama.engine import LlamaEngine


class ParallelBench:
    """A loaded engine with a sequence for each of the case's users."""

    def __init__(self, case: Case, engine: "LlamaEngine", load_s: float) -> None:
        self.work, self.load_s = case.work, load_s
        self._engine = engine
        self._contexts = [engine.context() for _ in range(case.work.batch)]
        n_each = max(1, case.work.depth) + case.work.n_prompt
        tokens = made_up_tokens(engine.vocabulary.n_tokens, n_each * case.work.batch)
        self._prompts = [tokens[i * n_each :][:n_each] for i in range(case.work.batch)]

    @classmethod
    def open(cls, case: Case, notify: Notify) -> Self:
        """Raises LocalspecError."""
        plan, n = sound_plan(case.session_config, notify), case.work.batch
        config = replace(plan.target.with_settings(n_sequences=n), n_outputs=n)
        check_memory([(config, plan.facts)])
        started = perf_counter()
        engine = load_engine(config, Interrupt(), lambda fraction: None)
        return cls(case, engine, perf_counter() - started)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._engine.close()

    def samples(self, n_samples: int, stage: Notify) -> Iterator[Sample]:
        """Warmed up first."""
        depth = max(1, self.work.depth)
        stage(f"filling {len(self._contexts)} x {depth:,} tokens")
        self._prefill(depth - 1, 0)
        self._decode(2)
        for i in range(n_samples):
            stage(f"measuring {i + 1} of {n_samples}")
            decoded = self._decode(self.work.n_gen) if self.work.n_gen else Sample()
            if not self.work.n_prompt:
                yield decoded
                continue
            self._prefill(self.work.depth, 0)
            prefill_s = self._prefill(self.work.depth + self.work.n_prompt, 1)
            n_read = self.work.n_prompt * self.work.batch
            yield replace(decoded, prefill_s=prefill_s, first_s=prefill_s, n_prompt=n_read)

    def _prefill(self, n_tokens: int, n_logits: int) -> float:
        """Seconds to have every sequence hold exactly `n_tokens` of its prompt."""
        started = perf_counter()
        requests = [
            (context, missing(context, prompt[:n_tokens], n_logits), n_logits)
            for context, prompt in zip(self._contexts, self._prompts, strict=True)
        ]
        self._engine.decode([request for request in requests if request[1]])
        return perf_counter() - started

    def _decode(self, n_tokens: int) -> Sample:
        """`n_tokens` passes after a first one, which brings all sequences to the depth."""
        depth = max(1, self.work.depth)
        self._prefill(depth - 1, 0)
        pending = self._pass([prompt[depth - 1] for prompt in self._prompts])
        started, busy = perf_counter(), self._engine.busy_s
        for _ in range(n_tokens):
            pending = self._pass(pending)
        return Sample(
            decode_s=perf_counter() - started,
            engine_s=self._engine.busy_s - busy,
            n_tokens=n_tokens * len(pending),
            n_passes=n_tokens,
        )

    def _pass(self, pending: list[int]) -> list[int]:
        """Evaluate a token of each sequence; what follows."""
        pairs = zip(self._contexts, pending, strict=True)
        rows = self._engine.decode([(context, [token], 1) for context, token in pairs])
        return [logits.argmax(0) for logits in rows]
