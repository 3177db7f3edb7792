"""The pictures of a report, without those that have no data."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from localspec.bench.prediction import Prediction
from localspec.bench.report.chart import Bar, BarChart, Chart, ChartPoint, Series
from localspec.bench.report.predicted import predicted, rests_on
from localspec.bench.report.tables import labels
from localspec.bench.row import ResultRow
from localspec.format import number, percent
from localspec.session.asking import SessionConfig

LARGEST_GAPS = 12
INTENSITY = (0.1, 1000.0)


def charts_of(rows: Sequence[ResultRow]) -> list[Chart | BarChart]:
    """In this order: speed, its reasons, and where the rest of the time goes."""
    timed = [row for row in rows if row.decode_tps or row.prefill_tps]
    found = (
        _roofline(timed),
        predicted(timed),
        rests_on(timed),
        _by_depth(timed),
        _gaps(timed),
        _verification(rows),
        _acceptance(timed),
    )
    return [chart for chart in found if chart is not None]


def _roofline(rows: Sequence[ResultRow]) -> Chart | None:
    """FLOP/s over arithmetic intensity: memory limits under the slope, compute under the top."""
    known = [(row, row.prediction) for row in rows if row.prediction]
    if not known:
        return None
    decode, prefill = _points(known, _decoded), _points(known, _prefilled)
    roofs = list(_roofs([prediction for _, prediction in known]))
    return Chart(
        "roofline",
        "Roofline",
        "Every case by its FLOP per streamed byte. Memory bandwidth sets the slope, and wide passes"
        " of the model set the top. The distance to them is the gap.",
        "FLOP per byte",
        "GFLOP/s",
        (
            *roofs,
            Series("decode", decode, tone=0),
            *([Series("prefill", prefill, tone=1)] if prefill else []),
        ),
        is_log=True,
    )


def _points(
    known: Sequence[tuple[ResultRow, Prediction]],
    passes: Callable[[ResultRow, Prediction], tuple[float, float, float, str] | None],
) -> tuple[ChartPoint, ...]:
    """`passes`: FLOP and bytes of one pass, passes a second, and the speed in words."""
    names = labels([row for row, _ in known])
    found = ((name, passes(*pair)) for pair, name in zip(known, names, strict=True))
    return tuple(
        ChartPoint(each[0] / each[1], each[0] * each[2] / 1e9, note=f"{name}: {each[3]}")
        for name, each in found
        if each is not None
    )


def _decoded(row: ResultRow, said: Prediction) -> tuple[float, float, float, str] | None:
    if row.passes_per_s is None:
        return None
    speed = f"{number(row.decode_each_tps)} tok/s a user"
    return said.pass_flops, said.pass_bytes, row.passes_per_s, speed


def _prefilled(row: ResultRow, said: Prediction) -> tuple[float, float, float, str] | None:
    n_prompt = row.case.work.n_prompt * row.case.work.batch
    if row.prefill_tps is None or not said.prompt_flops or not n_prompt:
        return None
    speed = f"{number(row.prefill_tps.mid)} tok/s prefill"
    return said.prompt_flops, said.prompt_bytes, row.prefill_tps.mid / n_prompt, speed


def _roofs(predictions: Sequence[Prediction]) -> Iterator[Series]:
    """One roof for each machine's bandwidth and compute."""
    tops = dict[float, float]()
    for said in predictions:
        bandwidth, flops = said.bandwidth_bytes_per_s, said.flops_per_s
        if bandwidth and flops:
            tops[bandwidth] = max(flops, tops.get(bandwidth, 0.0))
    for bandwidth, flops in tops.items():
        knee = flops / bandwidth
        corners = (INTENSITY[0], knee, max(INTENSITY[1], 2 * knee))
        yield Series(
            f"roof: {number(bandwidth / 1e9)} GB/s, {number(flops / 1e9)} GFLOP/s",
            tuple(ChartPoint(x, min(bandwidth * x, flops) / 1e9) for x in corners),
            "line",
            tone=None,
        )


def _by_depth(rows: Sequence[ResultRow]) -> Chart | None:
    """Decoding speed by depth, a line for each setting."""
    plain = [row for row in rows if row.decode_tps and not row.case.work.prompts]
    groups: dict[str, list[ResultRow]] = {}
    for row, name in zip(plain, _setting_labels(plain), strict=True):
        groups.setdefault(name, []).append(row)
    if not any(len(group) > 1 for group in groups.values()):
        return None
    series: list[Series] = []
    for tone, (name, group) in enumerate(groups.items()):
        group.sort(key=lambda row: row.case.work.depth)
        measured = [
            ChartPoint(row.case.work.depth, e.mid, e.low, e.high, f"{name}: {number(e.mid)} tok/s")
            for row in group
            if (e := row.decode_tps)
        ]
        series.append(Series(name, tuple(measured), "line", tone=tone))
        said = [
            ChartPoint(row.case.work.depth, speed.mid, speed.low, speed.high)
            for row in group
            if (speed := row.predicted_tps)
        ]
        if said:
            series.append(Series("", tuple(said), "line", dashed=True, tone=tone))
    return Chart(
        "depth",
        "Speed by depth and KV type",
        "Decoding speed by tokens in the context. Dashed lines are predictions with intervals.",
        "depth in tokens",
        "tok/s",
        tuple(series),
    )


