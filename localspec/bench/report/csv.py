"""Results as CSV: one line a case, plain numbers in SI units, nothing for what is not known."""

import csv
import io
from collections.abc import Sequence

from localspec.bench.report.columns import csv_columns
from localspec.bench.report.document import all_rows
from localspec.bench.store import Results


def csv_text(results: Sequence[Results]) -> str:
    """With a heading line."""
    columns = csv_columns()
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in all_rows(results):
        writer.writerow([column.value(row) for column in columns])
    return out.getvalue()
