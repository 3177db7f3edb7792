"""One HTML page with everything: it loads nothing and needs no script."""

import re
from collections.abc import Iterable, Iterator, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined
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
    gap_table,
    labels,
    shown_columns,
)
from localspec.bench.row import ResultRow
from localspec.bench.store import Results
from localspec.format import number


def page(results: Sequence[Results]) -> str:
    """The page as HTML."""
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
