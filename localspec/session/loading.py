"""From a session's configuration to loaded engines, with every check that needs no loading first.

The engine answers a bad combination with "failed to create context", some damaged files with an
abort, and missing memory with swapping; a check gives a sentence instead.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from localspec.engine.base import EngineConfig
from localspec.engine.health import engine_health
from localspec.engine.interrupt import Interrupt
from localspec.engine.threads import default_threads
from localspec.errors import ModelError, UserError
from localspec.gguf.header import Header
from localspec.gguf.reader import read_header
from localspec.model.facts import ModelFacts
from localspec.model.kind import kind_of
from localspec.model.kv import cache_type, types_of
from localspec.model.tokenizer import pair_problem
from localspec.model.usable import usable_facts
from localspec.notify import Notify, Progress
from localspec.session.drafting import HeadPlan, most_drafted, n_snapshots, planned_head
from localspec.session.placing import (
    Loaded,
    Need,
    check_devices,
    check_memory,
    computing_names,
    on_sound_devices,
    placed,
    warn_of_reading,
)
from localspec.session.session_config import SessionConfig
from localspec.session.trial import has_loaded, try_head, try_load
from localspec.settings import AUTO, NONE, Settings, Speculation

if TYPE_CHECKING:
    from localspec.engine.llama.parameters import EarlyWeights
    from localspec.engine.timing import TimedEngine


def checked_facts(model: Path) -> ModelFacts:
    """A file's facts. Raises ModelError if it is damaged, or no model that the engine loads."""
    return _checked(read_header(model), model)


def _checked(header: Header, model: Path) -> ModelFacts:
    facts = usable_facts(header, is_tried=has_loaded(model))
    problem = kind_of(header).engine_problem
    if problem:
        raise ModelError(f"{called(model)} {problem}")
    return facts


def called(model: Path) -> str:
    """The name of another program's file, which may be a mere hash; else the file's own."""
    if not model.name.startswith(_BLOB):
        return model.name
    from localspec.registry.local_models import found_models  # noqa: PLC0415 - for those alone

    return next((each.name for each in found_models() if each.path == model), model.name)


_BLOB = "sha256-"
"""How Ollama names files."""


def check_cache_types(settings: Settings, facts: ModelFacts) -> None:
    """Raise UserError where the cache types do not fit the model or each other."""
    attention = settings.attention
    problem = facts.kv_problem(*types_of(attention), flash_attention=attention.is_flash)
    if problem:
        raise UserError(problem)


DEFAULT_CTX = 4096


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What will be loaded: configuration and facts of the target and, if any, the draft model;
    or a draft head."""

    target: EngineConfig
    draft: EngineConfig | None
    max_draft: int
    """The longest draft; 0 without speculation."""
    facts: ModelFacts
    draft_facts: ModelFacts | None = None
    spec: Speculation = "auto"
    template: str = "auto"
    head: HeadPlan | None = None
    draft_device: str = AUTO

    @property
    def settings(self) -> Settings:
        """All settings in effect: the target's, with the drafter and its longest draft."""
        draft = self.head.draft if self.head else NONE
        draft = str(self.draft.model) if self.draft else draft
        return replace(
            self.target.settings,
            spec=self.spec if self.max_draft else NONE,
            draft=draft,
            draft_max=self.max_draft,
            draft_device=self.draft_device,
            template=self.template,
            threads_batch=self.target.n_threads_batch,
        )

    @property
    def computed_on(self) -> tuple[str, ...]:
        """Devices that hold layers of the target, the processor's last."""
        return computing_names(self.target.settings, self.facts.n_layers)

    @property
    def models(self) -> tuple[Loaded, ...]:
        """What is loaded, the target first."""
        target = (self.target, self.facts)
        draft = (self.draft, self.draft_facts) if self.draft and self.draft_facts else None
        return (target, draft) if draft else (target,)

    @property
    def beside(self) -> Need:
        """What a head takes."""
        return self.head.need(self.target, self.facts) if self.head else Need()

    def without_repacking(self) -> Self:
        """The same for an engine build that must not repack weights."""
        draft = self.draft and self.draft.with_settings(repack=False)
        return replace(self, target=self.target.with_settings(repack=False), draft=draft)

    def limited_by(self, target: "TimedEngine", notify: Notify) -> Self:
        """The same with drafts that the loaded target can roll back; `notify` hears if none."""
        limit = target.rollback_limit
        if limit is None or self.max_draft <= limit:
            return self
        if limit == 0:
            notify(
                f"speculation is off: {target.config.model.name} cannot roll back its state"
                " (its memory is recurrent)"
            )
        if limit:
            return replace(self, max_draft=limit)
        return replace(self, max_draft=0, draft=None, head=None)


