"""`localspec remove`: give back the room of what was pulled."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from localspec.cli.completion import pulled_names
from localspec.errors import LocalspecError, UserError

if TYPE_CHECKING:
    from localspec.registry.remove import Removal


def remove(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="What was pulled.", autocompletion=pulled_names),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document; with --yes.")] = False,
) -> None:
    """Remove models that localspec pulled, and nothing that another program brought.

    localspec remove qwen3-8b
    """
    from localspec.registry.remove import planned_removals, pulled_as
    from localspec.registry.remove import remove as take_away

    files = {file.path: file for model in models for file in pulled_as(model)}
    removals = planned_removals(list(files.values()))
    if not yes:
        _ask(removals, as_json=as_json)
    for removal in removals:
        take_away(removal)
    if as_json:
        _print_document(removals)
    else:
        typer.echo(f"freed {_megabytes(removals)}")


def _ask(removals: "list[Removal]", *, as_json: bool) -> None:
    """Show what goes, and go on only after a yes."""
    if as_json or not sys.stdin.isatty():
        raise UserError("remove asks before it removes, and nobody can answer here: add --yes")
    for removal in removals:
        kept = "" if removal.freed_bytes else ", whose bytes another revision uses"
        typer.echo(f"{removal.file.reference}{kept}", err=True)
    typer.echo(f"Remove these and free {_megabytes(removals)}? [y/N] ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise LocalspecError("nothing was removed")


def _megabytes(removals: "list[Removal]") -> str:
    return f"{sum(removal.freed_bytes for removal in removals) / 1e6:,.1f} MB"


def _print_document(removals: "list[Removal]") -> None:
    import json

    document = {
        "removed": [
            {
                "reference": removal.file.reference,
                "path": removal.file.path,
                "freed_bytes": removal.freed_bytes,
            }
            for removal in removals
        ],
        "freed_bytes": sum(removal.freed_bytes for removal in removals),
    }
    typer.echo(json.dumps(document))
