"""The pictures of predictions: beside what was measured, and beside the runs they rest on.

A prediction from a probe is corrected by what models took here before. The runs are kept as ratios,
seconds a token over those that were predicted without them, and so they are drawn.
"""

from collections.abc import Iterator, Sequence

from localspec.bench.prediction import Prediction
from localspec.bench.report.chart import Bar, BarChart, Chart, ChartPoint, Series
from localspec.bench.report.tables import labels
from localspec.bench.row import ResultRow
from localspec.format import interval, number, percent

MOST_MODELS = 20


def predicted(rows: Sequence[ResultRow]) -> Chart | None:
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
        Series(
            name,
            (ChartPoint(low, low * f), ChartPoint(high, high * f)),
            "line",
            dashed=f != 1,
            tone=None,
        )
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


def rests_on(rows: Sequence[ResultRow]) -> BarChart | None:
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
        tuple(Bar(model, (("ran here", _beyond(x)),), _said(x)) for model, x in latest)
        + tuple(_corrections(known)),
    )


def _corrections(known: dict[str, Prediction]) -> Iterator[Bar]:
    for name, said in known.items():
        speed = said.decode_tps
        low, high = (percent(x / speed.mid) for x in (speed.low, speed.high))
        label = f"prediction of {name}, interval {low} to {high} of it"
        yield Bar(label, (("correction", _beyond(said.correction)),), _said(said.correction))


def _beyond(ratio: float) -> float:
    """In percent."""
    return 100 * (ratio - 1)


def _said(ratio: float) -> str:
    return f"{_beyond(ratio):+.0f} %"