def plan_engines(config: SessionConfig) -> EnginePlan:
    """Decide every setting and check for failures. Raises UserError or ModelError."""
    settings = config.settings.checked()
    check_devices(settings)
    header = read_header(config.model)
    facts = _checked(header, config.model)
    n_ctx = settings.ctx or min(DEFAULT_CTX, facts.n_ctx_train or DEFAULT_CTX)
    n_sequences = settings.n_sequences
    max_draft = most_drafted(settings, n_ctx)
    head = planned_head(settings, header, config.draft) if max_draft else None
    rolling = replace(
        settings,
        n_rs_seq=n_snapshots(settings, facts, max_draft),
        load_mtp=settings.load_mtp or bool(head and head.head.is_inside),
    )
    target = _engine_config(config.model, rolling, facts, n_ctx, n_sequences * (max_draft + 1))
    draft, draft_facts = None, None
    if config.draft is not None and not head and settings.spec in ("auto", "draft"):
        from localspec.session.draft_device import (  # noqa: PLC0415 - brings the forecast
            draft_settings,
        )

        draft_facts = checked_facts(config.draft)
        n_ctx = min(n_ctx, draft_facts.n_ctx_train or n_ctx)
        own = draft_settings(settings, draft_facts)
        draft = _engine_config(config.draft, own, draft_facts, n_ctx, n_sequences)
    plan = EnginePlan(
        target, draft, max_draft, facts, draft_facts, settings.spec, settings.template, head,
        settings.draft_device,
    )  # fmt: skip
    check_memory(plan.models, plan.beside)
    return plan


def sound_plan(config: SessionConfig, notify: Notify) -> EnginePlan:
    """The same for the engine build that is installed, which may not repack weights.

    Raises ModelError also for a file that this build would die of.
    """
    sound = on_sound_devices(config.settings, notify)
    plan = plan_engines(replace(config, settings=sound))
    plan = plan if engine_health(notify).can_repack else plan.without_repacking()
    for engine, facts in plan.models:
        try_load(engine.model, called(engine.model), facts, notify)
    if plan.head:
        try_head(plan.target.model, plan.facts, plan.head.facts, notify)
    if note := beyond_training(plan.facts, plan.target.n_ctx):
        notify(note)
    warn_of_reading(plan.models, notify, plan.beside)
    return plan


def beyond_training(facts: ModelFacts, n_ctx: int) -> str | None:
    """A sentence on a context that the model does not know, or knows by position scaling alone."""
    trained, scaled = facts.n_ctx_train, facts.n_ctx_scaled or 0
    if trained is None or n_ctx <= trained:
        return None
    asked = f"--ctx {n_ctx:,}: the model was trained on {trained:,} tokens"
    if n_ctx <= scaled:
        return f"{asked}, and its file's position scaling (YaRN or alike) reaches {scaled:,}"
    if scaled > trained:
        return f"{asked}, and text beyond the {scaled:,} that its file's YaRN reaches is worthless"
    return f"{asked}, and text beyond them is worthless: its file has no YaRN scaling"


def load_engine(
    config: EngineConfig,
    interrupt: Interrupt,
    on_progress: Progress,
    notify: Notify = lambda message: None,
    early: "EarlyWeights | None" = None,
) -> "TimedEngine":
    """Load one engine, or make it of weights that load already (`early`).

    With workers, whose loss would end its process, it is in one of its own.
    """
    if config.settings.workers:
        from localspec.engine.process import EngineProcess  # noqa: PLC0415 - seldom used

        return EngineProcess(config, interrupt, on_progress, notify)
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - loads libllama

    try:
        return LlamaEngine(config, interrupt, on_progress, early=early)
    except ModelError as error:
        reason = str(error).replace(config.model.name, called(config.model), 1)
        is_new = any(what in reason for what in _UNKNOWN)
        advice = ": it is newer than this engine, so get a newer one with scripts/setup"
        raise ModelError(f"{reason}{advice if is_new else ''}") from error


_UNKNOWN = ("unknown model architecture", "unknown pre-tokenizer")
"""How libllama says that it does not know a model of its future."""


def check_pair(target: "TimedEngine", draft: "TimedEngine") -> None:
    """ModelError where the draft cannot roll back, or its vocabulary is not the target's."""
    tokenizers = target.vocabulary.tokenizer, draft.vocabulary.tokenizer
    problem = pair_problem(*tokenizers, rolls_back=draft.rollback_limit != 0)
    if problem:
        raise ModelError(
            f"{draft.config.model.name} cannot draft for {target.config.model.name}: {problem}; "
            "use a smaller attention model of the same family"
        )


def _engine_config(
    model: Path, settings: Settings, facts: ModelFacts, n_ctx: int, n_outputs: int
) -> EngineConfig:
    """The settings with every open one decided."""
    # A quantized V cache exists only with flash attention, so "auto" has nothing left to decide.
    needs_flash = settings.flash_attn == "auto" and cache_type(settings.kv_v).is_quantized
    chosen = replace(
        settings.for_engine,
        ctx=n_ctx,
        threads=settings.threads or default_threads(),
        flash_attn="on" if needs_flash else settings.flash_attn,
    )
    check_cache_types(chosen, facts)
    return EngineConfig(model, placed(chosen, facts), n_outputs)
