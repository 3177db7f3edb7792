"""`localspec pull`: get a model, or a pair, whole."""

import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from localspec.cli.completion import model_names
from localspec.cli.notify import notify, transfers

if TYPE_CHECKING:
    from localspec.session.pull_plan import Got

OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Never ask the network; as HF_HUB_OFFLINE=1.")
]


def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|hf:owner/repo/file|URL",
            help="What to get; NAME:Q8_0 names a quantization, hf:owner/repo has one chosen.",
            autocompletion=model_names,
        ),
    ] = "starter",
    no_draft: Annotated[
        bool, typer.Option("--no-draft", help="Of a pair, the model alone.")
    ] = False,
    probe: Annotated[
        Literal["auto", "off"],
        typer.Option(
            help="To choose a quantization by its speed, measure this machine once, or do not."
        ),
    ] = "auto",
    offline: OfflineOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Get a model and its draft, in the quantization that fits this machine, and prove the bytes.

    localspec pull qwen3-8b

    localspec pull hf:owner/repo/model.gguf@revision
    """
    go_offline(wanted=offline)
    got = fetch(model, with_draft=not no_draft, probe=probe)
    if as_json:
        import json

        typer.echo(json.dumps({"files": [_document(file) for file in got]}))
        return
    for file in got:
        typer.echo(f"{file.path}  {file.n_bytes / 1e6:,.1f} MB")


def fetch(
    model: str, *, with_draft: bool = True, probe: Literal["auto", "off"] = "auto"
) -> "list[Got]":
    """Pull with progress on stderr; the files. Raises as `plan_pull` and `carry_out` do."""
    from localspec.forecast.sources import MachineChoice
    from localspec.session.pull_plan import Wish, carry_out, plan_pull

    plan = plan_pull(model, Wish(with_draft, MachineChoice(probe=probe)), notify)
    for reason in plan.reasons:
        notify(reason)
    try:
        with transfers() as on_progress:
            got = carry_out(plan, notify, on_progress)
    except KeyboardInterrupt:
        notify("what has come is kept, and the same command goes on from there")
        raise
    _summarise(got)
    return got


def go_offline(*, wanted: bool) -> None:
    """Before the hub's library is imported, which looks once."""
    if wanted:
        os.environ["HF_HUB_OFFLINE"] = "1"


def _summarise(got: "list[Got]") -> None:
    n_fetched = sum(file.n_fetched for file in got)
    if n_fetched:
        notify(f"fetched {n_fetched / 1e6:,.1f} MB; every file has the SHA-256 that belongs to it")
    else:
        notify("everything is here already")


def _document(file: "Got") -> dict[str, Any]:
    return {
        "path": str(file.path),
        "sha256": file.sha256,
        "bytes": file.n_bytes,
        "revision": file.revision,
        "role": file.role,
        "fetched_bytes": file.n_fetched,
    }
