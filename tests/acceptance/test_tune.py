"""`tune` finds what an exhaustive search finds, and is not slower than the defaults.

Tunes, then measures every setting of a grid (threads x flash attention x pairs of f16, bf16, q8_0
and q4_0) in the middle of the context, as quick turns beside the defaults; then, in turns again,
the defaults, the tuned setting and the three best that are allowed (KL divergence at most 0.01,
prompts at most twice as long).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import median

import pytest
from models import gemma, smollm2

from localspec.bench.statistics import Estimate, estimate
from localspec.engine.interrupt import Interrupt
from localspec.engine.threads import thread_counts
from localspec.quality.divergence import divergence_of, reference_of, shipped_text, windows_of
from localspec.session.session_config import SessionConfig
from localspec.settings import Attention, Settings
from localspec.tuning.search import search
from localspec.tuning.shared_weights import SharedWeights, gains_of, turns
from localspec.tuning.target import (
    MOST_PREFILL,
    Goal,
    TuneTarget,
    candidate_text,
    space_of,
)

pytestmark = pytest.mark.engine
N_CTX, BUDGET_S = 2048, 60.0
GRID_TURNS, FINAL_TURNS = 3, 24
WITHIN = 0.97
Measured = tuple[Settings, float, float]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The tuned setting's speed over the defaults', and over each of the three best."""

    tuned: Settings
    to_defaults: Estimate
    to_best: dict[str, Estimate]

    @property
    def text(self) -> str:
        best = ", ".join(f"{name} {gain.mid:.2f}" for name, gain in self.to_best.items())
        gain = f"{self.to_defaults.mid:.2f} x the defaults"
        return f"{candidate_text(self.tuned)}: {gain}; to the best: {best}"


@pytest.mark.parametrize(
    ("model", "least"), [(smollm2, 1.8), (gemma, 1.0)], ids=["smollm2", "gemma"]
)
def test_tuned_is_within_3_percent_of_the_three_best(
    model: Callable[[], Path], least: float
) -> None:
    """Reached on a machine left alone, 2026-11-25: SmolLM2 1.92 x the defaults and 1.03, 0.99,
    1.17 x the three best; Gemma 1.14 x and 1.02, 1.00, 1.06 x."""
    verdict = _verdict(model())
    print(verdict.text)
    high = verdict.to_defaults.high or verdict.to_defaults.mid
    assert high >= least, f"at least {least} x the defaults: {verdict.text}"
    assert all(gain.mid >= WITHIN for gain in verdict.to_best.values()), verdict.text


def _verdict(model: Path) -> Verdict:
    subject = TuneTarget.of(SessionConfig.of(model, spec="none", ctx=N_CTX), lambda message: None)
    outcome = search(subject, Goal(), BUDGET_S, lambda *news: None)
    with (
        Interrupt() as interrupt,
        SharedWeights(subject.config, outcome.setting.loading, interrupt) as shared,
        SharedWeights(subject.config, outcome.default.loading, interrupt) as plain,
    ):
        grid = _grid(subject, shared, plain, outcome.default)
        best = _allowed(shared, grid, outcome.default)
        return _final(subject, shared, plain, outcome.default, outcome.setting, best)


def _grid(
    subject: TuneTarget, shared: SharedWeights, plain: SharedWeights, default: Settings
) -> list[Measured]:
    """Every setting: speed to the defaults', and that of filling a cache."""
    depth, found = subject.middle, list[Measured]()
    base = plain.candidate(default, subject.n_ctx)
    base.fill(depth)
    space = space_of(Goal(), subject.facts, subject.build, lambda attention: None)
    for attention in space.attentions:
        candidate = shared.candidate(default.with_attention(attention), depth + 256)
        candidate.fill(depth)
        prefill = (candidate.fill_per_s or 1.0) / (base.fill_per_s or 1.0)
        for n_threads in thread_counts():
            candidate.engine.set_threads(n_threads, base.threads[1])
            base_s, candidate_s = turns([base, candidate], depth, GRID_TURNS)
            ratio = median(gains_of(base_s, candidate_s))
            setting = replace(default.with_attention(attention), threads=n_threads)
            found.append((setting, ratio, prefill))
            print(f"{candidate_text(setting)}: {ratio:.2f} x, prompts {prefill:.2f} x")
        shared.free(candidate)
    plain.free(base)
    return sorted(found, key=lambda row: -row[1])


def _allowed(shared: SharedWeights, grid: list[Measured], default: Settings) -> list[Settings]:
    """The three fastest whose quality and prompts are as the goal wants them."""
    windows = windows_of(shared.owner.vocabulary, shipped_text(), n_windows=4)
    with shared.reading(default.with_attention(Attention()), windows) as candidate:
        reference = reference_of(candidate.engine, candidate.context, windows)

    @cache
    def loss(attention: Attention) -> float:
        with shared.reading(default.with_attention(attention), windows) as candidate:
            return divergence_of(candidate.engine, candidate.context, windows, reference).kld

    quick = [setting for setting, _, prefill in grid if prefill >= 1 / MOST_PREFILL]
    allowed = (setting for setting in quick if loss(setting.attention) <= Goal().max_loss)
    return list(islice(allowed, 3))


def _final(
    subject: TuneTarget,
    shared: SharedWeights,
    plain: SharedWeights,
    default: Settings,
    tuned: Settings,
    best: list[Settings],
) -> Verdict:
    """All of them in turns, in the middle of the context."""
    candidates = [plain.candidate(default, subject.n_ctx)]
    candidates += [shared.candidate(setting, subject.n_ctx) for setting in (tuned, *best)]
    base_s, tuned_s, *best_s = turns(candidates, subject.middle, FINAL_TURNS)
    to_best = {
        candidate_text(s): _gain(times, tuned_s) for s, times in zip(best, best_s, strict=True)
    }
    return Verdict(tuned, _gain(base_s, tuned_s), to_best)


def _gain(base_s: list[float], other_s: list[float]) -> Estimate:
    return estimate([[gain] for gain in gains_of(base_s, other_s)])
