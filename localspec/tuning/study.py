"""Quality, speed and memory: one row for each weight type or pair of cache types.

The reference is the given model, or another one of the same vocabulary, with an f16 cache. Speeds
are timed in turns beside the reference, so a row's speed is the reference's times a ratio. A row is
on the Pareto front if no other row is at least as good in all three and better in one.
"""

import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
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
from localspec.quality.divergence import (
    Divergence,
    Windows,
    divergence_of,
    keep_reference,
    kept_reference,
    reference_of,
    windows_of,
)
from localspec.quality.reference import Reference
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
        load = partial(_loaded, interrupt, question, listen)
        base = stack.enter_context(load(replace(config, model=reference)))
        row = partial(_row, question, listen, base, _reference(base, listen))
        yield replace(row(base, Attention()), is_reference=True)
        own = base
        if config.model != reference:
            own = stack.enter_context(load(config))
            one, other = (each.shared.owner.vocabulary.tokenizer for each in (base, own))
            if difference := one.difference(other):
                raise ModelError(
                    f"{base.model.name} is no reference for {own.model.name}: {difference};"
                    " use the same model with better weights"
                )
            yield row(own, Attention())
        for attention in question.attentions:
            if attention != Attention():
                yield row(own, attention)
        for kind in question.weights:
            with (
                _made(base.model, kind, config.n_threads, listen) as path,
                load(replace(config, model=path)) as other,
            ):
                found = row(other, Attention())
            yield found


def with_front(rows: list[StudyRow]) -> list[StudyRow]:
    """The rows, with a mark on those that no other row dominates."""
    return [replace(row, is_front=not any(o.dominates(row) for o in rows)) for row in rows]


@dataclass(frozen=True, slots=True)
class _Subject:
    """A loaded model with its windows and a cache for timing."""

    shared: SharedWeights
    windows: Windows
    timed: Candidate

    @property
    def model(self) -> Path:
        return self.shared.config.model

    def setting(self, attention: Attention) -> Settings:
        return self.timed.setting.with_attention(attention)

    def reading(self, attention: Attention) -> AbstractContextManager[Candidate]:
        """A cache to read windows with."""
        return self.shared.reading(self.setting(attention), self.windows)


@contextmanager
def _loaded(
    interrupt: Interrupt, question: StudyQuestion, listen: StudyListener, config: EngineConfig
) -> Generator[_Subject]:
    listen(f"loading {config.model.name}", 0)
    setting = candidate_of(config).with_attention(Attention())
    with SharedWeights(config, setting.loading, interrupt) as shared:
        vocabulary = shared.owner.vocabulary
        windows = windows_of(vocabulary, question.text, question.window, question.n_windows)
        yield _Subject(shared, windows, shared.candidate(setting, question.depth + 256))


@contextmanager
def _made(model: Path, kind: str, n_threads: int, listen: StudyListener) -> Generator[Path]:
    """A temporary file of the weights in another type."""
    with tempfile.TemporaryDirectory(prefix="quality-", dir=paths.cache_dir()) as folder:
        path = Path(folder) / f"{model.stem}.{kind.upper()}.gguf"
        making = partial(listen, f"making {kind.upper()} weights")
        quantize(model, path, kind, n_threads, making)
        yield path


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
    question: StudyQuestion,
    listen: StudyListener,
    base: _Subject,
    known: Reference,
    own: _Subject,
    attention: Attention,
) -> StudyRow:
    weights = file_type(read_header(own.model))
    name = f"{weights}, {attention.kv_k}/{attention.kv_v}"
    with own.reading(attention) as candidate:
        told = partial(listen, name)
        quality = divergence_of(candidate.engine, candidate.context, own.windows, known, told)
    listen(f"speed of {name}", 0)
    decode_tps, ratio = _speed(question.depth, base, own, attention)
    # The column compares types, so memory is always that of the fused kernel.
    types = Attention(attention.kv_k, attention.kv_v)
    memory = memory_of(checked_facts(own.model), types, question.n_ctx)
    return StudyRow(weights, attention, quality, decode_tps, ratio, memory.total_bytes)


def _speed(depth: int, base: _Subject, own: _Subject, attention: Attention) -> tuple[float, float]:
    """Tokens a second, and the ratio to the reference's speed."""
    if own is base and attention == Attention():
        (seconds,) = turns([base.timed], depth, TURNS)
        return 1 / median(seconds), 1.0
    with own.shared.borrowed(own.setting(attention), depth + 256) as candidate:
        base_s, own_s = turns([base.timed, candidate], depth, TURNS)
    ratio = median(gains_of(base_s, own_s))
    return ratio / median(base_s), ratio
