"""The columns and tables that all reports share, and the words that tell rows apart."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from localspec.bench.row import CategoryRow, ResultRow, rows_of
from localspec.bench.statistics import Estimate
from localspec.bench.store import Results
from localspec.fields import Row, value_text
from localspec.format import NOTHING, gigabytes, interval, milliseconds, number, percent, seconds
from localspec.prediction.rates import Speed
from localspec.settings import NONE, ROWS, Settings

CellValue = Callable[[ResultRow], Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; the first column names its row, the others are numbers."""

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Column:
    """`key` heads it in CSV, with the plain `value`; `header` and `text` are for people."""

    key: str
    header: str
    value: CellValue
    text: Callable[[ResultRow], str]
    is_number: bool = True


def _plain(key: str, header: str, value: CellValue) -> Column:
    return Column(key, header, value, lambda row: str(value(row)), is_number=False)


def _number(
    key: str, header: str, value: CellValue, shown: Callable[[Any], str] = number
) -> Column:
    return Column(key, header, value, lambda row: shown(value(row)))


def _mid(found: Estimate | Speed | None) -> float | None:
    return found.mid if found else None


def _interval(found: Estimate | Speed | None) -> str:
    return interval(found.mid, found.low, found.high) if found else NOTHING


def _by_position(row: ResultRow) -> str:
    """As "71 55 40 %", of the first eight."""
    shares = [f"{100 * share:.0f}" for share in row.acceptance_by_position or []][:8]
    return f"{' '.join(shares)} %" if shares else NOTHING


def _setting(row: Row) -> Column:
    """A setting; one that seldom changes shows nothing at its default."""

    def value(result: ResultRow) -> Any:
        found = getattr(_shown(result), row.name)
        return NOTHING if found is None and not row.is_engine else found

    def text(result: ResultRow) -> str:
        found = value(result)
        is_usual = row.name not in _ALWAYS and found == row.default
        return NOTHING if is_usual else value_text(found)

    return Column(row.name, row.short, value, text, is_number=row.name == "gpu_layers")


def _shown(row: ResultRow) -> Settings:
    """The settings to show; a curve depends on the engine's alone."""
    settings = row.case.settings
    return replace(settings, spec=NONE, draft_max=None) if row.is_curve else settings


_ALWAYS = frozenset({"kv_k", "kv_v", "flash_attn", "threads", "spec"})
SETTINGS = (
    _plain("machine", "machine", lambda row: row.machine),
    _plain("engine", "engine", lambda row: row.environment["engine"]["fingerprint"][:6]),
    _plain("model", "model", lambda row: row.model_name),
    *(
        _setting(row)
        for row in sorted(ROWS.values(), key=lambda row: not row.is_engine)
        if row.is_swept
    ),
)
TEST = _plain("test", "test", lambda row: row.case.work.text)
DECODE = Column(
    "decode_tps", "tok/s", lambda row: _mid(row.decode_tps),
    lambda row: f"failed: {row.reason}" if row.reason else _interval(row.decode_tps),
)  # fmt: skip
PREDICTED = Column(
    "predicted_tps", "predicted",
    lambda row: _mid(row.predicted_tps), lambda row: _interval(row.predicted_tps),
)  # fmt: skip
FIGURES = (
    _number("prefill_tps", "prefill", lambda row: _mid(row.prefill_tps)),
    _number("roofline_share", "roof", lambda row: row.roofline_share, percent),
    _number("engine_tps", "engine", lambda row: row.engine_tps),
    _number("tpot_ms", "ms/tok", lambda row: row.tpot_ms),
    _number("first_s", "first s", lambda row: _mid(row.first_s), seconds),
    _number("decode_each_tps", "each", lambda row: row.decode_each_tps),
    _number("acceptance", "accept", lambda row: row.acceptance, percent),
    Column(
        "acceptance_by_position", "by place", lambda row: row.acceptance_by_position, _by_position
    ),
    _number("tokens_per_pass", "tok/pass", lambda row: row.tokens_per_pass),
    _number("bytes_per_s", "GB/s", lambda row: row.bytes_per_s, gigabytes),
    _number("joules_per_token", "J/tok", lambda row: row.joules_per_token),
    _number("peak_bytes", "GB", lambda row: row.peak_bytes, gigabytes),
)
ONLY_IN_CSV = (
    _number("decode_low_tps", "", lambda row: row.decode_tps.low if row.decode_tps else None),
    _number("decode_high_tps", "", lambda row: row.decode_tps.high if row.decode_tps else None),
    _number("predicted_low_tps", "", lambda row: row.predicted_tps and row.predicted_tps.low),
    _number("predicted_high_tps", "", lambda row: row.predicted_tps and row.predicted_tps.high),
    _number("predicted_prefill_tps", "", lambda row: _mid(_predicted_of(row, "prefill_tps"))),
    _number("predicted_first_s", "", lambda row: _predicted_of(row, "first_s")),
    _number("predicted_memory_bytes", "", lambda row: _predicted_of(row, "memory_bytes")),
    _number("n_samples", "", lambda row: len(row.samples)),
    _number("n_visits", "", lambda row: len(row.visits)),
    _number("more_visits", "", lambda row: row.more_visits),
    _plain("reason", "", lambda row: row.reason or ""),
)  # fmt: skip
WORK_IN_CSV = tuple(
    _number(key, "", lambda row, key=key: getattr(row.case.work, key))
    for key in ("n_prompt", "n_gen", "depth", "batch")
)


