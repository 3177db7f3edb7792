"""`localspec predict`: what a machine should do with a model, before it is downloaded.

A picture of what drafts gain: speed-up by draft length, a panel for each depth and batch.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localspec.cli.notify import notify
from localspec.cli.options import JsonFlag, ModelArgument, command
from localspec.cli.predict_options import MachineFlags, QuestionFlags
from localspec.errors import UserError

if TYPE_CHECKING:
    from localspec.forecast.forecast import Forecast, SpeculationRow


PICTURES = (".png", ".svg", ".pdf")


@command
def predict(
    machine: MachineFlags,
    asked: QuestionFlags,
    model: ModelArgument = None,
    draft: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A draft model, which need not be here.")
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a picture of what drafts gain (.png, .svg)."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """What a machine should do with a model, before it is downloaded.

    localspec predict hf:owner/repo/model.gguf --device "RTX 4090"

    localspec predict model.gguf --draft small.gguf --accept .5,.7,.9 --batch 1,8 --depth 0,4096
    """
    if plot:
        _check_plot(plot)
    keywords = machine.keywords() | asked.keywords() | {"draft": draft}
    from localspec.forecast.question import answer, read_question

    forecast = answer(model, *read_question(**keywords), notify)
    if plot:
        write_plot(forecast, plot)
    if as_json:
        import json

        from localspec.cli.predict_output import document

        typer.echo(json.dumps(document(forecast), allow_nan=False))
    else:
        from localspec.cli.predict_output import show

        show(forecast)


def _check_plot(path: Path) -> None:
    from importlib.util import find_spec

    if path.suffix.lower() not in PICTURES:
        raise UserError(f"--plot {path} is no picture that can be written: end it in .png or .svg")
    if find_spec("matplotlib") is None:
        raise UserError("--plot needs matplotlib: `pip install 'localspec[plot]'`")


def write_plot(forecast: "Forecast", path: Path) -> None:
    """Write it; the ending of `path` says in which format. UserError if that cannot be done."""
    from matplotlib.figure import Figure

    rows = forecast.speculation
    figure = Figure(
        figsize=(5.0 * min(len(rows), 3), 3.6 * -(-len(rows) // 3)), layout="constrained"
    )
    panels: Any = figure.subplots(
        -(-len(rows) // 3), min(len(rows), 3), squeeze=False, sharex=True, sharey=True
    )
    for panel, row in zip(panels.flat, rows, strict=False):
        _draw(panel, row)
    for panel in panels.flat[len(rows) :]:
        panel.set_visible(False)
    target = forecast.facts.name or forecast.facts.path
    draft = forecast.draft.name or forecast.draft.path if forecast.draft else "look-up"
    figure.suptitle(f"{draft} drafts for {target} on {forecast.machine.name}")
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise UserError(f"--plot {path} cannot be written: {error.strerror or error}") from error


def _draw(panel: Any, row: "SpeculationRow") -> None:
    lengths = range(row.costs.max_draft + 1)
    for gain in row.best:
        speedups = [row.costs.speedup(gain.acceptance, n) for n in lengths]
        (line,) = panel.plot(lengths, speedups, marker=".", label=f"{gain.acceptance:.0%} accepted")
        panel.plot([gain.n_draft], [gain.speedup], "o", color=line.get_color())
    panel.axhline(1.0, color="grey", linewidth=0.8)
    panel.set(
        title=f"depth {row.depth:,}, batch {row.batch}",
        xlabel="drafted tokens",
        ylabel="times plain speed",
        ylim=(0, None),
    )
    panel.legend()
