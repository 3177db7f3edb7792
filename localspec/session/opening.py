"""A session that opens: its plan is made and its weights load while the rest is imported.

with opening(config, notify) as begun:
    from localspec.session.session import Session       # NumPy, drafters, the dialogue
    session = Session.opened(begun)
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from localspec.engine.interrupt import Interrupt
from localspec.notify import Notify, Progress, silent
from localspec.session.asking import SessionConfig
from localspec.session.engines import ready_plan, talking_plan
from localspec.session.loading import EnginePlan

if TYPE_CHECKING:
    from localspec.engine.llama.early import EarlyWeights


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
    started: float


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
    started = perf_counter()
    with Interrupt() as interrupt:
        early = _begun(plan, interrupt, on_progress)
        try:
            yield Begun(config, plan, interrupt, notify, on_progress, early, started)
        finally:
            if early:
                early.drop()


def _begun(plan: EnginePlan, interrupt: Interrupt, on_progress: Progress) -> "EarlyWeights | None":
    """None for an engine that stands in another process."""
    if plan.target.settings.workers:
        return None
    from localspec.engine.llama.early import EarlyWeights  # noqa: PLC0415 - loads libllama

    is_small = plan.facts.weight_bytes < SMALL_BYTES
    return EarlyWeights(plan.target, interrupt, None if is_small else on_progress)
