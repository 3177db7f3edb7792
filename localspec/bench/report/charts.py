"""The pictures of a report, without those that have no data.

A prediction from a probe is corrected by what models took here before. The runs are kept as ratios,
seconds a token over those that were predicted without them, and so they are drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from localspec.bench.prediction import Prediction
from localspec.bench.report.chart import Bar, BarChart, Chart, ChartPoint, Series
from localspec.bench.report.tables import labels
from localspec.bench.row import ResultRow
from localspec.format import interval, number, percent
from localspec.session.session_config import SessionConfig

LARGEST_GAPS = 12
MOST_MODELS = 20
INTENSITY = (0.1, 1000.0)


def charts_of(rows: Sequence[ResultRow]) -> list[Chart | BarChart]:
    """In this order: speed, its reasons, and where the rest of the time goes."""
    timed = [row for row in rows if row.decode_tps or row.prefill_tps]
    found = (
        _roofline(timed),
        _predicted(timed),
        _rests_on(timed),
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
    series = [*_roofs([said for _, said in known]), Series("decode", _points(known, _decoded))]
    if prefill := _points(known, _prefilled):
        series.append(Series("prefill", prefill, tone=1))
    return Chart(
        "roofline",
        "Roofline",
        "Every case by its FLOP per streamed byte. Memory bandwidth sets the slope, and wide passes"
        " of the model set the top. The distance to them is the gap.",
        "FLOP per byte",
        "GFLOP/s",
        tuple(series),
        is_log=True,
    )


Placed = Callable[[str, ResultRow, Prediction], ChartPoint | None]


def _points(
    known: Sequence[tuple[ResultRow, Prediction]], placed: Placed
) -> tuple[ChartPoint, ...]:
    names = labels([row for row, _ in known])
    found = (placed(name, *pair) for pair, name in zip(known, names, strict=True))
    return tuple(point for point in found if point is not None)


def _decoded(name: str, row: ResultRow, said: Prediction) -> ChartPoint | None:
    if row.passes_per_s is None:
        return None
    note = f"{name}: {number(row.decode_each_tps)} tok/s a user"
    per_byte = said.pass_flops / said.pass_bytes
    return ChartPoint(per_byte, said.pass_flops * row.passes_per_s / 1e9, note=note)


def _prefilled(name: str, row: ResultRow, said: Prediction) -> ChartPoint | None:
    n_prompt = row.case.work.n_prompt * row.case.work.batch
    if row.prefill_tps is None or not said.prompt_flops or not n_prompt:
        return None
    note = f"{name}: {number(row.prefill_tps.mid)} tok/s prefill"
    flops_per_s = said.prompt_flops * (row.prefill_tps.mid / n_prompt)
    return ChartPoint(said.prompt_flops / said.prompt_bytes, flops_per_s / 1e9, note=note)


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
        name = f"roof: {number(bandwidth / 1e9)} GB/s, {number(flops / 1e9)} GFLOP/s"
        yield Series.line(name, (ChartPoint(x, min(bandwidth * x, flops) / 1e9) for x in corners))


def _predicted(rows: Sequence[ResultRow]) -> Chart | None:
    """Measured over predicted, both with intervals."""
    rows = [row for row in rows if row.decode_tps and row.predicted_tps]
    known = [
        (name, row.decode_tps, row.predicted_tps)
        for row, name in zip(rows, labels(rows), strict=True)
        if row.decode_tps and row.predicted_tps
    ]
    if not known:
        return None
    points = [
        ChartPoint(
            said.mid, found.mid, found.low, found.high,
            f"{name}: {interval(found.mid, found.low, found.high)} tok/s measured,"
            f" {number(said.mid)} predicted",
        )
        for name, found, said in known
    ]  # fmt: skip
    ends = [value for p in points for value in (p.x, p.y)]
    low, high = min(ends) / 1.3, max(ends) * 1.3
    factors = min(s.low / s.mid for *_, s in known), max(s.high / s.mid for *_, s in known)
    edges = [
        Series.line(name, (ChartPoint(low, low * f), ChartPoint(high, high * f)), dashed=f != 1)
        for name, f in (("equal", 1.0), ("predicted interval", factors[0]), ("", factors[1]))
    ]
    return Chart(
        "predicted",
        "Predicted and measured",
        "Decoding speed. A prediction on the line is right, and one between the dashed lines is"
        " within its interval. Points above the line are faster than predicted.",
        "predicted tok/s",
        "measured tok/s",
        (*edges, Series("cases", tuple(points), tone=0)),
        is_log=True,
    )


def _rests_on(rows: Sequence[ResultRow]) -> BarChart | None:
    """What ran here before, and how far it moved the predictions of these models."""
    known = {row.case.config.model.stem: row.prediction for row in rows if row.prediction}
    runs = {run.model: run.ratio for said in known.values() for run in said.rests_on}
    if not runs:
        return None
    latest = list(runs.items())[-MOST_MODELS:]
    return BarChart(
        "rests-on",
        "Runs that the predictions rest on",
        "Time a token beyond what the probe alone predicts: of every model that ran here before,"
        " and what of it counts for the models of this report. Few runs move a prediction a"
        " little, a model's own run most.",
        "% longer than the probe says",
        (*(_beyond(model, "ran here", x) for model, x in latest), *_corrections(known)),
    )


def _corrections(known: dict[str, Prediction]) -> Iterator[Bar]:
    for name, said in known.items():
        speed = said.decode_tps
        low, high = (percent(x / speed.mid) for x in (speed.low, speed.high))
        label = f"prediction of {name}, interval {low} to {high} of it"
        yield _beyond(label, "correction", said.correction)


def _beyond(label: str, part: str, ratio: float) -> Bar:
    """A ratio as percent beyond 1."""
    more = 100 * (ratio - 1)
    return Bar(label, ((part, more),), f"{more:+.0f} %")


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
        series.append(Series.line(name, measured, tone))
        said = [
            ChartPoint(row.case.work.depth, speed.mid, speed.low, speed.high)
            for row in group
            if (speed := row.predicted_tps)
        ]
        if said:
            series.append(Series.line("", said, tone, dashed=True))
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
    several = len({row.case.work.batch for row in rows}) > 1
    return [
        (name.removeprefix(row.case.work.text).strip() or row.case.setting_text)
        + (f" x {row.case.work.batch}" if several else "")
        for row, name in zip(rows, labels(rows), strict=True)
    ]


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
        points = (
            ChartPoint(n, s / one, note=f"{n} tokens: {s / one:.2f} passes")
            for n, s in row.curve.items()
        )
        series.append(Series.line(f"measured, {name}", points, tone))
        if said := _predicted_curve(rows, row):
            series.append(Series.line("", said, tone, dashed=True))
    last = max(n for row in curved for n in row.curve)
    ideal = Series.line("one pass for each token", (ChartPoint(1, 1), ChartPoint(last, last)))
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
