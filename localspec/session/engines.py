"""The plan of a session with what is fastest here, and its draft head."""

from dataclasses import replace
from typing import TYPE_CHECKING

from localspec.dialogue.renderer import RENDERER
from localspec.errors import EngineError
from localspec.notify import Notify
from localspec.session.asking import SessionConfig
from localspec.session.automatic import chosen_plan
from localspec.session.chat_template import choose_template
from localspec.session.loading import EnginePlan, sound_plan
from localspec.session.offer import offered

if TYPE_CHECKING:
    from localspec.engine.timing import TimedEngine, TimedHead


def load_head(
    plan: EnginePlan, target: "TimedEngine", notify: Notify
) -> "tuple[EnginePlan, TimedHead | None]":
    """The plan's draft head, or a sentence why this engine goes on without."""
    assert plan.head
    try:
        return plan, target.head(plan.head.facts, plan.max_draft)
    except EngineError as error:
        notify(f"drafts of {plan.head.name} are off: {error}")
        return replace(plan, head=None), None


def ready_plan(config: SessionConfig, notify: Notify) -> EnginePlan:
    """A sound plan in which everything that was left open is as it is fastest here."""
    plan = chosen_plan(sound_plan(config, notify), config, notify)
    if told := offered(plan, config):
        notify(told)
    return plan


def talking_plan(config: SessionConfig, notify: Notify) -> EnginePlan:
    """A ready plan whose chat template has been compiled."""
    RENDERER.start()
    plan = ready_plan(config, notify)
    choose_template(plan.facts.tokenizer, plan.template).compiled()
    return plan
