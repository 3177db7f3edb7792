"""Charts as SVG, for a page or as a file of their own.

A page's style sheet colours the charts by its theme. A file carries its own title, panels, keys and
colours.
"""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from textwrap import wrap

from localspec.bench.report.chart import Axis, Bar, BarChart, Chart, Series, axis_of, tick_text

WIDTH, HEIGHT = 480, 330
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 10, 44
TONES = 10
BAR_HEIGHT = 40
RADIUS = 4
LIGHT = {
    "card": "#ffffff", "ink": "#1d2228", "faint": "#5b6570", "rule": "#dcdfe3",
    "t0": "#0b62b0", "t1": "#c2570c", "t2": "#23803b", "t3": "#8a3fa8", "t4": "#a8780a",
    "t5": "#0b7f86", "t6": "#b52a5b", "t7": "#7a5230", "t8": "#4b5bc4", "t9": "#9aa0a6",
}  # fmt: skip
"""Colours on white."""
N_ACROSS, TITLE_HEIGHT, KEY_HEIGHT = 3, 34, 18
"""A file's panels in a row, and the heights of its title and of a line of a panel's text."""
N_LETTERS = 62
"""Of a panel's title in one line."""


def svg(chart: Chart | BarChart) -> str:
    """One element, as wide as its place."""
    body = "\n".join(_lines(chart))
    return (
        f'<svg viewBox="0 0 {WIDTH} {_height(chart)}" role="img"'
        f' aria-label="{escape(chart.title)}">\n{body}\n</svg>'
    )


def picture(title: str, charts: Sequence[Chart | BarChart]) -> str:
    """A whole file."""
    n_across = max(1, min(N_ACROSS, len(charts)))
    rows = [charts[i : i + n_across] for i in range(0, len(charts), n_across)]
    lines, top = [f'<text class="title" x="12" y="23">{escape(title)}</text>'], TITLE_HEIGHT
    for row in rows:
        n_title = max(len(_title(chart)) for chart in row)
        for i, chart in enumerate(row):
            panel = _panel(chart, n_title)
            lines += [f'<g transform="translate({i * WIDTH} {top})">', *panel, "</g>"]
        n_lines = n_title + 1
        top += max(_height(each) + KEY_HEIGHT * (n_lines + len([*keys_of(each)])) for each in row)
    size = f'width="{n_across * WIDTH}" height="{top}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}'
            f' viewBox="0 0 {n_across * WIDTH} {top}">',
            f"<style>\n{style(LIGHT.__getitem__)}\n</style>",
            f'<rect width="100%" height="100%" fill="{LIGHT["card"]}"/>',
            *lines,
            "</svg>\n",
        ]
    )


def style(colour: Callable[[str], str]) -> str:
    """The style sheet of charts; `colour` maps a name to a colour."""
    tones = [f"t{i}" for i in range(TONES)]
    return "\n".join(
        [
            f'svg text {{ fill: {colour("faint")}; font: 12px system-ui, "DejaVu Sans",'
            " sans-serif; }",
            f"svg .label {{ fill: {colour('ink')}; }}",
            f"svg .title {{ fill: {colour('ink')}; font-size: 15px; }}",
            f"svg .grid {{ stroke: {colour('rule')}; fill: none; }}",
            "svg .line, svg .whisker { fill: none; stroke-width: 1.6; }",
            f"svg .line.none {{ stroke: {colour('faint')}; }}",
            "svg .dashed { stroke-dasharray: 5 4; }",
            f"svg .dot {{ stroke: {colour('card')}; stroke-width: 1; }}",
            f"svg .bar.none {{ fill: {colour('faint')}; }}",
            *(f"svg .line.{t}, svg .whisker.{t} {{ stroke: {colour(t)}; }}" for t in tones),
            *(f"svg .dot.{t}, svg .bar.{t} {{ fill: {colour(t)}; }}" for t in tones),
        ]
    )


def keys_of(chart: Chart | BarChart) -> Iterator[tuple[str, str]]:
    """The class and name of everything in a chart that has a colour and a name."""
    if isinstance(chart, BarChart):
        if len(chart.names) > 1:
            yield from ((tone_class(i), name) for i, name in enumerate(chart.names))
        return
    yield from ((_class_of(series), series.name) for series in chart.series if series.name)


def _class_of(series: Series) -> str:
    return tone_class(series.tone) + " dashed" * series.dashed


def _title(chart: Chart | BarChart) -> list[str]:
    return wrap(chart.title, N_LETTERS) or [""]


def _panel(chart: Chart | BarChart, n_title: int) -> Iterator[str]:
    """A chart between its title, of so many lines, and its key."""
    for i, line in enumerate(_title(chart)):
        y = KEY_HEIGHT * i + 14
        yield f'<text class="label" x="{LEFT}" y="{y}">{escape(line)}</text>'
    yield f'<g transform="translate(0 {KEY_HEIGHT * n_title})">'
    yield from _lines(chart)
    for i, (tone, name) in enumerate(keys_of(chart)):
        y = KEY_HEIGHT * i + _height(chart)
        if "dashed" in tone:
            yield f'<path class="line {tone}" d="M{LEFT} {y + 6}h12"/>'
        else:
            yield f'<rect class="bar {tone}" x="{LEFT}" y="{y + 1}" width="10" height="10"/>'
        yield _text(LEFT + 16, y + 10, name)
    yield "</g>"


def _height(chart: Chart | BarChart) -> int:
    return TOP + BAR_HEIGHT * len(chart.bars) + BOTTOM if isinstance(chart, BarChart) else HEIGHT


def _lines(chart: Chart | BarChart) -> Iterator[str]:
    return _bars(chart, _height(chart)) if isinstance(chart, BarChart) else _chart(chart)


def tone_class(tone: int | None) -> str:
    """The style class of a tone."""
    return "none" if tone is None else f"t{tone % TONES}"


def _chart(chart: Chart) -> Iterator[str]:
    points = [point for series in chart.series for point in series.points]
    heights = [p.y for p in points] + [h for p in points for h in (p.low, p.high) if h is not None]
    x = axis_of([p.x for p in points], LEFT, WIDTH - RIGHT, is_log=chart.is_log)
    y = axis_of(heights, HEIGHT - BOTTOM, TOP, is_log=chart.is_log)
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
        yield f'<path class="line {_class_of(series)}" d="M{path}"/>'
    if series.tone is None or series.dashed:
        return
    for point, (px, py) in zip(series.points, places, strict=True):
        if point.low is not None and point.high is not None:
            low, high = y.place(point.low), y.place(point.high)
            yield f'<path class="whisker {tone}" d="M{px:.1f} {low:.1f}V{high:.1f}"/>'
        yield f"{_marker(series.tone, px, py)}{_note(point.note)}</path>"


def _marker(tone: int, px: float, py: float) -> str:
    """A circle, square, triangle or diamond in turn, so that shapes differ as colours do."""
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
