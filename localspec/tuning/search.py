"""The search from end to end, within a budget; it has an answer whenever it ends.

    threads, loading     a few turns beside the defaults (screening)
    cache                all candidates, screened at a shallow depth (screening)
    finalists            successive halving in the middle of the context (screening)
    quality, duel        the best one that passes, over depths, against the defaults (duel)
    prompts              batch threads and micro-batches (duel)
    drafts               none, lookup and a draft model (duel)

The defaults stay where nothing is significantly better. The outcome becomes a profile that later
commands use.

It runs in this process, or with workers in one of its own: libllama ends its process where a worker
is lost. A search loads and frees several engines, so all
of it is called in a child, and not each of them stands behind a pipe as in a session
(`engine.process`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from localspec.bench.statistics import Estimate
from localspec.engine.base import EngineConfig
from localspec.engine.child import Say, call
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.timing import Clock
from localspec.errors import EngineError, UserError
from localspec.notify import Notify, silent
from localspec.session.loading import checked_facts, plan_engines
from localspec.session.profile import LEAST_BUDGET_S, MOST_BUDGET_S, Profile, TunedFor, save_profile
from localspec.session.session_config import SessionConfig
from localspec.settings import NONE, ROWS, Attention, Settings
from localspec.tuning.duel import Gate, duel, tune_drafts, tune_prompts
from localspec.tuning.screening import better_threads, halve, screen, try_loadings, tune_threads
from localspec.tuning.state import SearchListener, SearchState, Trial
from localspec.tuning.target import Goal, TuneTarget, candidate_of, is_coarser, space_of

THREADS, LOADING, CACHE, HALVING, GATE, DUEL, PROMPTS = 0.06, 0.12, 0.42, 0.55, 0.76, 0.86, 0.9
"""Shares of the budget by which each stage should end."""
NO_GAIN = Estimate(1.0, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A search's result. `winner` None: the defaults stay, and `ratio` is 1.

    `ratio`: decoding speed over the defaults'. `tried`: all candidates; `excluded`: those that a
    rule excludes, with its reason. `speculation`: settings of the drafter.
    """

    default: Settings
    winner: Trial | None
    seconds: float
    tried: tuple[Trial, ...]
    excluded: dict[Attention, str] = field(default_factory=dict[Attention, str])
    speculation: Mapping[str, Any] = field(default_factory=dict[str, Any])
    notes: tuple[str, ...] = ()
    is_interrupted: bool = False

    @property
    def setting(self) -> Settings:
        return self.winner.setting if self.winner else self.default

    @property
    def ratio(self) -> Estimate:
        return self.winner.gain if self.winner else NO_GAIN

    @property
    def kld(self) -> float | None:
        """Loss of the cache types, in nats a token; 0 without a change, None if not measured."""
        if self.winner is None:
            return 0.0
        return self.winner.quality.kld if self.winner.quality else None


def search(
    subject: TuneTarget, goal: Goal, budget_s: float, listen: SearchListener, draft: str = NONE
) -> Outcome:
    """Tune; Ctrl-C ends the search with the best proven candidate. `draft` is as in `Settings`.

    Raises LocalspecError where the defaults cannot be measured, KeyboardInterrupt on an earlier
    Ctrl-C.
    """
    clock, interrupt = Clock(budget_s), Interrupt()
    space = space_of(goal, subject.facts, subject.build, subject.predicted_s)
    with interrupt:
        try:
            work = SearchState(subject, goal, clock, interrupt, listen)
        except Interrupted:
            raise KeyboardInterrupt from None
        default, winner = candidate_of(subject.config), None
        is_interrupted, way = False, dict[str, Any]()
        with work.stack:
            try:
                tune_threads(work, THREADS)
                try_loadings(work, LOADING)
                screen(work, space, CACHE)
                halve(work, HALVING)
                winner = _settled(work)
                way = tune_drafts(work, winner.setting if winner else default, draft)
            except Interrupted:
                is_interrupted = True
                proven = [trial for trial in work.trials if trial.wins(goal)]
                winner = winner or min(proven, key=lambda trial: trial.rank(goal), default=None)
    return Outcome(
        default=default,
        winner=winner,
        seconds=clock.spent_s,
        tried=tuple(work.trials),
        excluded=dict(space.excluded),
        speculation=way,
        notes=tuple(work.notes),
        is_interrupted=is_interrupted,
    )


