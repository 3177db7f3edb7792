"""Quality, speed and memory: one row for each weight type or pair of cache types.

The reference is the given model, or another one of the same vocabulary, with an f16 cache. Speeds
are timed in turns beside the reference, so a row's speed is the reference's times a ratio. A row is
on the Pareto front if no other row is at least as good in all three and better in one.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

from localspec import paths
from localspec.engine.base import EngineConfig
from localspec.engine.interrupt import Interrupt
from localspec.engine.quantize import quantize
from localspec.errors import ModelError
from localspec.gguf.header import file_type
from localspec.gguf.reader import read_header
from localspec.prediction.memory import memory_of
from localspec.quality import (
    Divergence,
    Reference,
    Windows,
    divergence_of,
    reference_of,
    windows_of,
)
from localspec.quality.evaluate import keep_reference, kept_reference
from localspec.session.loading import checked_facts
from localspec.settings import Attention, Settings
from localspec.tuning.shared_weights import Candidate, SharedWeights, gains_of, turns
from localspec.tuning.target import candidate_of

StudyListener = Callable[[str, float], None]
"""Hears the step and its progress, 0 to 1."""

TURNS = 6


@dataclass(frozen=True, slots=True)
class StudyQuestion:
    """The rows to measure: cache types with the model's own weights, weight types with f16 caches.

    `n_windows` None: the whole text. Speeds are at `depth`; memory is that of `n_ctx` tokens.
    """

    text: str
    attentions: tuple[Attention, ...]
    weights: tuple[str, ...] = ()
    window: int = 512
    n_windows: int | None = None
    depth: int = 512
    n_ctx: int = 4096


@dataclass(frozen=True, slots=True)
class StudyRow:
    """One weight type and pair of cache types. `ratio`: speed over the reference's."""

    weights: str
    attention: Attention
    quality: Divergence
    decode_tps: float
    ratio: float
    memory_bytes: int
    is_reference: bool = False
    is_front: bool = False

    def dominates(self, other: "StudyRow") -> bool:
        mine = (self.decode_tps, -self.memory_bytes, -max(0.0, self.quality.kld))
        theirs = (other.decode_tps, -other.memory_bytes, -max(0.0, other.quality.kld))
        return mine != theirs and all(a >= b for a, b in zip(mine, theirs, strict=True))


def study(
    config: EngineConfig, reference: Path, question: StudyQuestion, listen: StudyListener
) -> Iterator[StudyRow]:
    """Yield rows as they are measured, the reference's own first.

    Raises LocalspecError; Interrupted on Ctrl-C, after which the earlier rows stay valid.
    """
    with ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        base = _Subject.open(replace(config, model=reference), interrupt, stack, question, listen)
        known = _reference(base, listen)
        base_row = _row(base, base, Attention(), known, listen)
        yield replace(base_row, is_reference=True)
        own = base
        if config.model != reference:
            own = _Subject.open(config, interrupt, stack, question, listen)
            _check_same(base, own)
            yield _row(own, base, Attention(), known, listen)
        for attention in question.attentions:
            if attention != Attention():
                yield _row(own, base, attention, known, listen)
        for kind in question.weights:
            yield from _of_weights(config, base, kind, known, listen)


def with_front(rows: list[StudyRow]) -> list[StudyRow]:
    """The rows, with a mark on those that no other row dominates."""
    return [replace(row, is_front=not any(o.dominates(row) for o in rows)) for row in rows]


@dataclass(frozen=True, slots=True)
class _Subject:
    """A loaded model with its windows and a cache for timing."""

    shared: SharedWeights
    windows: Windows
    timed: Candidate
    question: StudyQuestion
    interrupt: Interrupt

    @classmethod
    def open(
        cls,
        config: EngineConfig,
        interrupt: Interrupt,
        stack: ExitStack,
        question: StudyQuestion,
        listen: StudyListener,
    ) -> "_Subject":
        listen(f"loading {config.model.name}", 0)
        setting = candidate_of(config)
        shared = stack.enter_context(SharedWeights(config, setting.loading, interrupt))
        vocabulary = shared.owner.vocabulary
        windows = windows_of(vocabulary, question.text, question.window, question.n_windows)
        plain = setting.with_attention(Attention())
        timed = shared.candidate(plain, question.depth + 256)
        return cls(shared, windows, timed, question, interrupt)

    @property
    def setting(self) -> Settings:
        return self.timed.setting

    @property
    def model(self) -> Path:
        return self.shared.config.model

    def reading(self, attention: Attention) -> AbstractContextManager[Candidate]:
        """A cache to read windows with."""
        return self.shared.reading(self.setting.with_attention(attention), self.windows)


def _reference(base: _Subject, listen: StudyListener) -> Reference:
    known = kept_reference(base.model, base.windows)
    if known:
        return known
    with base.reading(Attention()) as candidate:
        told = partial(listen, "the reference")
        known = reference_of(candidate.engine, candidate.context, base.windows, told)
    keep_reference(known, base.model, base.windows)
    return known


def _row(
    own: _Subject, base: _Subject, attention: Attention, known: Reference, listen: StudyListener
) -> StudyRow:
    weights = file_type(read_header(own.model))
    name = f"{weights}, {attention.kv_k}/{attention.kv_v}"
    with own.reading(attention) as candidate:
        told = partial(listen, name)
        quality = divergence_of(candidate.engine, candidate.context, own.windows, known, told)
    listen(f"speed of {name}", 0)
    decode_tps, ratio = _speed(own, base, attention)
    # The column compares types, so memory is always that of the fused kernel.
    types = Attention(attention.kv_k, attention.kv_v)
    memory = memory_of(checked_facts(own.model), types, own.question.n_ctx)
    return StudyRow(weights, attention, quality, decode_tps, ratio, memory.total_bytes)


def _speed(own: _Subject, base: _Subject, attention: Attention) -> tuple[float, float]:
    """Tokens a second, and the ratio to the reference's speed."""
    depth = own.question.depth
    if own is base and attention == Attention():
        (seconds,) = turns([base.timed], depth, TURNS)
        return 1 / median(seconds), 1.0
    with own.shared.borrowed(own.setting.with_attention(attention), depth + 256) as candidate:
        base_s, own_s = turns([base.timed, candidate], depth, TURNS)
    ratio = median(gains_of(base_s, own_s))
    return ratio / median(base_s), ratio


def _of_weights(
    config: EngineConfig, base: _Subject, kind: str, known: Reference, listen: StudyListener
) -> Iterator[StudyRow]:
    """The row of the reference's weights in another type, from a temporary file."""
    with tempfile.TemporaryDirectory(prefix="quality-", dir=paths.cache_dir()) as folder:
        path = Path(folder) / f"{base.model.stem}.{kind.upper()}.gguf"
        making = f"making {kind.upper()} weights"
        quantize(base.model, path, kind, config.n_threads, partial(listen, making))
        with ExitStack() as stack:
            made = replace(config, model=path)
            own = _Subject.open(made, base.interrupt, stack, base.question, listen)
            row = _row(own, base, Attention(), known, listen)
    yield row


def _check_same(base: _Subject, own: _Subject) -> None:
    one, other = (each.shared.owner.vocabulary.tokenizer for each in (base, own))
    difference = one.difference(other)
    if difference:
        raise ModelError(
            f"{base.model.name} is no reference for {own.model.name}: {difference};"
            " use the same model with better weights"
        )
