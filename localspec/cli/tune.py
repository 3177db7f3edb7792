"""`localspec tune`: find and keep the best settings of a model for this machine."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from localspec.cli.flatten import flatten
from localspec.cli.options import ModelArgument
from localspec.cli.talk import talk

if TYPE_CHECKING:
    from pathlib import Path

    from localspec.session.profile import Profile

LEAST_BUDGET_S, MOST_BUDGET_S = 2.0, 3600.0


@dataclass(frozen=True)
class GoalFlags:
    """What is looked for."""

    goal: Annotated[
        Literal["speed", "memory", "quality"],
        typer.Option(
            "--for",
            help="speed; memory: the smallest cache, not slower; quality: nothing below f16.",
        ),
    ] = "speed"
    max_quality_loss: Annotated[
        float,
        typer.Option(
            min=0,
            max=10,
            metavar="KLD",
            help="Most that a cache type may diverge from f16, in nats a token.",
        ),
    ] = 0.01
    budget: Annotated[
        float,
        typer.Option(
            min=LEAST_BUDGET_S, max=MOST_BUDGET_S, metavar="SECONDS", help="How long it may take."
        ),
    ] = 60.0
    ctx: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Tokens of the contexts that matter. Default: 4096 or the model's."
        ),
    ] = None
    draft: Annotated[
        str,
        typer.Option(metavar="MODEL|auto|none", help="A draft model to try; auto: the pair's."),
    ] = "auto"


@flatten
def tune(
    flags: GoalFlags,
    model: ModelArgument = None,
    show: Annotated[
        bool, typer.Option("--show", help="Show what is kept for this model; measure nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Find the fastest settings of a model on this machine, and keep them for later commands.

    localspec tune model.gguf --ctx 8192

    localspec tune --for memory --budget 120

    Ctrl-C ends it with the best that is proven so far.
    """
    from localspec.registry.resolve import resolve
    from localspec.session.profile import find_profile

    path = resolve(model)
    if show:
        found = find_profile(path)
        if found.problem:
            talk(found.problem)
        _show(found.profile, path.name, as_json=as_json)
        return
    from localspec.cli.tune_report import report, watching
    from localspec.session.config import SessionConfig
    from localspec.tune.goal import Goal
    from localspec.tune.keep import keep
    from localspec.tune.search import search
    from localspec.tune.subject import Subject

    wanted = Goal(flags.goal, flags.max_quality_loss)
    subject = Subject.of(SessionConfig(path, spec="none", n_ctx=flags.ctx), talk)
    with watching(flags.budget) as listen:
        outcome = search(subject, wanted, flags.budget, listen, _draft(flags.draft, model))
    if outcome.is_interrupted and outcome.winner is None:
        raise KeyboardInterrupt
    profile = keep(outcome, path, subject.config, wanted)
    if as_json:
        _show(profile, path.name, as_json=True)
    else:
        report(outcome, subject, profile)


def _draft(wanted: str, model: str | None) -> "Path | None":
    """Raises UserError or ModelError for a draft that is not there."""
    from localspec.registry.resolve import draft_of, resolve

    if wanted == "none":
        return None
    return draft_of(model) if wanted == "auto" else resolve(wanted)


def _show(profile: "Profile | None", name: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_document(profile), allow_nan=False))
    elif profile is None:
        talk(f"nothing is kept for {name} on this machine as it is now: run `localspec tune`")
    else:
        low, mid, high = profile.ratio
        kld = "" if not profile.kld else f", KL divergence {profile.kld:.4f} nats a token"
        typer.echo(
            f"{name}, tuned {profile.taken} for {profile.goal} at {profile.n_ctx:,} tokens:"
            f" {profile.text}; {mid:.2f} x the defaults ({low:.2f} to {high:.2f}){kld}"
        )


def _document(profile: "Profile | None") -> dict[str, object] | None:
    """DESIGN.md fixes the names."""
    if profile is None:
        return None
    low, mid, high = profile.ratio
    return {
        "settings": dict(profile.settings),
        "ratio": {"low": low, "mid": mid, "high": high},
        "kld": profile.kld,
        "seconds": profile.seconds,
    }
