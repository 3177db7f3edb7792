"""Results as one JSON document: rows with what was derived, findings, what was left out."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from localspec.bench.findings import findings
from localspec.bench.report.columns import csv_columns
from localspec.bench.row import Row, rows_of
from localspec.bench.statistics import drift_of
from localspec.bench.store import Results


def all_rows(results: Sequence[Results]) -> list[Row]:
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


def _row(row: Row) -> dict[str, Any]:
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
