"""Tune a model: in this process, or with workers in one of its own.

libllama ends its process where a worker is lost. A search loads and frees several engines, so all
of it is called in a child, and not each of them stands behind a pipe as in a session
(`engine.process`).
"""

from functools import partial

from localspec.engine.base import EngineConfig
from localspec.engine.child import Say, call
from localspec.engine.interrupt import Interrupt
from localspec.errors import EngineError, UserError
from localspec.notify import Notify, silent
from localspec.session.config import SessionConfig
from localspec.session.loading import checked_facts
from localspec.session.profile import LEAST_BUDGET_S, MOST_BUDGET_S, Profile
from localspec.tuning.search import Outcome, Tuned, tune_here
from localspec.tuning.state import SearchListener
from localspec.tuning.target import Goal, TuneTarget

CHILD = "localspec.tuning.apart:tune"


def tune_model(
    config: SessionConfig,
    goal: Goal,
    budget_s: float,
    notify: Notify = silent,
    listen: SearchListener = lambda stage, best, gain: None,
) -> Tuned:
    """Tune a model, with the context and draft of `config`, and save the profile.

    Raises LocalspecError, EngineError also where a worker is lost, or KeyboardInterrupt on Ctrl-C
    before any candidate was proven.
    """
    if not LEAST_BUDGET_S <= budget_s <= MOST_BUDGET_S:
        bounds = f"{LEAST_BUDGET_S:g} and {MOST_BUDGET_S:g}"
        raise UserError(f"a budget of {budget_s:g} s is not between {bounds}")
    if not config.settings.workers:
        return tune_here(config, goal, budget_s, notify, listen)
    heard = {"notify": notify, "listen": listen}
    with Interrupt() as interrupt:  # the child hears Ctrl-C, too, and ends with what is proven
        ending = call(
            CHILD, config, goal, budget_s, hear=lambda kind, *values: heard[kind](*values)
        )
        ending.raise_known()
        if interrupt.requested and not ending.result:
            raise KeyboardInterrupt
    if not ending.result:
        workers = ", ".join(config.settings.workers)
        raise EngineError(
            f"the engine with {workers} was lost ({ending.reason}), and nothing was kept: start the"
            " worker again, and tune again"
        )
    tuned, outcome, profile = ending.result
    return Tuned(TuneTarget(tuned, checked_facts(tuned.model)), outcome, profile)


def tune(
    config: SessionConfig, goal: Goal, budget_s: float, say: Say
) -> tuple[EngineConfig, Outcome, Profile]:
    """The child's part."""
    tuned = tune_here(config, goal, budget_s, partial(say, "notify"), partial(say, "listen"))
    return tuned.subject.config, tuned.outcome, tuned.profile
