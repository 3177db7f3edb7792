"""Several users at once: one decode serves all of their sequences (continuous batching's step).

Each is a reply of its own in one batch of the decoding loop, so a speed is what users get who share
an engine.
"""

from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from localspec.bench.case import Case
from localspec.bench.sample import Sample
from localspec.decode.driver import Batch, Slot, step
from localspec.decode.generation import Generation, Limits
from localspec.decode.speculator import Plain
from localspec.engine.interrupt import Interrupt
from localspec.engine.sampling import Sampling
from localspec.notify import Notify
from localspec.session.loading import check_memory, load_engine, sound_plan

if TYPE_CHECKING:
    from localspec.engine.llama.engine import LlamaEngine

GREEDY = Sampling(temperature=0)


class ParallelBench:
    """A loaded engine with a sequence for each of the case's users."""

    def __init__(self, case: Case, engine: "LlamaEngine", load_s: float) -> None:
        self.work, self.load_s = case.work, load_s
        self._engine = engine
        self._contexts = [engine.context() for _ in range(case.work.batch)]
        self._prompts = np.random.default_rng(1).integers(
            engine.vocabulary.n_tokens,
            size=(case.work.batch, max(1, case.work.depth) + case.work.n_prompt),
        )

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
        self._decode(2)
        for i in range(n_samples):
            stage(f"measuring {i + 1} of {n_samples}")
            decoded = self._decode(self.work.n_gen) if self.work.n_gen else Sample()
            if not self.work.n_prompt:
                yield decoded
                continue
            prefill_s = self._prefill()
            n_read = self.work.n_prompt * self.work.batch
            yield replace(decoded, prefill_s=prefill_s, first_s=prefill_s, n_prompt=n_read)

    def _prefill(self) -> float:
        """Seconds to read all prompts behind the depth, with the first token of each."""
        for context in self._contexts:
            context.truncate(min(self.work.depth, len(context.tokens)))
        batch = self._batch(self.work.depth + self.work.n_prompt, 1)
        started = perf_counter()
        self._pass(batch)
        return perf_counter() - started

    def _decode(self, n_tokens: int) -> Sample:
        """`n_tokens` passes after a first one, which brings all sequences to the depth."""
        batch = self._batch(max(1, self.work.depth), n_tokens + 1)
        self._pass(batch)
        started, busy = perf_counter(), self._engine.busy_s
        for _ in range(n_tokens):
            self._pass(batch)
        return Sample(
            decode_s=perf_counter() - started,
            engine_s=self._engine.busy_s - busy,
            n_tokens=n_tokens * len(batch.slots),
            n_passes=n_tokens,
        )

    def _pass(self, batch: Batch) -> None:
        step(batch, self._engine, Plain())
        for generation in batch.generations:
            if generation.error:
                raise generation.error

    def _batch(self, n_prompt: int, n_tokens: int) -> Batch:
        """Replies of `n_tokens` tokens to the first `n_prompt` of each user's prompt."""
        limits = Limits(self._engine.config.n_ctx, n_tokens)
        pairs = zip(self._contexts, self._prompts, strict=True)
        return Batch(
            [
                Slot(Generation(prompt[:n_prompt].tolist(), GREEDY, limits), context)
                for context, prompt in pairs
            ]
        )
