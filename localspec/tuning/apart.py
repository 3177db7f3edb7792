"""Tune a model: in this process, or with workers in one of its own.

    python -m localspec.tuning.apart REQUEST

libllama ends its process where a worker is lost. A search loads and frees several engines, so all
of it stands behind the pipe, and not each of them as in a session (`engine.process`). The child
prints one line for each notice, stage and the result: pickled, in base64.
"""

import base64
import pickle
import sys
from collections.abc import Callable
from typing import Any

from localspec.engine.base import EngineConfig
from localspec.engine.child import run_module
from localspec.engine.interrupt import Interrupt
from localspec.errors import EngineError, UserError
from localspec.notify import Notify, silent
from localspec.session.config import SessionConfig
from localspec.session.loading import checked_facts
from localspec.session.profile import LEAST_BUDGET_S, MOST_BUDGET_S, Profile
from localspec.tuning.search import Outcome, Tuned, tune_here
from localspec.tuning.state import SearchListener
from localspec.tuning.target import Goal, TuneTarget

MODULE = "localspec.tuning.apart"


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
    found: list[tuple[EngineConfig, Outcome, Profile]] = []
    heard: dict[str, Callable[..., None]] = {
        "notify": notify,
        "listen": listen,
        "tuned": lambda *parts: found.append(parts),
    }

    def on_line(line: str) -> None:
        kind, *values = _read(line)
        heard[kind](*values)

    with Interrupt() as interrupt:  # the child hears Ctrl-C, too, and ends with what is proven
        ending = run_module(MODULE, [_written(config, goal, budget_s)], on_line)
        ending.raise_known()
        if interrupt.requested and not found:
            raise KeyboardInterrupt
    if not found:
        workers = ", ".join(config.settings.workers)
        raise EngineError(
            f"the engine with {workers} was lost ({ending.reason}), and nothing was kept: start the"
            " worker again, and tune again"
        )
    tuned, outcome, profile = found[0]
    return Tuned(TuneTarget(tuned, checked_facts(tuned.model)), outcome, profile)


def _written(*values: Any) -> str:
    return base64.b64encode(pickle.dumps(values)).decode()


def _read(text: str) -> Any:
    """Of this program's own parent or child."""
    return pickle.loads(base64.b64decode(text))


def main() -> int:
    def say(kind: str, *values: Any) -> None:
        sys.stdout.write(_written(kind, *values) + "\n")
        sys.stdout.flush()

    config, goal, budget_s = _read(sys.argv[1])
    tuned = tune_here(
        config,
        goal,
        budget_s,
        lambda message: say("notify", message),
        lambda stage, best, gain: say("listen", stage, best, gain),
    )
    say("tuned", tuned.subject.config, tuned.outcome, tuned.profile)
    return 0


if __name__ == "__main__":
    sys.exit(main())
