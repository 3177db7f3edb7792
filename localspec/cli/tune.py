"""`localspec tune` and `export`: the best settings of a model, kept here or for another engine."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from time import monotonic
from typing import TYPE_CHECKING, Literal

import typer

from localspec.cli.flags import EngineFlags
from localspec.cli.options import JsonFlag, ModelArgument, command, option, setting
from localspec.cli.output import bar, fields_of, notify, print_json, ruled_table
from localspec.display import console as console_of
from localspec.display import echo
from localspec.settings import Settings, Split, with_former_names, written

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn
    from rich.table import Table

    from localspec.session.profile import Profile
    from localspec.tuning.search import Outcome
    from localspec.tuning.state import SearchListener, Trial
    from localspec.tuning.target import TuneTarget

Target = Literal[
    "llama-server", "ollama", "lm-studio", "llama-cpp-python", "llama-swap", "litellm", "vllm",
    "sglang", "tgi", "tensorrt-llm", "transformers",
]  # fmt: skip
LEAST_BUDGET_S, MOST_BUDGET_S = 2.0, 3600.0


@dataclass(frozen=True)
class GoalFlags:
    """The goal, and the limits of the search."""

    goal: Literal["speed", "memory", "quality"] = option(
        "speed", "speed; memory: the smallest cache, not slower; quality: nothing below f16.",
        "--for",
    )  # fmt: skip
    max_quality_loss: float = option(
        0.01, "Largest divergence of a cache type from f16, in nats a token.",
        min=0, max=10, metavar="KLD",
    )  # fmt: skip
    budget: float = option(
        60.0, "Time limit.", min=LEAST_BUDGET_S, max=MOST_BUDGET_S, metavar="SECONDS"
    )
    quick: bool = option(False, "Ten seconds, in place of --budget.", "--quick")
    ctx: int | None = setting(
        "ctx", "Tokens of the contexts that matter. Default: 4096 or the model's."
    )
    draft: str = setting("draft", "A draft model or head to try; auto: what goes with MODEL.")
    device: tuple[str, ...] = setting("device")
    workers: tuple[str, ...] = setting("workers")
    split: Split = setting("split")


@command
def tune(
    flags: GoalFlags,
    model: ModelArgument = None,
    show: bool = typer.Option(False, "--show", help="Show the kept settings; measure nothing."),
    as_json: JsonFlag = False,
) -> None:
    """Find the fastest settings of a model on this machine, and keep them.

    localspec tune model.gguf --ctx 8192

    localspec tune --for memory --budget 120

    Ctrl-C ends it with the best that is proven so far.
    """
    from localspec.registry.resolve import resolve
    from localspec.session.profile import QUICK_S, find_profile

    path = resolve(model)
    if show:
        found = find_profile(path)
        if found.problem:
            notify(found.problem)
        _show(found.profile, path.name, as_json=as_json)
        return
    from localspec.cli.pull import fetched
    from localspec.session.session_config import SessionConfig, draft_for
    from localspec.tuning.search import tune_model
    from localspec.tuning.target import Goal

    placing = {"device": flags.device, "workers": flags.workers, "split": flags.split}
    draft = draft_for(path, model, flags.draft, fetch=fetched)
    config = SessionConfig.of(path, draft, ctx=flags.ctx, **placing)
    goal = Goal(flags.goal, flags.max_quality_loss)
    budget_s = QUICK_S if flags.quick else flags.budget
    with watching(budget_s) as listen:
        tuned = tune_model(config, goal, budget_s, notify, listen)
    if as_json:
        _show(tuned.profile, path.name, as_json=True)
    else:
        report(tuned.outcome, tuned.subject, tuned.profile)


def _show(profile: "Profile | None", name: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_document(profile))
    elif profile is None:
        notify(f"nothing is kept for {name} on this machine as it is now: run `localspec tune`")
    else:
        low, mid, high = profile.ratio
        kld = "" if not profile.kld else f", KL divergence {profile.kld:.4f} nats a token"
        echo(
            f"{name}, tuned {profile.taken} for {profile.goal} at {profile.n_ctx:,} tokens:"
            f" {profile.text}; {mid:.2f} x the defaults ({low:.2f} to {high:.2f}){kld}"
        )


def _document(profile: "Profile | None") -> dict[str, object] | None:
    """docs/reference/json.md lists the names."""
    return profile and {
        "settings": with_former_names(written(profile.settings)),
        "ratio": dict(zip(("low", "mid", "high"), profile.ratio, strict=True)),
        "kld": profile.kld,
        "seconds": profile.seconds,
    }


SHOWN = 8


def _columns(width: int) -> "Sequence[str | ProgressColumn]":
    from rich.progress import BarColumn

    return BarColumn(12), "{task.completed:.0f} of {task.total:.0f} s", "{task.description}"


@contextmanager
def watching(budget_s: float) -> "Generator[SearchListener]":
    """A listener that draws on a terminal, and is silent elsewhere."""
    from localspec.tuning.target import candidate_text

    started = monotonic()
    with bar(_columns) as made:
        if made is None:
            yield lambda stage, best, gain: None
            return
        task = made.add_task("loading", total=budget_s)

        def listen(stage: str, best: Settings | None, gain: float | None) -> None:
            spent_s = min(budget_s, monotonic() - started)
            text = best and f"\n[dim]best so far {gain:.2f} x: {candidate_text(best)}[/dim]"
            made.update(task, completed=spent_s, description=stage + (text or ""))

        yield listen


def report(outcome: "Outcome", subject: "TuneTarget", profile: "Profile") -> None:
    """Print the candidates, best first, then the kept settings and the reason."""
    from rich.text import Text

    console = console_of()
    console.print(_table(outcome, subject))
    console.print("Rows without a KLD were only screened.", style="dim")
    _explain(console, outcome)
    low, mid, high = profile.ratio
    if not profile.settings:
        console.print("No candidate is significantly better than the defaults, which stay.")
        return
    kept = profile.text, "bold"
    kld = f", KL divergence {outcome.kld:.4f} nats a token" if outcome.kld is not None else ""
    if outcome.winner is None:
        console.print(Text.assemble(kept, ": faster than the default drafting."))
        return
    gain = f"{mid:.2f} x the defaults in decoding ({low:.2f} to {high:.2f}){kld}"
    console.print(Text.assemble(kept, f": {gain}."))
    console.print("Kept: chat, generate and bench use it (--no-profile ignores it).")


def _table(outcome: "Outcome", subject: "TuneTarget") -> "Table":
    title = f"{subject.config.model.name}, {subject.n_ctx:,} tokens, {outcome.seconds:.0f} s"
    table = ruled_table(title, "", "to defaults", "KLD", "cache MB", no_wrap=False)
    tried = sorted(outcome.tried, key=lambda trial: -trial.gain.mid)
    chosen = outcome.winner
    if chosen:
        tried = [chosen, *(t for t in tried if t.setting != chosen.setting)]
    for trial in tried[:SHOWN]:
        table.add_row(*_row(trial, subject), style="bold" if trial is chosen else None)
    if len(tried) > SHOWN:
        table.add_row(f"and {len(tried) - SHOWN} slower ones", style="dim")
    return table


def _row(trial: "Trial", subject: "TuneTarget") -> tuple[str, ...]:
    cache = subject.cache_bytes(trial.setting.attention, subject.n_ctx)
    from localspec.tuning.target import candidate_text, loading_text

    loading = trial.setting.loading
    others = "" if loading.repack and loading.mmap else f", {loading_text(loading)}"
    return (
        candidate_text(trial.setting) + others,
        f"{trial.gain.mid:.2f} x",
        f"{trial.quality.kld:.4f}" if trial.quality else "",
        f"{cache / 1e6:,.1f}" if cache else "",
    )


def _explain(console: "Console", outcome: "Outcome") -> None:
    if outcome.is_interrupted:
        console.print("Interrupted: this is the best that was proven by then.")
    if outcome.excluded:
        reason = next(iter(outcome.excluded.values()))
        console.print(
            f"{len(outcome.excluded)} combinations were not tried; the first reason: {reason}."
        )
    for note in outcome.notes:
        console.print(f"Not measured: {note}.")


@command
def export(
    engine: EngineFlags,
    to: Target = typer.Option(..., "--to", help="The engine that will run it."),
    model: ModelArgument = None,
    as_json: JsonFlag = False,
) -> None:
    """Print a model's settings as a command or file for another engine.

    localspec export model.gguf --to llama-server

    localspec export model.gguf --to ollama > Modelfile
    """
    config = engine.session_config(model)
    from localspec.export import TARGETS
    from localspec.session.loading import beyond_training, plan_engines
    from localspec.session.session_config import SessionConfig

    # What localspec chose for open settings.
    plan = plan_engines(config)
    decided = fields_of(plan.target.settings, "ctx", "threads", "flash_attn", "shares")
    chosen = SessionConfig(config.model.resolve(), replace(config.settings, **decided))
    if config.draft:
        chosen = chosen.with_draft(config.draft.resolve())
    exported = TARGETS[to](chosen)
    if note := beyond_training(plan.facts, plan.target.n_ctx):
        exported = replace(exported, notes=(*exported.notes, note))
    if as_json:
        print_json({"to": to, **asdict(exported)})
        return
    echo(exported.text, end="")
    for clause in exported.cannot:
        notify(f"{to} cannot {clause}")
    for note in exported.notes:
        notify(note)
