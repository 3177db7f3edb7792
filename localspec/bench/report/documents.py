"""Results as JSON, CSV and Markdown.

JSON: rows with derived figures, findings, cases left out. CSV: one line a case, plain numbers in SI
units, an empty field for an unknown figure. Markdown: the table, the gap and the findings.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from localspec.bench.findings import findings
from localspec.bench.report.tables import (
    all_rows,
    common_settings,
    csv_columns,
    gap_table,
    shown_columns,
)
from localspec.bench.row import ResultRow
from localspec.bench.statistics import drift_of
from localspec.bench.store import Results
from localspec.store import document_of


def document(results: Sequence[Results]) -> dict[str, Any]:
    rows = all_rows(results)
    drift = drift_of([row.decode_visits for row in rows])
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
        "prediction": document_of(row.prediction),
        "gap_ms": {part.name: 1e3 * part.seconds for part in row.gap.parts} if row.gap else None,
        "categories": [asdict(category) for category in row.categories],
        "curve_s": {str(width): seconds for width, seconds in row.curve.items()},
        "decode_samples_tps": [list(visit) for visit in row.decode_visits],
        "warnings": list(row.warnings),
    }


def csv_text(results: Sequence[Results]) -> str:
    """CSV, with a heading line."""
    columns = csv_columns()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in all_rows(results):
        writer.writerow([column.value(row) for column in columns])
    return out.getvalue()


def markdown_text(results: Sequence[Results]) -> str:
    """Markdown, with a line break at its end."""
    return "\n".join([*_lines(all_rows(results)), ""])


def _lines(rows: Sequence[ResultRow]) -> Iterator[str]:
    figures = [row for row in rows if not row.is_curve]
    yield ", ".join(
        f"{name} {shown}" if name not in ("machine", "model") else shown
        for name, shown in common_settings(figures, ["engine"])
    )
    yield ""
    columns = shown_columns(figures)
    yield _line([column.header for column in columns])
    yield _line(["--:" if column.is_number else "---" for column in columns])
    yield from (_line([column.text(row) for column in columns]) for row in figures)
    if gaps := gap_table(figures):
        yield ""
        yield _line(["where the ms go", *gaps.header[1:]])
        yield _line(["---", *["--:"] * (len(gaps.header) - 1)])
        yield from map(_line, gaps.rows)
    yield ""
    yield from (f"- {sentence}" for sentence in findings(rows))


def _line(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
