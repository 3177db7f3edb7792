"""A sweep: every product of the requested values, without impossible ones, which have a reason.

Products run through settings first and through work last, so a table reads as llama-bench's. The
plan refuses what would fail in the engine, before anything is loaded.

The schedule visits cases in the order A B C C B A, with the anchor in between. A machine that warms
up or runs other programs then affects all cases alike. The anchor is the cheapest plain case; the
spread of its visits shows how far the machine drifted.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from localspec.bench.case import CURVE_WIDTHS, Case, Work
from localspec.bench.prediction import facts_of
from localspec.engine.timing import there_and_back
from localspec.errors import LocalspecError
from localspec.session.loading import plan_engines
from localspec.session.placing import check_memory
from localspec.session.session_config import SessionConfig
from localspec.settings import NONE


@dataclass(frozen=True, slots=True)
class Sweep:
    """Values of each option; `drafts`: who drafts for a model with a drafter, as
    `Settings.draft` has it; `with_curve` adds cases that time wider passes. `kv`: pairs of cache
    types; `settings`: values of others by name, the
    last name varying fastest. `adapt` applies the model's tuned settings to a configuration."""

    models: tuple[Path, ...]
    drafts: Mapping[tuple[Path, str], str] = field(default_factory=dict[tuple[Path, str], str])
    n_prompt: tuple[int, ...] = (512,)
    n_gen: tuple[int, ...] = (128,)
    depth: tuple[int, ...] = (0,)
    batch: tuple[int, ...] = (1,)
    kv: tuple[tuple[str, str], ...] = (("f16", "f16"),)
    settings: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])
    prompts: Path | None = None
    per_category: int = 3
    with_curve: bool = False
    adapt: Callable[[SessionConfig], SessionConfig] = lambda config: config

    def cases(self) -> Iterator[Case]:
        """All cases, possible or not, each once."""
        yield from dict.fromkeys(
            Case(self.adapt(config), work)
            for config in self._configs()
            for work in self._works(config)
        )

    def _configs(self) -> Iterator[SessionConfig]:
        for model, (kv_k, kv_v), chosen in product(self.models, self.kv, self._settings()):
            draft = self.drafts.get((model, chosen["spec"]))
            yield SessionConfig.of(model, draft, kv_k=kv_k, kv_v=kv_v, **chosen)

    def _settings(self) -> Iterator[dict[str, Any]]:
        for values in product(*self.settings.values()):
            chosen = {"spec": NONE, **dict(zip(self.settings, values, strict=True))}
            if chosen["spec"] == NONE:
                chosen.pop("draft_max", None)
            yield chosen

    def _works(self, config: SessionConfig) -> Iterator[Work]:
        """Real questions for drafters where there are any, else the products of lengths."""
        if self.prompts is not None:
            for n_gen in self.n_gen:
                yield Work(0, n_gen, prompts=self.prompts, per_category=self.per_category)
        if self.prompts is None or config.settings.spec == NONE:
            for depth, n_prompt, n_gen, batch in product(
                self.depth, self.n_prompt, self.n_gen, self.batch
            ):
                yield Work(n_prompt, n_gen, depth, batch)


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """The cases to measure, and the impossible ones with the reason."""

    cases: tuple[Case, ...]
    skipped: Mapping[Case, str]


def make_plan(sweep: Sweep) -> SweepPlan:
    """Skips a bad case; raises LocalspecError where a model cannot be read at all."""
    for model in sweep.models:
        facts_of(model)
    problems = {case: problem_of(case) for case in sweep.cases()}
    cases = [case for case, problem in problems.items() if problem is None]
    if sweep.with_curve:
        cases += [case for case in _curves(cases) if problem_of(case) is None]
    return SweepPlan(tuple(cases), {case: why for case, why in problems.items() if why})


def problem_of(case: Case) -> str | None:
    """A sentence on why this case cannot be measured here; None if it can."""
    return _contradiction(case) or _refusal(case)


def _contradiction(case: Case) -> str | None:
    work, spec = case.work, case.settings.spec
    if not (work.n_prompt or work.n_gen or work.widths):
        return "-p 0 and -n 0 leave nothing to measure"
    if spec != "none" and not work.prompts and (work.n_prompt or work.n_gen):
        return f"--spec {spec} on random tokens means nothing: give real text with --prompts"
    if work.batch > 1 and (spec != "none" or work.prompts):
        return "a batch of several sequences takes no drafts and no --prompts"
    limit = facts_of(case.config.model).n_ctx_train
    if limit is not None and work.n_ctx is not None and work.n_ctx > max(limit, 256):
        return f"it needs {work.n_ctx:,} tokens of context, and the model was trained for {limit:,}"
    return None


def _refusal(case: Case) -> str | None:
    """The sentence with which the session would refuse the case."""
    try:
        plan = plan_engines(case.session_config)
        if case.work.batch > 1:
            target = plan.target.with_settings(n_sequences=case.work.batch)
            check_memory([(target, plan.facts)])
    except LocalspecError as error:
        return str(error)
    return None


def _curves(cases: list[Case]) -> Iterator[Case]:
    """Verification curves: one for each model and depth, with the first plain settings.

    A curve needs an engine with room for drafts, and no reply.
    """
    seen: set[tuple[Path, int]] = set()
    for case in cases:
        key = case.config.model, case.work.depth
        if case.settings.spec == NONE and not case.work.prompts and key not in seen:
            seen.add(key)
            config = case.config.with_settings(spec="lookup", draft_max=max(CURVE_WIDTHS) - 1)
            yield Case(config, Work(0, 0, case.work.depth, widths=CURVE_WIDTHS))


ANCHOR_EVERY = 6
"""Visits between two visits to the anchor."""


@dataclass(frozen=True, slots=True)
class PlannedCase:
    """One visit; its place in the schedule identifies it, also after an interruption."""

    number: int
    case: Case
    is_anchor: bool


def schedule(cases: Sequence[Case], n_rounds: int) -> tuple[PlannedCase, ...]:
    """`n_rounds` visits to each case; the anchor first, last, and every few visits."""
    if not cases:
        return ()
    anchor = anchor_of(cases)
    order: list[Case] = [anchor]
    since = 0
    others = [case for case in cases if case != anchor]
    for one_round in there_and_back(others, n_rounds):
        for case in one_round:
            if since >= ANCHOR_EVERY:
                order.append(anchor)
                since = 0
            order.append(case)
            since += 1
        if len(order) > 1 or len(cases) == 1:
            order.append(anchor)
            since = 0
    if len(cases) == 1:
        order = order[1:]
    return tuple(PlannedCase(i, case, case == anchor) for i, case in enumerate(order))


def anchor_of(cases: Sequence[Case]) -> Case:
    """The plain case of least depth and batch; without a plain one, the first case."""

    def effort(case: Case) -> tuple[bool, bool, int, int]:
        work = case.work
        return (
            not work.n_gen,
            case.settings.spec != NONE or bool(work.prompts),
            work.depth,
            work.batch,
        )

    return min(cases, key=effort)
