"""A picture of what drafts gain: speed-up by draft length, a panel for each depth and batch."""

from pathlib import Path
from typing import Any

from localspec.errors import UserError
from localspec.session.forecast import Forecast, SpeculationRow


def write_plot(forecast: Forecast, path: Path) -> None:
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


def _draw(panel: Any, row: SpeculationRow) -> None:
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
