"""Charts as inline SVG: colours come from the page's style sheet, so that they follow its theme."""

from collections.abc import Iterator
from html import escape

from localspec.bench.report.chart import (
    Axis,
    Bar,
    BarChart,
    Chart,
    ChartPoint,
    Series,
    axis_of,
    tick_text,
)

WIDTH, HEIGHT = 480, 330
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 44
TONES = 10
BAR_HEIGHT = 40
RADIUS = 4


def svg(chart: Chart | BarChart) -> str:
    """One element, as wide as its place."""
    if isinstance(chart, BarChart):
        height = TOP + BAR_HEIGHT * len(chart.bars) + BOTTOM
        lines = _bars(chart, height)
    else:
        height = HEIGHT
        lines = _chart(chart)
    body = "\n".join(lines)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(chart.title)}">\n'
        f"{body}\n</svg>"
    )


def tone_class(tone: int | None) -> str:
    """The class that has the colour."""
    return "none" if tone is None else f"t{tone % TONES}"


def _chart(chart: Chart) -> Iterator[str]:
    points = [point for series in chart.series for point in series.points]
    heights = [p.y for p in points] + [h for p in points for h in (p.low, p.high) if h is not None]
    x = axis_of([p.x for p in points], LEFT, WIDTH - RIGHT, is_log=chart.log_x)
    y = axis_of(heights, HEIGHT - BOTTOM, TOP, is_log=chart.log_y)
    yield from _frame(x, y, HEIGHT, chart.x_label)
    yield (
        f'<text class="label" transform="translate(12 {(TOP + HEIGHT - BOTTOM) / 2})'
        f' rotate(-90)" text-anchor="middle">{escape(chart.y_label)}</text>'
    )
    for series in chart.series:
        yield from _series(series, x, y)


def _frame(x: Axis, y: Axis | None, height: float, x_label: str) -> Iterator[str]:
    """Grid lines with their numbers."""
    bottom = height - BOTTOM
    for tick in x.ticks:
        place = x.place(tick)
        yield f'<path class="grid" d="M{place:.1f} {TOP}V{bottom}"/>'
        yield _text(place, bottom + 16, tick_text(tick), "middle")
    for tick in y.ticks if y else ():
        place = y.place(tick) if y else 0.0
        yield f'<path class="grid" d="M{LEFT} {place:.1f}H{WIDTH - RIGHT}"/>'
        yield _text(LEFT - 6, place + 4, tick_text(tick), "end")
    middle = (x.start + x.end) / 2
    yield (
        f'<text class="label" x="{middle:.1f}" y="{height - 8}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
    )


def _series(series: Series, x: Axis, y: Axis) -> Iterator[str]:
    tone = tone_class(series.tone)
    places = [(x.place(p.x), y.place(p.y)) for p in series.points]
    if series.kind == "line":
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in places)
        dashed = " dashed" if series.dashed else ""
        yield f'<path class="line {tone}{dashed}" d="M{path}"/>'
    if series.tone is None or series.dashed:
        return
    for point, (px, py) in zip(series.points, places, strict=True):
        yield from _whisker(point, px, y, tone)
        yield f"{_marker(series.tone, px, py)}{_note(point.note)}</path>"


def _whisker(point: ChartPoint, px: float, y: Axis, tone: str) -> Iterator[str]:
    if point.low is not None and point.high is not None:
        low, high = y.place(point.low), y.place(point.high)
        yield f'<path class="whisker {tone}" d="M{px:.1f} {low:.1f}V{high:.1f}"/>'


def _marker(tone: int, px: float, py: float) -> str:
    """A circle, square, triangle or diamond in turns: colour is not all that tells them apart."""
    r = RADIUS
    shapes = (
        f"m-{r} 0a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 -{2 * r} 0z",
        f"m-{r} -{r}h{2 * r}v{2 * r}h-{2 * r}z",
        f"m0 -{r + 1}l{r + 1} {2 * r}h-{2 * r + 2}z",
        f"m0 -{r + 2}l{r + 1} {r + 2}l-{r + 1} {r + 2}l-{r + 1} -{r + 2}z",
    )
    shape = shapes[tone % len(shapes)]
    return f'<path class="dot {tone_class(tone)}" d="M{px:.1f} {py:.1f}{shape}">'


def _note(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def _bars(chart: BarChart, height: float) -> Iterator[str]:
    ends = [end for bar in chart.bars for end in _ends(bar)]
    x = axis_of([0.0, *ends], 12, WIDTH - 48, is_log=False)
    yield from _frame(x, None, height, chart.x_label)
    tones = {name: i for i, name in enumerate(chart.names)}
    for i, bar in enumerate(chart.bars):
        top = TOP + BAR_HEIGHT * i
        yield _text(12, top + 13, bar.label)
        yield from _parts(bar, x, top + 18, tones)


def _parts(bar: Bar, x: Axis, top: float, tones: dict[str, int]) -> Iterator[str]:
    """Positive parts one after the other; negative ones to the left of zero."""
    right = left = 0.0
    for name, length in bar.parts:
        start = right if length >= 0 else left + length
        end = start + abs(length)
        right, left = (end, left) if length >= 0 else (right, start)
        width = max(0.0, x.place(end) - x.place(start))
        yield (
            f'<rect class="bar {tone_class(tones[name])}" x="{x.place(start):.1f}" y="{top}"'
            f' width="{width:.1f}" height="14">{_note(f"{name}: {length:.3g}")}</rect>'
        )
    yield _text(x.place(right) + 5, top + 11, bar.note.split(",")[0])


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _ends(bar: Bar) -> tuple[float, float]:
    lengths = [length for _, length in bar.parts]
    return sum(n for n in lengths if n < 0), sum(n for n in lengths if n > 0)
