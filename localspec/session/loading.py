"""From a session's configuration to loaded engines, with every check that needs no loading first.

The engine answers a bad combination with "failed to create context", some damaged files with an
abort, and missing memory with swapping; a check gives a sentence instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from localspec.engine.base import EngineConfig
from localspec.engine.device_health import sound_devices
from localspec.engine.devices import engine_reports, free_bytes, graphics
from localspec.engine.health import engine_health
from localspec.engine.interrupt import Interrupt
from localspec.engine.workers import Worker, check_types, devices_of
from localspec.errors import ModelError, UserError
from localspec.gguf.reader import read_header
from localspec.hardware.detect import available_memory_bytes, usable_cores
from localspec.model.facts import ModelFacts
from localspec.model.kv import cache_type, types_of
from localspec.model.tokenizer import pair_problem
from localspec.model.usable import usable_facts
from localspec.notify import Notify, Progress
from localspec.prediction.memory import layers_that_fit, memory_of
from localspec.session.config import SessionConfig
from localspec.settings import NONE, Settings, Speculation

if TYPE_CHECKING:
    from localspec.engine.llama.engine import LlamaEngine
    from localspec.engine.process import EngineProcess

    AnyEngine = LlamaEngine | EngineProcess


_BUFFERS_BYTES = 200_000_000
"""Compute buffers and the process itself; the engine needs about this much for small models."""


def checked_facts(model: Path) -> ModelFacts:
    """A file's facts. Raises ModelError if it is damaged or no language model."""
    return usable_facts(read_header(model))


def check_cache_types(settings: Settings, facts: ModelFacts) -> None:
    """Raise UserError where the cache types do not fit the model or each other."""
    attention = settings.attention
    problem = facts.kv_problem(*types_of(attention), flash_attention=attention.is_flash)
    if problem:
        raise UserError(problem)


def _check_devices(settings: Settings) -> None:
    """Raise UserError for a device that the engine does not have, or a worker that is not there."""
    if not settings.device and not settings.workers:
        return
    far = [device for worker in settings.workers for device in devices_of(Worker.of(worker))]
    known = [device.name for device in (*(engine_reports() or []), *far)]
    unknown = [name for name in settings.device if name not in known]
    if unknown:
        raise UserError(f"no device {unknown[0]!r}: the engine has {', '.join(known) or 'none'}")
    if settings.workers:
        check_types(settings.kv_k, settings.kv_v)


def check_memory(caches: Sequence[tuple[EngineConfig, ModelFacts]]) -> None:
    """Raise UserError where the caches together do not fit into the memory that is free now.

    Mapped weights can be dropped and read again, so they do not count. Caches on a GPU with memory
    of its own do not either: the engine asks the device.
    """
    on_host = [pair for pair in caches if not _has_own_memory(pair[0].settings)]
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


def _has_own_memory(settings: Settings) -> bool:
    """Whether the caches go to a device that does not share the machine's memory."""
    used = graphics(settings.device, settings.workers) if settings.gpu_layers else []
    return bool(used) and not any(device.shares_memory for device in used)


def _cache_bytes(config: EngineConfig, facts: ModelFacts) -> int:
    """Bytes of the K and V caches and of states; 0 for what an architecture keeps of its own."""
    settings = config.settings
    n_windowed = (facts.window_tokens or 0) + settings.ubatch
    n_cells = config.n_ctx * settings.n_sequences
    keys = facts.kv_bytes(n_cells, *types_of(settings.attention), n_windowed=n_windowed) or 0
    n_states = settings.n_sequences * (1 + settings.n_rs_seq)
    return keys + n_states * (facts.state_bytes or 0)


DEFAULT_CTX = 4096
DEFAULT_DRAFT = 3
AUTO_DRAFT = 16
"""The longest draft that is chosen without a cap."""
SNAPSHOTS_BYTES, FEW_SNAPSHOTS = 512_000_000, 4
"""What states to roll back to may take unasked, and how many where a state's size is unknown."""


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What will be loaded: configuration and facts of the target and, if any, the draft."""

    target: EngineConfig
    draft: EngineConfig | None
    max_draft: int
    """The longest draft; 0 without speculation."""
    facts: ModelFacts
    draft_facts: ModelFacts | None = None
    spec: Speculation = "auto"

    @property
    def settings(self) -> Settings:
        """All settings in effect: the target's, with the drafter and its longest draft."""
        draft = str(self.draft.model) if self.draft else NONE
        return replace(
            self.target.settings,
            spec=self.spec if self.max_draft else NONE,
            draft=draft,
            draft_max=self.max_draft,
            threads_batch=self.target.n_threads_batch,
        )

    def without_repacking(self) -> Self:
        """The same for an engine build that must not repack weights."""
        draft = self.draft and self.draft.with_settings(repack=False)
        return replace(self, target=self.target.with_settings(repack=False), draft=draft)

    def limited_by(self, target: "AnyEngine", notify: Notify) -> Self:
        """The same with drafts that the loaded target can roll back; `notify` hears if none."""
        limit = target.rollback_limit
        if limit is None or self.max_draft <= limit:
            return self
        if limit == 0:
            notify(
                f"speculation is off: {target.config.model.name} cannot roll back its state"
                " (its memory is recurrent)"
            )
        return replace(self, max_draft=limit, draft=self.draft if limit else None)


