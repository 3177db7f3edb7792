"""`localspec pull`, `verify` and `remove`: get models, check them, and free their disk space."""

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from localspec.cli.options import JsonFlag, model_names, pulled_names
from localspec.cli.output import fields_of, notify, print_json, transfers
from localspec.display import echo
from localspec.errors import LocalspecError, UserError

if TYPE_CHECKING:
    from localspec.registry.manifest import Pulled
    from localspec.registry.pull import OnProgress
    from localspec.registry.removal import Removal
    from localspec.registry.upkeep import Finding
    from localspec.session.pull_plan import Got

OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Never ask the network; as HF_HUB_OFFLINE=1.")
]


def pull(
    model: str = typer.Argument(
        "starter",
        metavar="NAME|owner/repo[:Q4_K_M]|URL",
        help="The model; NAME:Q8_0 names a quantization, for owner/repo one is chosen.",
        autocompletion=model_names,
    ),
    no_draft: bool = typer.Option(
        False, "--no-draft", help="The model alone, without a draft or head."
    ),
    probe: Literal["auto", "off"] = typer.Option(
        "auto", help="auto: measure this machine once, to choose a quantization by its speed."
    ),
    offline: OfflineOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Get a model and its draft, in a quantization that fits this machine.

    localspec pull qwen3-8b

    localspec pull owner/repo:Q4_K_M

    localspec pull hf:owner/repo/model.gguf@revision
    """
    go_offline(wanted=offline)
    got = fetch(model, with_draft=not no_draft, probe=probe)
    if as_json:
        print_json({"files": [_document(file) for file in got]})
        return
    for file in got:
        echo(f"{file.path}  {file.n_bytes / 1e6:,.1f} MB")


def fetch(
    model: str, *, with_draft: bool = True, probe: Literal["auto", "off"] = "auto"
) -> "list[Got]":
    """Pull with progress on stderr. Raises as `plan_pull` and `carry_out` do."""
    from localspec.forecast.machine import MachineChoice
    from localspec.session.pull_plan import Wish, carry_out, plan_pull

    plan = plan_pull(model, Wish(with_draft, MachineChoice(probe=probe)), notify)
    for reason in plan.reasons:
        notify(reason)
    try:
        with transfers() as on_progress:
            got = carry_out(plan, notify, on_progress)
    except KeyboardInterrupt:
        notify("the downloaded part is kept, and the same command goes on from there")
        raise
    n_fetched = sum(file.n_fetched for file in got)
    if n_fetched:
        notify(f"fetched {n_fetched / 1e6:,.1f} MB; every file has the right SHA-256")
    else:
        notify("everything is here already")
    return got


def fetched(reference: str) -> Path:
    """The file of a full reference, pulled with progress on stderr."""
    return fetch(reference)[0].path


def go_offline(*, wanted: bool) -> None:
    """Tell the hub's library, which reads the variable once: before its import."""
    if wanted:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _document(file: "Got") -> dict[str, Any]:
    return {
        **fields_of(file, "sha256", "revision", "role"),
        "path": str(file.path),
        "bytes": file.n_bytes,
        "fetched_bytes": file.n_fetched,
    }


def verify(
    model: str | None = typer.Argument(
        None, metavar="MODEL", help="A pulled model. Default: all.", autocompletion=pulled_names
    ),
    repair: bool = typer.Option(False, "--repair", help="Fetch the damaged parts again."),
    offline: OfflineOption = False,
    as_json: JsonFlag = False,
) -> None:
    """Compare the SHA-256 of pulled files with the hub's; exit code 1 if one is damaged.

    localspec verify --repair
    """
    go_offline(wanted=offline)
    from localspec.registry.manifest import pulled_files
    from localspec.registry.removal import pulled_as

    files = pulled_files() if model is None else pulled_as(model, with_adopted=True)
    with transfers(quiet=True) as on_progress:
        results = [_verified(file, on_progress, repair=repair) for file in files]
    if as_json:
        print_json({"files": [_finding(*result) for result in results]})
    else:
        _show_findings(results)
    if any(finding.state != "whole" and not mended for finding, mended in results):
        raise typer.Exit(1)


def _verified(file: "Pulled", on_progress: "OnProgress", *, repair: bool) -> "tuple[Finding, bool]":
    from localspec.registry.upkeep import check, sentence
    from localspec.registry.upkeep import repair as mend

    name = file.file.rpartition("/")[2]
    finding = check(file, lambda n_bytes: on_progress("checking", name, n_bytes, file.n_bytes))
    if finding.state == "whole" or not repair:
        return finding, False
    notify(f"{file.reference} {sentence(finding)}: fetching that again")
    mend(finding, notify, on_progress)
    return finding, True


def _show_findings(results: "list[tuple[Finding, bool]]") -> None:
    from localspec.registry.upkeep import sentence

    if not results:
        notify("nothing was pulled: there is nothing to verify")
    for finding, mended in results:
        end = " and is whole again" if mended else ""
        was = sentence(finding).replace("is ", "was ", 1) if mended else sentence(finding)
        echo(f"{finding.file.reference} {was}{end}")


def _finding(finding: "Finding", mended: bool) -> dict[str, Any]:
    return {
        **fields_of(finding.file, "reference", "path", "sha256", "revision"),
        "bytes": finding.file.n_bytes,
        "state": finding.state,
        "damage": [asdict(damage) for damage in finding.damage],
        "repaired": mended,
    }


def remove(
    models: list[str] = typer.Argument(
        ..., metavar="MODEL...", help="Pulled models.", autocompletion=pulled_names
    ),
    yes: bool = typer.Option(False, "--yes", "-y", help="Do not ask."),
    as_json: bool = typer.Option(False, "--json", help="One JSON document; with --yes."),
) -> None:
    """Remove models that localspec pulled; models of other programs stay.

    localspec remove qwen3-8b
    """
    from localspec.registry.removal import planned_removals, pulled_as
    from localspec.registry.removal import remove as take_away

    files = {file.path: file for model in models for file in pulled_as(model)}
    removals = planned_removals(list(files.values()))
    if not yes:
        _ask(removals, as_json=as_json)
    for removal in removals:
        take_away(removal)
    if as_json:
        gone = [
            {**fields_of(one.file, "reference", "path"), "freed_bytes": one.freed_bytes}
            for one in removals
        ]
        print_json({"removed": gone, "freed_bytes": sum(one.freed_bytes for one in removals)})
    else:
        echo(f"freed {_megabytes(removals)}")


def _ask(removals: "list[Removal]", *, as_json: bool) -> None:
    """Show the files, and go on only after a yes."""
    if as_json or not sys.stdin.isatty():
        raise UserError("remove asks before it removes, and nobody can answer here: add --yes")
    for removal in removals:
        kept = "" if removal.freed_bytes else ", whose bytes another revision uses"
        echo(f"{removal.file.reference}{kept}", err=True)
    echo(f"Remove these and free {_megabytes(removals)}? [y/N] ", end="", err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise LocalspecError("nothing was removed")


def _megabytes(removals: "list[Removal]") -> str:
    return f"{sum(removal.freed_bytes for removal in removals) / 1e6:,.1f} MB"
