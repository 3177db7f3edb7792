"""`localspec verify`: read again what was pulled, and mend it."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localspec.cli.completion import pulled_names
from localspec.cli.notify import notify, transfers
from localspec.cli.pull import OfflineOption, go_offline

if TYPE_CHECKING:
    from localspec.registry.manifest import Pulled
    from localspec.registry.pull import OnProgress
    from localspec.registry.verify import Finding


def verify(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="What was pulled. Default: all of it.",
            autocompletion=pulled_names,
        ),
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Fetch again what is damaged, and only that.")
    ] = False,
    offline: OfflineOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Compare the SHA-256 of what was pulled with the hub's; exit 1 if anything is damaged.

    localspec verify --repair
    """
    go_offline(wanted=offline)
    with transfers(quiet=True) as on_progress:
        results = [_verified(file, on_progress, repair=repair) for file in _files(model)]
    if as_json:
        import json

        document = {"files": [_document(*result) for result in results]}
        typer.echo(json.dumps(document))
    else:
        _show(results)
    if any(finding.state != "whole" and not mended for finding, mended in results):
        raise typer.Exit(1)


def _files(model: str | None) -> "list[Pulled]":
    from localspec.registry.manifest import pulled
    from localspec.registry.remove import pulled_as

    return pulled() if model is None else pulled_as(model, with_adopted=True)


def _verified(file: "Pulled", on_progress: "OnProgress", *, repair: bool) -> "tuple[Finding, bool]":
    from localspec.registry.verify import check, sentence
    from localspec.registry.verify import repair as mend

    name = file.file.rpartition("/")[2]
    finding = check(file, lambda n_bytes: on_progress("checking", name, n_bytes, file.n_bytes))
    if finding.state == "whole" or not repair:
        return finding, False
    notify(f"{file.reference} {sentence(finding)}: fetching that again")
    mend(finding, notify, on_progress)
    return finding, True


def _show(results: "list[tuple[Finding, bool]]") -> None:
    from localspec.registry.verify import sentence

    if not results:
        notify("nothing was pulled: there is nothing to verify")
    for finding, mended in results:
        end = " and is whole again" if mended else ""
        was = sentence(finding).replace("is ", "was ", 1) if mended else sentence(finding)
        typer.echo(f"{finding.file.reference} {was}{end}")


def _document(finding: "Finding", mended: bool) -> dict[str, Any]:
    file = finding.file
    return {
        "reference": file.reference,
        "path": file.path,
        "sha256": file.sha256,
        "bytes": file.n_bytes,
        "revision": file.revision,
        "state": finding.state,
        "damage": [asdict(damage) for damage in finding.damage],
        "repaired": mended,
    }
