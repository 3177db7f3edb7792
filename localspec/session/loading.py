"""A session's configuration, checked before anything is loaded, to loaded engines.

Look before the load: what would fail in the engine, said in a sentence while it costs nothing.

The engine answers a bad combination with "failed to create context", some damaged files with an
abort, and memory that is not there with swapping.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from localspec.engine.base import MAX_THREADS, EngineConfig
from localspec.engine.health import UNIFIED, gpu_backends
from localspec.engine.interrupt import Interrupt
from localspec.errors import ModelError, UserError
from localspec.gguf.reader import read_header
from localspec.hardware.detect import available_memory_bytes, usable_cores
from localspec.model.facts import ModelFacts, cache_type
from localspec.model.tokenizer import pair_problem
from localspec.model.usable import check_usable
from localspec.notify import Progress
from localspec.session.config import SessionConfig, Speculation

if TYPE_CHECKING:
    from localspec.engine.llama.engine import LlamaEngine


_BUFFERS_BYTES = 200_000_000
"""Compute buffers and the process itself; the engine needs about this much for small models."""


def checked_facts(model: Path) -> ModelFacts:
    """A file's facts. Raises ModelError where it is damaged or not a model that answers."""
    header = read_header(model)
    check_usable(header)
    return ModelFacts.of(header)


def check_cache_types(config: EngineConfig, facts: ModelFacts) -> None:
    """Raise UserError where the cache types do not fit the model or each other."""
    type_k, type_v = cache_type(config.kv_k), cache_type(config.kv_v)
    problem = facts.kv_problem(type_k, type_v, flash_attention=config.flash_attn != "off")
    if problem:
        raise UserError(problem)


def check_memory(caches: Sequence[tuple[EngineConfig, ModelFacts]]) -> None:
    """Raise UserError where the caches together do not fit into the memory that is free now.

    Weights are mapped and can be dropped and read again, so they do not count; caches on a GPU with
    memory of its own do not either: the engine itself asks the device.
    """
    on_host = [pair for pair in caches if not (pair[0].n_gpu_layers and gpu_backends() - UNIFIED)]
    needed = sum(_cache_bytes(config, facts) for config, facts in on_host)
    free = max(0, available_memory_bytes() - _BUFFERS_BYTES)
    if needed <= free:
        return
    n_ctx = on_host[0][0].n_ctx
    fitting = int(n_ctx * free / needed) // 256 * 256
    advice = f"--ctx {fitting} would fit" if fitting else "close other programs"
    raise UserError(
        f"a context of {n_ctx:,} tokens needs {needed / 1e9:.1f} GB "
        f"and {free / 1e9:.1f} GB are free: {advice}"
    )


def _cache_bytes(config: EngineConfig, facts: ModelFacts) -> int:
    """Bytes of the K and V caches; 0 where the architecture has one of its own."""
    n_windowed = (facts.window_tokens or 0) + config.n_batch
    types = cache_type(config.kv_k), cache_type(config.kv_v)
    return facts.kv_bytes(config.n_ctx * config.n_sequences, *types, n_windowed=n_windowed) or 0


