"""A session that opens: its plan is made and its weights load while the rest is imported.

with opening(config, notify) as begun:
    from localspec.session.session import Session       # NumPy, drafters, the dialogue
    session = Session.opened(begun)

Its plan has what is fastest here, and its draft head.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from localspec.dialogue.renderer import RENDERER
from localspec.engine.interrupt import Interrupt
from localspec.errors import EngineError
from localspec.hardware.activity import Watch
from localspec.notify import Notify, Progress, silent
from localspec.session.asking import SessionConfig
from localspec.session.automatic import chosen_plan
from localspec.session.chat_template import choose_template
from localspec.session.loading import EnginePlan, sound_plan
from localspec.session.offer import offered

if TYPE_CHECKING:
    from localspec.engine.llama.parameters import EarlyWeights
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


SMALL_BYTES = 1 << 30
"""What loads in less than a second: nobody watches that or interrupts it."""


@dataclass(frozen=True, slots=True)
class Begun:
    """What a session is made of. `early` None: its engine loads where it is made."""

    config: SessionConfig
    plan: EnginePlan
    interrupt: Interrupt
    notify: Notify
    on_progress: Progress
    early: "EarlyWeights | None"
    watch: Watch
    """On the machine since loading began."""


@contextmanager
def opening(
    config: SessionConfig,
    notify: Notify = silent,
    on_progress: Progress = lambda fraction: None,
    *,
    talks: bool = False,
) -> Generator[Begun]:
    """Check what can be checked without loading, then begin to load.

    What is not taken by `Session.opened` is freed at the end. `talks`: the chat template will be
    used, so that a broken one costs no loading. Raises LocalspecError.
    """
    plan = talking_plan(config, notify) if talks else ready_plan(config, notify)
    with Interrupt() as interrupt:
        early, watch = _begun(plan, interrupt, on_progress), Watch()
        try:
            yield Begun(config, plan, interrupt, notify, on_progress, early, watch)
        finally:
            if early:
                early.drop()


def _begun(plan: EnginePlan, interrupt: Interrupt, on_progress: Progress) -> "EarlyWeights | None":
    """None for an engine that stands in another process."""
    if plan.target.settings.workers:
        return None
    from localspec.engine.llama.parameters import EarlyWeights  # noqa: PLC0415 - loads libllama

    is_small = plan.facts.weight_bytes < SMALL_BYTES
    return EarlyWeights(plan.target, interrupt, None if is_small else on_progress)
