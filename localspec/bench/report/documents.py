"""Results as JSON, CSV, Markdown, and one HTML page.

JSON: rows with derived figures, findings, cases left out. CSV: one line a case, plain numbers in SI
units, an empty field for an unknown figure. Markdown: the table, the gap and the findings. The page
has everything in it: it loads nothing and needs no script.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from markupsafe import Markup, escape

from localspec import __version__
from localspec.bench.findings import findings
from localspec.bench.report.charts import charts_of
from localspec.bench.report.svg import LIGHT, TONES, keys_of, style, svg
from localspec.bench.report.tables import (
    Table,
    all_rows,
    category_table,
    common_settings,
    csv_columns,
    gap_table,
    labels,
    shown_columns,
)
from localspec.bench.row import ResultRow
from localspec.bench.statistics import drift_of
from localspec.bench.store import Results
from localspec.format import number
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


def page(results: Sequence[Results]) -> str:
    """The page as HTML."""
    from jinja2 import (  # noqa: PLC0415 - who reads a document needs none
        Environment,
        PackageLoader,
        StrictUndefined,
    )

    rows = all_rows(results)
    figures = [row for row in rows if not row.is_curve]
    environment = Environment(
        loader=PackageLoader("localspec.bench.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("page.html.j2").render(
        version=__version__,
        tones=TONES,
        light=LIGHT,
        chart_style=Markup(style(lambda name: f"var(--{name})")),
        title=_title(rows),
        subtitle=f"Measured by localspec {__version__}, beside its predictions",
        facts=[*_facts(results, rows), *_shared(figures)],
        findings=list(map(_unbroken, findings(rows))),
        tables=[*filter(None, (_speeds(figures), gap_table(figures), category_table(figures)))],
        charts=[
            {"of": chart, "svg": Markup(svg(chart)), "legend": list(keys_of(chart))}
            for chart in charts_of(rows)
        ],
        skipped=[
            (what, _unbroken(why))
            for what, why in dict.fromkeys(pair for each in results for pair in each.header.skipped)
        ],
    )


_OPTION = re.compile(r"--[a-z][\w-]*")


def _unbroken(sentence: str) -> Markup:
    """Browsers end a line behind the hyphens of an option, unless they are told not to."""
    return Markup(_OPTION.sub(r"<code>\g<0></code>", str(escape(sentence))))


def _title(rows: Sequence[ResultRow]) -> str:
    models = list(dict.fromkeys(row.model_name for row in rows))
    machines = list(dict.fromkeys(row.machine for row in rows))
    return f"{_some(models, 'models')} on {_some(machines, 'machines')}"


def _some(names: list[str], kind: str) -> str:
    return " and ".join(names) if 0 < len(names) <= 2 else f"{len(names)} {kind}"


def _facts(results: Sequence[Results], rows: Sequence[ResultRow]) -> Iterator[tuple[str, str]]:
    """Machines, engines, models and dates, each once."""

    texts: dict[str, Iterable[str]] = {
        "machine": map(_machine, rows),
        "engine": map(_engine, rows),
        "model": map(_model, rows),
        "measured": (result.header.started for result in results),
        "predicted from": (row.prediction.source for row in rows if row.prediction),
    }
    yield from ((name, text) for name, each in texts.items() for text in dict.fromkeys(each))


def _machine(row: ResultRow) -> str:
    machine = row.environment["machine"]
    name, where = machine["name"], f"{machine['system']}, {machine['power']}"
    if machine["memory_bytes"] is None:
        return f"{name}, {where}"
    memory = number(machine["memory_bytes"] / 2**30)
    return f"{name}, {machine['cores']} cores, {memory} GiB, {where}"


def _engine(row: ResultRow) -> str:
    engine = row.environment["engine"]
    backends = ", ".join(engine["backends"])
    return f"llama-cpp-python {engine['version']}, {backends}, build {engine['fingerprint']}"


def _model(row: ResultRow) -> str:
    model = row.model
    size = f"{number(model['weight_bytes'] / 1e9)} GB"
    return f"{model['file']}: {model['type']}, {size}, {model['digest']}"


def _shared(rows: Sequence[ResultRow]) -> list[tuple[str, str]]:
    names = ("machine", "engine", "model")
    text = ", ".join(f"{name} {shown}" for name, shown in common_settings(rows, names))
    return [("settings", text)] if text else []


def _speeds(rows: Sequence[ResultRow]) -> Table | None:
    if not rows:
        return None
    columns = [column for column in shown_columns(rows) if column.is_number]
    return Table(
        "Speeds",
        "Tokens per second with their 95 % interval, beside the prediction. roof: share of the"
        " memory's bandwidth. engine: without sampling, text and Python, as llama-bench measures."
        " GB: peak memory.",
        ["case", *(column.header for column in columns)],
        [
            [name, *(column.text(row) for column in columns)]
            for row, name in zip(rows, labels(rows), strict=True)
        ],
    )