DEFAULT_CTX = 4096
DEFAULT_DRAFT = 3
AUTO_DRAFT = 16
"""The longest draft that is chosen without a cap."""
MAX_DRAFT = 64


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What will be loaded: the target's and, where one is used, the draft's configuration."""

    target: EngineConfig
    draft: EngineConfig | None
    max_draft: int
    """The longest draft; 0 without speculation."""
    spec: Speculation = "auto"

    def without_extra_buffers(self) -> Self:
        """The same for an engine build that must not repack weights."""
        draft = self.draft and replace(self.draft, use_extra_buffers=False)
        return replace(self, target=replace(self.target, use_extra_buffers=False), draft=draft)

    def limited_by(self, target: "LlamaEngine", notify: Callable[[str], None]) -> Self:
        """The same with drafts that the loaded target can take back; `talk` hears if none."""
        limit = target.rollback_limit
        if limit is None or self.max_draft <= limit:
            return self
        if limit == 0:
            notify(
                f"speculation is off: {target.config.model.name} cannot take back tokens"
                " (its memory is recurrent)"
            )
        return replace(self, max_draft=limit, draft=self.draft if limit else None)


def plan_engines(config: SessionConfig) -> EnginePlan:
    """Decide on every setting and look for what would fail. Raises UserError or ModelError."""
    max_draft = _max_draft(config)
    facts = checked_facts(config.model)
    target = _engine_config(config, facts, _context_size(config.n_ctx, facts), max_draft + 1)
    caches = [(target, facts)]
    draft = None
    if config.draft is not None and config.spec in ("auto", "draft"):
        draft_facts = checked_facts(config.draft)
        n_ctx = min(target.n_ctx, draft_facts.n_ctx_train or target.n_ctx)
        draft = replace(_engine_config(config, draft_facts, n_ctx, 1), model=config.draft)
        caches.append((draft, draft_facts))
    check_memory(caches)
    return EnginePlan(target, draft, max_draft, config.spec)


def load_engine(config: EngineConfig, interrupt: Interrupt, on_progress: Progress) -> "LlamaEngine":
    """Load one engine; the first one loads libllama too."""
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - loads libllama

    return LlamaEngine(config, interrupt, on_progress)


def check_pair(target: "LlamaEngine", draft: "LlamaEngine") -> None:
    """ModelError where the draft cannot roll back, or its vocabulary is not the target's."""
    tokenizers = target.vocabulary.tokenizer, draft.vocabulary.tokenizer
    problem = pair_problem(*tokenizers, rolls_back=draft.rollback_limit != 0)
    if problem:
        raise ModelError(
            f"{draft.config.model.name} cannot draft for {target.config.model.name}: {problem}; "
            "use a smaller attention model of the same family"
        )


def _max_draft(config: SessionConfig) -> int:
    if config.spec == "draft" and config.draft is None:
        raise UserError("--spec draft needs a draft model: name one with --draft")
    if config.spec == "none":
        return 0
    default = AUTO_DRAFT if config.spec == "auto" else DEFAULT_DRAFT
    n = default if config.draft_max is None else config.draft_max
    if not 1 <= n <= MAX_DRAFT:
        raise UserError(
            f"--draft-max {n} is not between 1 and {MAX_DRAFT}: use --spec none for no drafts"
        )
    return n


def _engine_config(
    config: SessionConfig, facts: ModelFacts, n_ctx: int, n_outputs: int
) -> EngineConfig:
    # A quantized V cache exists only with flash attention, so "auto" has nothing left to decide.
    needs_flash = config.flash_attn == "auto" and cache_type(config.kv_v).is_quantized
    engine = EngineConfig(
        model=config.model,
        n_ctx=n_ctx,
        n_threads=_threads(config.n_threads),
        n_outputs=n_outputs,
        kv_k=config.kv_k,
        kv_v=config.kv_v,
        flash_attn="on" if needs_flash else config.flash_attn,
        n_gpu_layers=config.n_gpu_layers if gpu_backends() else 0,
        n_threads_batch=config.n_threads_batch and _threads(config.n_threads_batch),
        n_batch=config.n_batch,
        n_cpu_moe=config.n_cpu_moe,
        use_mmap=config.use_mmap,
        use_extra_buffers=config.repack,
    )
    check_cache_types(engine, facts)
    return engine


def _context_size(wanted: int | None, facts: ModelFacts) -> int:
    if wanted is None:
        return min(DEFAULT_CTX, facts.n_ctx_train or DEFAULT_CTX)
    if not 2 <= wanted < 2**31:
        raise UserError(f"--ctx {wanted} is not a number of tokens: use 2 or more")
    return wanted


def _threads(wanted: int | None) -> int:
    if wanted is None:
        return usable_cores()
    if not 1 <= wanted <= MAX_THREADS:
        raise UserError(f"--threads {wanted} is not between 1 and {MAX_THREADS}")
    return wanted