def shown_columns(rows: Sequence[ResultRow]) -> list[Column]:
    """The settings that differ between rows, then the figures that any row has."""
    settings = [column for column in SETTINGS if len({column.text(row) for row in rows}) > 1]
    figures = [column for column in FIGURES if _is_known(column, rows)]
    return [*settings, TEST, DECODE, PREDICTED, *figures]


def common_settings(rows: Sequence[ResultRow], but: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Settings `but` some that all rows share and that show anything, for the heading."""
    texts = {c.header: {c.text(row) for row in rows} for c in SETTINGS if c.header not in but}
    shared = [(name, *found) for name, found in texts.items() if len(found) == 1]
    return [(name, text) for name, text in shared if text != NOTHING]


def gap_table(rows: Sequence[ResultRow]) -> Table | None:
    """The parts of a token's time, a line for each case; None where no gap is known."""
    known = [(name, row.gap) for name, row in zip(labels(rows), rows, strict=True) if row.gap]
    if not known:
        return None
    parts = known[0][1].parts
    return Table(
        "Where the milliseconds of a token go",
        "Rest: the measured time minus all parts. Share: the rest over the measured time.",
        ["", "measured", *(part.name for part in parts), "share"],
        [
            [name, *(milliseconds(s) for s in (gap.token_s, *(p.seconds for p in gap.parts))),
             percent(gap.rest_share)]
            for name, gap in known
        ],
    )  # fmt: skip


def category_table(rows: Sequence[ResultRow]) -> Table | None:
    """Categories down, drafters across; None without real questions."""
    known = [row for row in rows if row.categories]
    if not known:
        return None
    names = dict.fromkeys(category.name for row in known for category in row.categories)
    found = [{category.name: category for category in row.categories} for row in known]
    return Table(
        "By category",
        "Tokens per second, and the share of accepted drafted tokens.",
        ["category", *labels(known)],
        [[name, *(_category(each.get(name)) for each in found)] for name in names],
    )


def _category(row: CategoryRow | None) -> str:
    if row is None:
        return NOTHING
    accepted = f" · {percent(row.acceptance)}" if row.acceptance is not None else ""
    return number(row.decode_tps) + accepted


def labels(rows: Sequence[ResultRow]) -> list[str]:
    """For each row, the settings that tell it from the others, in a few words."""
    varying = [c for c in SETTINGS if len({c.text(row) for row in rows}) > 1]
    return [_label(row, {c.key for c in varying}) for row in rows]


def _label(row: ResultRow, varying: set[str]) -> str:
    settings = _shown(row)
    cache = "/".join(dict.fromkeys((settings.kv_k, settings.kv_v)))
    words = {
        "machine": row.machine,
        "model": row.model_name,
        "kv_k": cache,
        "kv_v": "" if "kv_k" in varying else cache,
        "spec": "plain" if settings.spec == NONE else settings.spec,
    }
    for column in SETTINGS:
        text = column.text(row)
        words.setdefault(column.key, "" if text == NOTHING else f"{column.header} {text}")
    parts = [words[column.key] for column in SETTINGS if column.key in varying]
    return " ".join([row.case.work.text, *filter(None, parts)])


def csv_columns() -> list[Column]:
    return [*SETTINGS, TEST, *WORK_IN_CSV, DECODE, PREDICTED, *FIGURES, *ONLY_IN_CSV]


def _is_known(column: Column, rows: Sequence[ResultRow]) -> bool:
    if column.key == "decode_each_tps":
        return any(row.case.work.batch > 1 for row in rows)
    if column.key in ("acceptance", "tokens_per_pass"):
        return any(row.acceptance is not None for row in rows)
    return any(column.value(row) is not None for row in rows)


def _predicted_of(row: ResultRow, name: str) -> Any:
    return getattr(row.prediction, name) if row.prediction else None


def all_rows(results: Sequence[Results]) -> list[ResultRow]:
    """Rows of several files together."""
    return rows_of([visited for each in results for visited in each.visits])
