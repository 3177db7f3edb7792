"""Results as tables for people: as many columns as the terminal has room for."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from localspec.bench.findings import findings
from localspec.bench.report.tables import (
    DECODE,
    all_rows,
    category_table,
    common_settings,
    labels,
    shown_columns,
)
from localspec.bench.row import ResultRow
from localspec.bench.sample import Gap
from localspec.bench.statistics import drift_of
from localspec.bench.store import Results
from localspec.cli.output import fitting, table_of
from localspec.display import console as console_of
from localspec.format import milliseconds

LEAST_S = 5e-7
"""The table hides parts of a gap that are smaller in every row."""
PART_WIDTH, CASE_WIDTH = 33, 13


def show(results: Sequence[Results]) -> None:
    """Print the results as tables, the findings last."""
    console = console_of()
    rows = all_rows(results)
    figures = [row for row in rows if not row.is_curve]
    for line in _heading(rows):
        console.print(Text(line))
    if figures:
        console.print(_figures(console, figures))
    for table in (_categories(figures), _curves(rows), *_gaps(console, figures)):
        if table is not None:
            console.print(Text(""))
            console.print(table)
    console.print(Text(""))
    for line in (line for line in (_drift(rows), *findings(rows)) if line):
        console.print(Text(f"- {line}"))


def _heading(rows: Sequence[ResultRow]) -> list[str]:
    settings = dict(common_settings(rows))
    named = [settings.pop(name) for name in ("machine", "model") if name in settings]
    settings.pop("engine", None)
    rest = ", ".join(f"{name} {text}" for name, text in settings.items() if text != "-")
    first = " · ".join(named)
    return [line for line in (first, rest, "") if line or not first]


def _figures(console: Console, rows: Sequence[ResultRow]) -> Table:
    """All columns but the last ones that the terminal has no room for."""
    columns = {column.key: column for column in shown_columns(rows)}

    def made(names: Sequence[str]) -> Table:
        table = table_of()
        for column in (columns[name] for name in names):
            side = "right" if column.is_number else "left"
            table.add_column(column.header, justify=side, overflow="fold")
        for row in rows:
            table.add_row(*(columns[name].text(row) for name in names))
        return table

    names = list(columns)
    return fitting(console, made, names, *reversed(names[names.index(DECODE.key) + 1 :]))


def _categories(rows: Sequence[ResultRow]) -> Table | None:
    found = category_table(rows)
    if found is None:
        return None
    title = "tok/s and accepted drafts, by category"
    return table_of(*found.header, rows=found.rows, title=title, no_wrap=False)


def _curves(rows: Sequence[ResultRow]) -> Table | None:
    """T(n) / T(1): the cost of a pass over n tokens in plain passes."""
    curved = [row for row in rows if row.curve]
    if not curved:
        return None
    title = "v(n) = T(n) / T(1): a pass over n tokens, in plain passes"
    widths = dict.fromkeys(width for row in curved for width in row.curve)
    table = table_of("n", *map(str, widths), title=title, no_wrap=False)
    for row, label in zip(curved, labels(curved), strict=True):
        one = row.curve[min(row.curve)]
        cells = [f"{row.curve[n] / one:.2f}" if n in row.curve else "-" for n in widths]
        table.add_row(label, *cells)
    return table


def _gaps(console: Console, rows: Sequence[ResultRow]) -> list[Table]:
    """Parts down and cases across, in as many tables as it takes."""
    labelled = zip(labels(rows), rows, strict=True)
    gaps = [(label, row.gap) for label, row in labelled if row.gap is not None]
    n_fitting = max(1, (console.width - PART_WIDTH) // CASE_WIDTH)
    return [_gap(gaps[i : i + n_fitting]) for i in range(0, len(gaps), n_fitting)]


def _gap(gaps: "Sequence[tuple[str, Gap]]") -> Table:
    table = table_of("", title="where the milliseconds of a token go")
    for label, _ in gaps:
        table.add_column(label, justify="right", overflow="fold", width=CASE_WIDTH - 2)
    for i, part in enumerate(gaps[0][1].parts):
        if any(abs(gap.parts[i].seconds) > LEAST_S for _, gap in gaps):
            cells = [milliseconds(gap.parts[i].seconds) for _, gap in gaps]
            table.add_row(f"{part.name} ({part.basis})", *cells)
    table.add_row("measured", *(milliseconds(gap.token_s) for _, gap in gaps))
    return table


def _drift(rows: Sequence[ResultRow]) -> str:
    anchors = [row for row in rows if any(v.is_anchor for v in row.visits) and row.decode_visits]
    drift = drift_of([row.decode_visits for row in anchors])
    if drift is None:
        return ""
    n_visits = sum(len(row.decode_visits) for row in anchors)
    return f"the anchor, visited {n_visits} times, varied by {100 * drift.sd:.1f} %"
