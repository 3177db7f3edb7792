"""A session's configuration, checked before anything is loaded, to loaded engines."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from localspec.engine.base import MAX_THREADS, EngineConfig
from localspec.engine.build import gpu_backends
from localspec.engine.interrupt import Interrupt
from localspec.engine.preflight import check_cache_types, check_memory, checked_facts
from localspec.errors import ModelError, UserError
from localspec.hardware.detect import usable_cores
from localspec.model.facts import ModelFacts, cache_type
from localspec.session.config import SessionConfig, Speculation

if TYPE_CHECKING:
    from localspec.engine.llama.engine import LlamaEngine

Progress = Callable[[float], None]

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

    def limited_by(self, target: "LlamaEngine", talk: Callable[[str], None]) -> Self:
        """The same with drafts that the loaded target can take back; `talk` hears if none."""
        limit = target.rollback_limit
        if limit is None or self.max_draft <= limit:
            return self
        if limit == 0:
            talk(
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
    if draft.rollback_limit == 0:
        raise ModelError(
            f"{draft.config.model.name} cannot draft: its memory cannot take back tokens; "
            "use an attention model of the same family"
        )
    difference = target.vocabulary.difference(draft.vocabulary)
    if difference:
        raise ModelError(
            f"{draft.config.model.name} cannot draft for {target.config.model.name}: {difference}; "
            "use a smaller model of the same family"
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