def _settled(work: SearchState) -> Trial | None:
    """The best trial that passes the gate and then wins the duel with the defaults."""
    gate, goal, refused = Gate(work, GATE), work.goal, list[Attention]()
    loading = work.shared.loading
    here = [trial for trial in work.trials if trial.setting.loading == loading]
    ranked = [trial for trial in here if trial.gains and not trial.is_refused(goal)]
    for trial in sorted(ranked, key=lambda trial: (not trial.is_finalist, trial.rank(goal))):
        if trial.gain.mid < goal.least_ratio:
            break
        if any(is_coarser(trial.setting.attention, bad) for bad in refused):
            continue
        judged = gate.judge(trial)
        if trial.is_refused(goal):
            refused.append(trial.setting.attention)
        if trial.is_refused(goal) or not (judged or trial.setting.attention.is_exact):
            continue
        _refine_threads(work, trial)
        duel(work, trial, DUEL)
        if trial.wins(goal):
            return tune_prompts(work, trial, PROMPTS)
        if work.clock.until(DUEL) < 0:
            break
    return None


def _refine_threads(work: SearchState, trial: Trial) -> None:
    """Choose the threads again with the trial's cache."""
    candidate = work.candidate_for(trial)
    n, gains = better_threads(work, candidate, max(1, len(candidate.context.tokens)), DUEL)
    if gains:
        candidate.setting = trial.setting = replace(trial.setting, threads=n)
        candidate.engine.set_threads(*candidate.threads)


def changed_settings(outcome: Outcome) -> dict[str, Any]:
    """The settings of a profile: those that beat the defaults."""
    tuned, default = outcome.setting, outcome.default
    changed = {
        name: getattr(tuned, name)
        for name, row in ROWS.items()
        if row.is_tuned and getattr(tuned, name) != getattr(default, name)
    }
    # Decoding and prompts have their own numbers of threads: neither must follow the other.
    if "threads" in changed:
        changed["threads_batch"] = tuned.threads_batch
    unchanged = Settings()
    drafting = {n: v for n, v in outcome.speculation.items() if v != getattr(unchanged, n)}
    return changed | drafting


def _kept(outcome: Outcome, model: Path, config: EngineConfig, goal: Goal) -> Profile:
    """The profile of an outcome, which is saved."""
    ratio = outcome.ratio
    profile = Profile(
        model=model.name,
        taken=f"{datetime.now(UTC):%Y-%m-%d}",
        n_ctx=config.n_ctx,
        goal=goal.name,
        circumstances=TunedFor.now(),
        settings=changed_settings(outcome),
        ratio=(ratio.low or ratio.mid, ratio.mid, ratio.high or ratio.mid),
        kld=outcome.kld,
        seconds=round(outcome.seconds, 1),
    )
    save_profile(model, profile)
    return profile


@dataclass(frozen=True, slots=True)
class Tuned:
    """A model, the search's outcome for it, and the saved profile."""

    subject: TuneTarget
    outcome: Outcome
    profile: Profile


def tune_here(
    config: SessionConfig, goal: Goal, budget_s: float, notify: Notify, listen: SearchListener
) -> Tuned:
    """Tune a model in this process, which the loss of a worker would end.

    Raises LocalspecError, or KeyboardInterrupt on Ctrl-C before any candidate was proven.
    """
    plan_engines(config.with_settings(spec="auto"))
    subject = TuneTarget.of(config.with_settings(spec=NONE), notify)
    outcome = search(subject, goal, budget_s, listen, config.settings.draft)
    if outcome.is_interrupted and outcome.winner is None:
        raise KeyboardInterrupt
    return Tuned(subject, outcome, _kept(outcome, config.model, subject.config, goal))


CHILD = "localspec.tuning.search:tune"


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
