"""Charts as PNG files, through matplotlib."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from localspec.bench.report.chart import Bar, BarChart, Chart
from localspec.bench.report.charts import charts_of
from localspec.bench.report.documents import all_rows
from localspec.bench.store import Results

GREY = "0.5"
MARKERS = "os^D"


def write_pictures(results: Sequence[Results], folder: Path) -> Iterator[Path]:
    """One file for each picture that has data. Raises OSError."""
    for chart in charts_of(all_rows(results)):
        path = folder / f"{chart.key}.png"
        _figure(chart).savefig(path, dpi=150)
        yield path


def _figure(chart: Chart | BarChart) -> Any:
    from matplotlib.figure import Figure  # noqa: PLC0415 - the `plot` extra

    height = 2.0 + 0.34 * len(chart.bars) if isinstance(chart, BarChart) else 5.0
    figure = Figure(figsize=(7.0, height), layout="constrained")
    panel: Any = figure.subplots()
    if isinstance(chart, BarChart):
        _draw_bars(panel, chart)
    else:
        _draw(panel, chart)
    panel.set(title=chart.title, xlabel=chart.x_label)
    panel.grid(alpha=0.3)
    panel.set_axisbelow(True)
    if not isinstance(chart, BarChart) or len(chart.names) > 1:
        figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def _draw(panel: Any, chart: Chart) -> None:
    for series in chart.series:
        xs, ys = [p.x for p in series.points], [p.y for p in series.points]
        colour = GREY if series.tone is None else f"C{series.tone}"
        style = ("--" if series.dashed else "-") if series.kind == "line" else ""
        is_bare = series.tone is None or series.dashed
        marker = "" if is_bare else MARKERS[(series.tone or 0) % len(MARKERS)]
        errors = [
            (p.y - p.low if p.low is not None else 0.0, p.high - p.y if p.high is not None else 0.0)
            for p in series.points
        ]
        panel.errorbar(
            xs, ys, yerr=None if is_bare else list(zip(*errors, strict=True)), color=colour,
            linestyle=style or "none", marker=marker, label=series.name or "_", capsize=2,
        )  # fmt: skip
    panel.set(ylabel=chart.y_label)
    if chart.log_x:
        panel.set_xscale("log")
    if chart.log_y:
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)


def _draw_bars(panel: Any, chart: BarChart) -> None:
    for i, name in enumerate(chart.names):
        pieces = [
            (row, *found) for row, bar in enumerate(chart.bars) if (found := _piece(bar, name))
        ]
        rows, lefts, lengths = zip(*pieces, strict=True)
        panel.barh(rows, lengths, left=lefts, color=f"C{i}", label=name, height=0.7)
    panel.set_yticks(range(len(chart.bars)), [bar.label for bar in chart.bars], fontsize="small")
    panel.invert_yaxis()


def _piece(bar: Bar, name: str) -> tuple[float, float] | None:
    """Where a part begins and how long it is; negative ones go to the left from zero."""
    starts = {True: 0.0, False: 0.0}
    for other, length in bar.parts:
        if other == name:
            return starts[length < 0], length
        starts[length < 0] += length
    return None