def _setting_labels(rows: Sequence[ResultRow]) -> list[str]:
    """Labels of the settings, without the work's depth."""
    names = labels(rows)
    batches = len({row.case.work.batch for row in rows}) > 1
    found: list[str] = []
    for row, name in zip(rows, names, strict=True):
        setting = name.removeprefix(row.case.work.text).strip() or row.case.setting_text
        found.append(setting + (f" x {row.case.work.batch}" if batches else ""))
    return found


def _gaps(rows: Sequence[ResultRow]) -> BarChart | None:
    """A token's time by parts, stacked; the rest may be negative."""
    known = [row for row in rows if row.gap][:LARGEST_GAPS]
    if not known:
        return None
    bars = [
        Bar(name, tuple((p.name, 1e3 * p.seconds) for p in row.gap.parts), number(row.tpot_ms))
        for row, name in zip(known, labels(known), strict=True)
        if row.gap
    ]
    return BarChart(
        "gap",
        "Where the milliseconds go",
        "Each part is measured or computed on its own. The rest is time that no part explains; it"
        " lies left of zero where the parts exceed the measured time.",
        "ms a token",
        tuple(bars),
    )


def _verification(rows: Sequence[ResultRow]) -> Chart | None:
    """v(n) = T(n) / T(1): the cost of verification, in plain passes."""
    curved = [row for row in rows if row.curve]
    if not curved:
        return None
    series: list[Series] = []
    for tone, (row, name) in enumerate(zip(curved, labels(curved), strict=True)):
        one = row.curve[min(row.curve)]
        points = tuple(
            ChartPoint(n, s / one, note=f"{n} tokens: {s / one:.2f} passes")
            for n, s in row.curve.items()
        )
        series.append(Series(f"measured, {name}", points, "line", tone=tone))
        said = _predicted_curve(rows, row)
        if said:
            series.append(Series("", said, "line", dashed=True, tone=tone))
    last = max(n for row in curved for n in row.curve)
    ideal = Series(
        "one pass for each token", (ChartPoint(1, 1), ChartPoint(last, last)), "line", tone=None
    )
    return Chart(
        "verification",
        "Verification curve",
        "The cost of a pass over n tokens, in plain passes. Where the curve stays low, verifying"
        " drafts is nearly free. Dashed lines are predictions.",
        "tokens in a pass",
        "T(n) / T(1)",
        (ideal, *series),
    )


def _predicted_curve(rows: Sequence[ResultRow], curve: ResultRow) -> tuple[ChartPoint, ...]:
    """The predicted curve, from a plain row of the same model, setting and depth."""
    config, depth = curve.case.config, curve.case.work.depth
    for row in rows:
        same = _as_plain(row.case.config) == _as_plain(config)
        if row.prediction and same and row.case.work.depth == depth and row.case.work.batch == 1:
            one = row.prediction.passes[0].seconds
            passes = enumerate(row.prediction.passes, 1)
            return tuple(ChartPoint(n, p.seconds / one) for n, p in passes if n <= max(curve.curve))
    return ()


def _as_plain(config: SessionConfig) -> SessionConfig:
    """The configuration with only the settings that a plain pass depends on."""
    return replace(config, settings=config.settings.for_engine)


def _acceptance(rows: Sequence[ResultRow]) -> BarChart | None:
    """Share of accepted drafted tokens, by category."""
    drafted = [row for row in rows if row.acceptance is not None and row.categories]
    if not drafted:
        return None
    several = len(drafted) > 1
    bars = [
        Bar(
            f"{category.name}{f', {name}' if several else ''}",
            ((name if several else "accepted", 100 * category.acceptance),),
            f"{percent(category.acceptance)}, {number(category.tokens_per_pass)} tokens a pass",
        )
        for row, name in zip(drafted, _setting_labels(drafted), strict=True)
        for category in row.categories
        if category.acceptance is not None
    ]
    bars.sort(key=lambda bar: bar.label)
    return BarChart(
        "acceptance",
        "Acceptance by category",
        "The share of drafted tokens that the target accepted.",
        "% of drafted tokens",
        tuple(bars),
    )
