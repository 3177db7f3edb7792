"""Results as Markdown, for a README or an issue: the table, the gap and the findings."""

from collections.abc import Iterator, Sequence

from localspec.bench.findings import findings
from localspec.bench.report.columns import common_settings, labels, shown_columns
from localspec.bench.report.document import all_rows
from localspec.bench.report.format import milliseconds
from localspec.bench.row import Row
from localspec.bench.store import Results


def markdown_text(results: Sequence[Results]) -> str:
    """Ends with a line break."""
    rows = all_rows(results)
    return "\n".join([*_lines(rows), ""])


def _lines(rows: Sequence[Row]) -> Iterator[str]:
    figures = [row for row in rows if not row.is_curve]
    yield ", ".join(
        f"{name} {shown}" if name not in ("machine", "model") else shown
        for name, shown in common_settings(figures)
        if shown != "-" and name != "engine"
    )
    yield ""
    columns = shown_columns(figures)
    yield from _table(
        [column.header for column in columns],
        [column.is_number for column in columns],
        [[column.text(row) for column in columns] for row in figures],
    )
    gaps = [(label, row.gap) for label, row in zip(labels(figures), figures, strict=True)]
    known = [(label, gap) for label, gap in gaps if gap]
    if known:
        names = [part.name for part in known[0][1].parts]
        yield ""
        yield from _table(
            ["where the ms go", "ms/tok", *names],
            [False, *[True] * (1 + len(names))],
            [
                [label, milliseconds(gap.token_s), *(milliseconds(p.seconds) for p in gap.parts)]
                for label, gap in known
            ],
        )
    yield ""
    yield from (f"- {sentence}" for sentence in findings(rows))


def _table(
    header: Sequence[str], is_number: Sequence[bool], rows: Sequence[Sequence[str]]
) -> Iterator[str]:
    yield _line(header)
    yield _line(["--:" if each else "---" for each in is_number])
    for row in rows:
        yield _line([cell.replace("|", "\\|") for cell in row])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
