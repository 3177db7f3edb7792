"""Does `tune` find what an exhaustive search finds, and is it faster than the defaults?

    scripts/check-tune [--model smollm2|gemma] [--ctx 2048] [--budget 60] [--json]

Tunes, then measures every setting of a grid (threads x flash attention x pairs of f16, bf16, q8_0
and q4_0) in the middle of the context, as quick turns beside the defaults; then, in turns again,
the defaults, the tuned setting and the three best that are allowed (KL divergence at most 0.01,
prompts at most twice as long). The tuned one must be within 3 % of each of the three and not
slower than the defaults.
"""

import json
from dataclasses import replace
from statistics import median
from time import perf_counter
from typing import Annotated, Any, Literal

import typer
from _models import gemma, smollm2

from localspec.bench.statistics import Estimate, estimate
from localspec.engine.interrupt import Interrupt
from localspec.quality import divergence_of, reference_of, shipped_text, windows_of
from localspec.quality.evaluate import n_outputs_for
from localspec.session.config import SessionConfig
from localspec.tune.search import search
from localspec.tune.shared_weights import Candidate, SharedWeights, turns
from localspec.tune.space import space_of, thread_counts
from localspec.tune.state import News, SearchListener
from localspec.tune.target import MOST_PREFILL, Attention, Goal, Setting, TuneTarget

MODELS = {"smollm2": smollm2, "gemma": gemma}
GRID_TURNS, FINAL_TURNS = 3, 24
WITHIN = 0.97


def main(
    model: Annotated[Literal["smollm2", "gemma"], typer.Option()] = "smollm2",
    ctx: Annotated[int, typer.Option()] = 2048,
    budget: Annotated[float, typer.Option()] = 60.0,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Tune, search exhaustively, compare; exit code 1 where the goals are missed."""
    subject = TuneTarget.of(SessionConfig.of(MODELS[model](), spec="none", ctx=ctx), typer.echo)
    started = perf_counter()
    outcome = search(subject, Goal(), budget, _listener())
    took_s = perf_counter() - started
    say(f"tuned in {took_s:.1f} s: {outcome.setting.text}, {_interval(outcome.ratio)}")
    with (
        Interrupt() as interrupt,
        SharedWeights(subject.config, outcome.setting.loading, interrupt) as rig,
        SharedWeights(subject.config, outcome.default.loading, interrupt) as plain,
    ):
        grid = _grid(subject, rig, plain, outcome.default)
        best = _allowed(rig, grid, outcome.default)
        final = _final(subject, rig, plain, outcome.default, outcome.setting, best)
    document = {
        "model": model,
        "tuned": outcome.setting.text,
        "tune_s": took_s,
        "said": _interval(outcome.ratio),
        "kld": outcome.kld,
        **final,
        "grid": [{"setting": s.text, "ratio": r, "prefill": p} for s, r, p in grid],
    }
    _report(document, as_json=as_json)
    if not document["is_met"]:
        raise typer.Exit(1)


def _listener() -> "SearchListener":
    """Says each stage once."""
    seen: set[str] = set()

    def listen(news: News) -> None:
        if news.stage not in seen:
            seen.add(news.stage)
            say(f"  {news.stage}; best so far {news.best.text if news.best else '-'}")

    return listen


def say(message: str) -> None:
    typer.echo(message, err=True)


Measured = tuple[Setting, float, float]


def _grid(
    subject: TuneTarget, rig: SharedWeights, plain: SharedWeights, default: Setting
) -> list[Measured]:
    """Every setting: speed to the defaults', and that of filling a cache."""
    depth, found = subject.middle, list[Measured]()
    base = plain.seat(default, subject.n_ctx)
    plain.fill(base, depth)
    space = space_of(Goal(), subject.facts, subject.build, lambda attention: None)
    for attention in space.attentions:
        seat = rig.seat(replace(default, attention=attention), depth + 256)
        rig.fill(seat, depth)
        prefill = (seat.fill_per_s or 1.0) / (base.fill_per_s or 1.0)
        for n_threads in thread_counts():
            seat.engine.set_threads(n_threads, default.n_threads_batch)
            base_s, seat_s = turns([(plain, base), (rig, seat)], depth, GRID_TURNS)
            ratio = median(a / b for a, b in zip(base_s, seat_s, strict=True))
            setting = replace(default, attention=attention, n_threads=n_threads)
            found.append((setting, ratio, prefill))
            say(f"{setting.text}: {ratio:.2f} x, prompts {prefill:.2f} x")
        rig.leave(seat)
    plain.leave(base)
    return sorted(found, key=lambda row: -row[1])


def _allowed(rig: SharedWeights, grid: list[Measured], default: Setting) -> list[Setting]:
    """The three fastest whose quality and prompts are as the goal wants them."""
    windows = windows_of(rig.owner.vocabulary, shipped_text(), n_windows=4)
    n_outputs = n_outputs_for(windows, rig.owner.vocabulary.n_tokens)

    def reading(attention: Attention) -> Candidate:
        return rig.seat(replace(default, attention=attention), windows.n_ctx, n_outputs)

    seat = reading(Attention())
    reference = reference_of(seat.engine, seat.context, windows)
    rig.leave(seat)
    judged, chosen = dict[Attention, float](), list[Setting]()
    for setting, _, prefill in grid:
        if prefill < 1 / MOST_PREFILL:
            continue
        attention = setting.attention
        if attention not in judged:
            seat = reading(attention)
            judged[attention] = divergence_of(seat.engine, seat.context, windows, reference).kld
            rig.leave(seat)
        if judged[attention] <= Goal().max_loss:
            chosen.append(setting)
        if len(chosen) == 3:
            break
    return chosen


def _final(
    subject: TuneTarget,
    rig: SharedWeights,
    plain: SharedWeights,
    default: Setting,
    tuned: Setting,
    best: list[Setting],
) -> dict[str, Any]:
    """All of them in turns, in the middle of the context."""
    rigged = [(plain, plain.seat(default, subject.n_ctx))]
    rigged += [(rig, rig.seat(setting, subject.n_ctx)) for setting in (tuned, *best)]
    base_s, tuned_s, *best_s = turns(rigged, subject.middle, FINAL_TURNS)
    to_defaults = _gain(base_s, tuned_s)
    to_best = [_gain(times, tuned_s) for times in best_s]
    return {
        "defaults_tps": 1 / median(base_s),
        "tuned_tps": 1 / median(tuned_s),
        "to_defaults": _interval(to_defaults),
        "best": [setting.text for setting in best],
        "to_best": [_interval(gain) for gain in to_best],
        "is_met": (to_defaults.high or 1) >= 1 and all(g.mid >= WITHIN for g in to_best),
    }


def _gain(base_s: list[float], other_s: list[float]) -> Estimate:
    return estimate([[a / b] for a, b in zip(base_s, other_s, strict=True)])


def _interval(gain: Estimate) -> list[float]:
    return [round(x, 3) for x in (gain.low or gain.mid, gain.mid, gain.high or gain.mid)]


def _report(document: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(document))
        return
    for name, value in document.items():
        if name != "grid":
            print(f"{name:14}{value}")
    for row in document["grid"][:8]:
        print(f"  {row['setting']:44}{row['ratio']:6.2f} x, prompts {row['prefill']:.2f} x")


if __name__ == "__main__":
    typer.run(main)
