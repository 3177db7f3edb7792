"""The engines of a session, each loaded the way that is fastest here."""

from dataclasses import replace

from localspec.dialogue.renderer import RENDERER
from localspec.engine.base import EngineConfig
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.timing import TimedEngine, TimedHead
from localspec.errors import EngineError
from localspec.notify import Notify, Progress
from localspec.session import attention
from localspec.session.calibration import fastest_draft
from localspec.session.chat_template import choose_template
from localspec.session.config import SessionConfig
from localspec.session.loading import EnginePlan, load_engine, sound_plan


def load_target(
    plan: EnginePlan,
    config: SessionConfig,
    interrupt: Interrupt,
    on_progress: Progress,
    notify: Notify,
) -> tuple[EnginePlan, TimedEngine]:
    """The target with the attention that is fastest here, where that is left open."""

    def load(config: EngineConfig) -> TimedEngine:
        return load_engine(config, interrupt, on_progress, notify)

    if not (config.is_auto and attention.is_open(plan.target, plan.facts)):
        return plan, load(plan.target)
    chosen, target = attention.fastest(plan.target, load, notify)
    return replace(plan, target=chosen), target


def load_draft(plan: EnginePlan, interrupt: Interrupt) -> tuple[EnginePlan, TimedEngine]:
    """The draft with the attention that drafts fastest. Raises Interrupted on request."""

    def load(config: EngineConfig) -> TimedEngine:
        if interrupt.requested:
            raise Interrupted
        return load_engine(config, interrupt, lambda fraction: None)

    assert plan.draft
    config = fastest_draft(plan.draft, load)
    return replace(plan, draft=config), load(config)


def load_head(
    plan: EnginePlan, target: TimedEngine, notify: Notify
) -> tuple[EnginePlan, TimedHead | None]:
    """The plan's draft head, or a sentence why this engine goes on without."""
    assert plan.head
    try:
        return plan, target.head(plan.head.facts, plan.max_draft)
    except EngineError as error:
        notify(f"drafts of {plan.head.name} are off: {error}")
        return replace(plan, head=None), None


def talking_plan(config: SessionConfig, notify: Notify) -> EnginePlan:
    """A sound plan whose chat template has been compiled."""
    RENDERER.start()
    plan = sound_plan(config, notify)
    choose_template(plan.facts.tokenizer, plan.template).compiled()
    return plan