def plan_engines(config: SessionConfig) -> EnginePlan:
    """Decide every setting and check for failures. Raises UserError or ModelError."""
    settings = config.settings.checked()
    _check_devices(settings)
    max_draft = _max_draft(config)
    facts = checked_facts(config.model)
    n_ctx = settings.ctx or min(DEFAULT_CTX, facts.n_ctx_train or DEFAULT_CTX)
    rolling = replace(settings, n_rs_seq=_n_snapshots(settings, facts, max_draft))
    target = _engine_config(config.model, rolling, facts, n_ctx, max_draft + 1)
    draft, draft_facts = None, None
    if config.draft is not None and settings.spec in ("auto", "draft"):
        draft_facts = checked_facts(config.draft)
        n_ctx = min(n_ctx, draft_facts.n_ctx_train or n_ctx)
        draft = _engine_config(config.draft, settings, draft_facts, n_ctx, 1)
    caches = [(target, facts)]
    if draft and draft_facts:
        caches.append((draft, draft_facts))
    check_memory(caches)
    return EnginePlan(target, draft, max_draft, facts, draft_facts, settings.spec)


def sound_plan(config: SessionConfig, notify: Notify) -> EnginePlan:
    """The same for the engine build that is installed, which may not repack weights."""
    plan = plan_engines(_on_sound_devices(config, notify))
    return plan if engine_health(notify).can_repack else plan.without_repacking()


def _on_sound_devices(config: SessionConfig, notify: Notify) -> SessionConfig:
    """The same without devices that compute wrong numbers."""
    settings = config.settings
    used = graphics(settings.device, settings.workers) if settings.gpu_layers else []
    sound = sound_devices(used, notify)
    if len(sound) == len(used):
        return config
    names = tuple(device.name for device in sound)
    return config.with_settings(device=names, gpu_layers=settings.gpu_layers if names else 0)


def load_engine(
    config: EngineConfig,
    interrupt: Interrupt,
    on_progress: Progress,
    notify: Notify = lambda message: None,
) -> "AnyEngine":
    """Load one engine; with workers, whose loss would end its process, in one of its own."""
    if config.settings.workers:
        from localspec.engine.process import EngineProcess  # noqa: PLC0415 - seldom used

        return EngineProcess(config, interrupt, on_progress, notify)
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - loads libllama

    return LlamaEngine(config, interrupt, on_progress)


def check_pair(target: "AnyEngine", draft: "AnyEngine") -> None:
    """ModelError where the draft cannot roll back, or its vocabulary is not the target's."""
    tokenizers = target.vocabulary.tokenizer, draft.vocabulary.tokenizer
    problem = pair_problem(*tokenizers, rolls_back=draft.rollback_limit != 0)
    if problem:
        raise ModelError(
            f"{draft.config.model.name} cannot draft for {target.config.model.name}: {problem}; "
            "use a smaller attention model of the same family"
        )


def _max_draft(config: SessionConfig) -> int:
    settings = config.settings
    if settings.spec == "draft" and config.draft is None:
        raise UserError("--spec draft needs a draft model: name one with --draft")
    if settings.spec == NONE:
        return 0
    return settings.draft_max or (AUTO_DRAFT if settings.spec == "auto" else DEFAULT_DRAFT)


def _n_snapshots(settings: Settings, facts: ModelFacts, max_draft: int) -> int:
    """States to keep for drafts of that length; the engine needs none where there is no state."""
    if settings.n_rs_seq or not max_draft:
        return settings.n_rs_seq
    most = min(max_draft, settings.ubatch // settings.n_sequences - 1)
    if settings.draft_max or facts.state_bytes == 0:
        return most
    if facts.state_bytes is None:
        return min(most, FEW_SNAPSHOTS)
    return min(most, SNAPSHOTS_BYTES // (facts.state_bytes * settings.n_sequences))


def _engine_config(
    model: Path, settings: Settings, facts: ModelFacts, n_ctx: int, n_outputs: int
) -> EngineConfig:
    """The settings with every open one decided."""
    # A quantized V cache exists only with flash attention, so "auto" has nothing left to decide.
    needs_flash = settings.flash_attn == "auto" and cache_type(settings.kv_v).is_quantized
    chosen = replace(
        settings.for_engine,
        ctx=n_ctx,
        threads=settings.threads or usable_cores(),
        flash_attn="on" if needs_flash else settings.flash_attn,
    )
    check_cache_types(chosen, facts)
    return EngineConfig(model, replace(chosen, gpu_layers=_gpu_layers(chosen, facts)), n_outputs)


def _gpu_layers(settings: Settings, facts: ModelFacts) -> int:
    """As asked for, or as many as fit on the GPUs that are here; 0 where none is."""
    devices = graphics(settings.device, settings.workers) if settings.gpu_layers else []
    if not devices or settings.gpu_layers > 0:
        return settings.gpu_layers if devices else 0
    assert settings.ctx
    n_sequences = settings.n_sequences
    needed = memory_of(facts, settings.attention, settings.ctx, n_sequences=n_sequences).total_bytes
    return layers_that_fit(facts.n_layers, needed, free_bytes(devices))
