"""Results as one JSON document: rows with what was derived, findings, what was left out.

Results as CSV: one line a case, plain numbers in SI units, nothing for what is not known.

Results as Markdown, for a README or an issue: the table, the gap and the findings.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from localspec.bench.findings import findings
from localspec.bench.report.columns import common_settings, csv_columns, labels, shown_columns
from localspec.bench.row import ResultRow, rows_of
from localspec.bench.statistics import drift_of
from localspec.bench.store import Results
from localspec.format import milliseconds


def all_rows(results: Sequence[Results]) -> list[ResultRow]:
    """Of several files together."""
    return rows_of([visited for each in results for visited in each.visits])


def document(results: Sequence[Results]) -> dict[str, Any]:
    rows = all_rows(results)
    drift = drift_of([row.decode_visits for row in rows if row.decode_visits])
    return {
        "files": [str(each.path) for each in results],
        "rows": [_row(row) for row in rows],
        "drift": asdict(drift) if drift else None,
        "findings": findings(rows),
        "skipped": [
            {"case": case, "reason": why} for each in results for case, why in each.header.skipped
        ],
    }


def _row(row: ResultRow) -> dict[str, Any]:
    figures = {column.key: column.value(row) for column in csv_columns()}
    return {
        **figures,
        "case": row.case.to_json(),
        "model": dict(row.model),
        "environment": dict(row.environment),
        "prediction": row.prediction.to_json() if row.prediction else None,
        "gap_ms": {part.name: 1e3 * part.seconds for part in row.gap.parts} if row.gap else None,
        "categories": [asdict(category) for category in row.categories],
        "curve_s": {str(width): seconds for width, seconds in row.curve.items()},
        "decode_samples_tps": [list(visit) for visit in row.decode_visits],
        "warnings": list(row.warnings),
    }


def csv_text(results: Sequence[Results]) -> str:
    """With a heading line."""
    columns = csv_columns()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in all_rows(results):
        writer.writerow([column.value(row) for column in columns])
    return out.getvalue()


def markdown_text(results: Sequence[Results]) -> str:
    """Ends with a line break."""
    rows = all_rows(results)
    return "\n".join([*_lines(rows), ""])


def _lines(rows: Sequence[ResultRow]) -> Iterator[str]:
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
