"""`localspec predict`: what a machine should do with a model, before it is downloaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localspec.cli.notify import notify
from localspec.cli.options import JsonFlag, ModelArgument, command
from localspec.cli.predict_options import MachineFlags, QuestionFlags
from localspec.errors import UserError

if TYPE_CHECKING:
    from localspec.bench.report.chart import Chart
    from localspec.forecast.forecast import Forecast, SpeculationRow


PICTURE = ".svg"


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
        typer.Option(metavar="FILE", help="Write a picture of what drafts gain (.svg)."),
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
    if path.suffix.lower() != PICTURE:
        raise UserError(f"--plot {path} is no picture that can be written: end it in {PICTURE}")


def write_plot(forecast: "Forecast", path: Path) -> None:
    """What drafts gain, a panel for each depth and batch. UserError if it cannot be written."""
    from localspec.bench.report.svg import picture
    from localspec.cli.report import write_text

    target = forecast.facts.name or forecast.facts.path
    draft = forecast.draft.name or forecast.draft.path if forecast.draft else "look-up"
    title = f"{draft} drafts for {target} on {forecast.machine.name}"
    write_text(path, "--plot", picture(title, [_gains(row) for row in forecast.speculation]))


def _gains(row: "SpeculationRow") -> "Chart":
    """Speed-up by draft length, a line for each acceptance with its best length marked."""
    from localspec.bench.report.chart import Chart, ChartPoint, Series
    from localspec.format import percent

    lengths = range(row.costs.max_draft + 1)
    plain = Series("", tuple(ChartPoint(n, 1.0) for n in lengths), "line", tone=None)
    lines = [
        Series(
            f"{percent(gain.acceptance)} accepted, best {gain.n_draft}",
            tuple(ChartPoint(n, row.costs.speedup(gain.acceptance, n)) for n in lengths),
            "line",
            tone=i,
        )
        for i, gain in enumerate(row.best)
    ]
    title = f"depth {row.depth:,}, batch {row.batch}"
    return Chart("gain", title, "", "drafted tokens", "times plain speed", (plain, *lines))
