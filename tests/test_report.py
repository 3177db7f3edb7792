"""Can what was measured be read: as a table, a file for another program, pictures, a page?"""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from browser import tab
from command import localspec
from measured import cases, results

from localspec.bench.report.chart import Chart, ChartPoint, Series, log_ticks, ticks
from localspec.bench.report.charts import charts_of
from localspec.bench.report.documents import page
from localspec.bench.report.svg import WIDTH, picture
from localspec.bench.report.tables import all_rows
from localspec.bench.sample import Sample
from localspec.bench.store import Results

pytestmark = pytest.mark.engine  # its results are measured
PICTURES = ("roofline", "predicted", "rests-on", "depth", "gap", "verification", "acceptance")
TEXTS_OUTSIDE = """() => [...document.querySelectorAll('svg text')].filter(text => {
    const box = text.getBoundingClientRect(), svg = text.ownerSVGElement.getBoundingClientRect();
    return box.left < svg.left - 1 || box.right > svg.right + 1 || box.bottom > svg.bottom + 1;
}).map(text => text.textContent)"""
CONTRAST = """() => {
    const light = colour => {
        const parts = colour.match(/[0-9.]+/g).slice(0, 3).map(Number).map(v => v / 255)
            .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const style = getComputedStyle(document.body);
    return [light(style.color), light(style.backgroundColor)];
}"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results(tmp_path_factory.mktemp("results") / "run.jsonl")


@pytest.fixture(scope="module")
def address(measured: Results, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page([measured]), encoding="utf-8")
    return path.as_uri()


@pytest.mark.parametrize(
    ("width", "scheme", "scripts"),
    [(1280, "light", True), (390, "light", True), (1280, "dark", False), (390, "dark", True)],
)
def test_the_page_in_a_browser(address: str, width: int, scheme: Any, scripts: bool) -> None:
    """On a desk and a phone, by day and by night: complete, silent, alone and within its width."""
    size: Any = {"width": width, "height": 800}
    with tab(viewport=size, color_scheme=scheme, java_script_enabled=scripts) as opened:
        opened.page.goto(address)
        assert opened.requests == [address]
        assert opened.console == []
        assert opened.page.locator("figure").count() == len(PICTURES)
        for picture in PICTURES:
            assert opened.page.locator(f"figure#{picture} svg").is_visible()
        assert opened.page.locator("angle").count() == 0
        if scripts:
            assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
            assert opened.page.evaluate(TEXTS_OUTSIDE) == []
            ink, paper = opened.page.evaluate(CONTRAST)
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) > 7
            assert (paper < ink) == (scheme == "dark")


def test_an_option_stays_on_one_line(tmp_path: Path) -> None:
    """Browsers break a line behind `--`: the option that helps was shown as two words."""
    found = results(tmp_path / "run.jsonl")
    skipped = (*found.header.skipped, ("a case", "<too> long for --ctx 64"))
    text = page([replace(found, header=replace(found.header, skipped=skipped))])
    assert "&lt;too&gt; long for <code>--ctx</code> 64" in text


def test_the_page_is_printed_in_ink_on_white(address: str, tmp_path: Path) -> None:
    with tab(color_scheme="dark") as opened:
        opened.page.goto(address)
        opened.page.emulate_media(media="print")
        ink, paper = opened.page.evaluate(CONTRAST)
        assert ink < 0.1
        assert paper > 0.9
        opened.page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_files_of_two_machines_make_one_page(measured: Results, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    lines = [json.loads(line) for line in measured.path.read_text().splitlines()]
    for line in lines[1:]:
        line["environment"]["machine"] |= {"key": "another", "name": "Another <Machine>"}
    other.write_text("\n".join(map(json.dumps, lines)))
    html = tmp_path / "both.html"
    run = localspec("report", measured.path, other, "--html", html)
    assert run.code == 0, run.stderr
    assert "Another &lt;Machine&gt;" in html.read_text()
    merged = localspec("report", measured.path, other, "--json").document
    assert len(merged["rows"]) == 2 * len(cases())


def test_csv_has_a_line_a_case_with_plain_numbers(measured: Results) -> None:
    run = localspec("report", measured.path, "--format", "csv")
    rows = list(csv.DictReader(run.stdout.splitlines()))
    assert len(rows) == len(cases())
    for row in rows:
        if row["n_gen"] != "0":
            assert float(row["decode_low_tps"]) <= float(row["decode_tps"])
            assert float(row["decode_tps"]) <= float(row["decode_high_tps"])
            assert float(row["predicted_tps"]) > 0


def test_markdown_tables_are_rectangular(measured: Results) -> None:
    run = localspec("report", measured.path, "--format", "md")
    tables = [line for line in run.stdout.splitlines() if line.startswith("|")]
    assert len(tables) > len(cases())
    lengths = [line.count("|") for line in tables]
    assert len(set(lengths)) == 2


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_tables_fit_the_terminal(measured: Results, columns: str) -> None:
    run = localspec("report", measured.path, COLUMNS=columns)
    assert run.code == 0, run.stderr
    assert max(len(line) for line in run.stdout.splitlines()) <= int(columns)
    for word in ("tok/s", "weights (computed)", "sampling, Python (measured)", "rest (left)"):
        assert word in run.stdout


def test_json_has_everything(measured: Results) -> None:
    document = localspec("report", measured.path, "--json").document
    plain = document["rows"][0]
    assert plain["decode_samples_tps"]
    assert plain["environment"]["engine"]["features"]
    assert plain["gap_ms"]["weights"] > 0
    assert document["skipped"][0]["reason"] == "it cannot be"
    lookup = next(row for row in document["rows"] if row["categories"] and row["acceptance"])
    assert {category["name"] for category in lookup["categories"]} == {"echo", "chat"}
    assert all(0 <= share <= 1 for share in lookup["acceptance_by_position"])
    assert plain["acceptance_by_position"] is None


def test_acceptance_by_position_is_of_all_samples(measured: Results) -> None:
    samples = (Sample(by_position=[[3, 4], [1, 3]]), Sample(), Sample(by_position=[[1, 4]]))
    row = replace(all_rows([measured])[0], samples=samples)
    assert row.acceptance_by_position == [0.5, 0.3333]


def test_pictures_are_written(measured: Results, tmp_path: Path) -> None:
    for option in ("--svg", "--png"):  # the first edition's name
        run = localspec("report", measured.path, option, tmp_path / option)
        assert run.code == 0, run.stderr
        written = sorted((tmp_path / option).iterdir())
        assert [path.name for path in written] == sorted(f"{key}.svg" for key in PICTURES)
        for path in written:
            assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_the_runs_that_correct_a_prediction_are_drawn_beside_it(measured: Results) -> None:
    """One run of another model, 25 % slower than predicted, moves this one a third of the way."""
    picture_of = {chart.key: chart for chart in charts_of(all_rows([measured]))}
    ran, used = picture_of["rests-on"].bars
    assert ran.label.startswith("another model")
    assert ran.parts == (("ran here", pytest.approx(25)),)
    assert used.label.startswith("prediction of")
    assert 5 < used.parts[0][1] < 12


def test_no_title_of_a_panel_reaches_into_the_next() -> None:
    series = Series("speed", (ChartPoint(0, 1), ChartPoint(1, 2)), "line")
    title = "rests on a probe of this machine and on more words than one line has room for " * 2
    charts = [Chart("a", each, "", "x", "y", (series,)) for each in (title, "short")]
    root = ElementTree.fromstring(picture("Two", charts))
    text = "{http://www.w3.org/2000/svg}text"
    lines = [each.text or "" for each in root.iter(text)]
    assert title.strip() in " ".join(lines)
    assert max(map(len, lines)) * 7 < WIDTH


def test_ticks_are_round_and_within() -> None:
    for low, high in ((0, 1), (0, 134.2), (-12, 40), (0, 5e9)):
        found = ticks(low, high)
        assert 3 <= len(found) <= 8
        assert all(low - 1e-6 <= tick <= high + 1e-6 for tick in found)
    assert log_ticks(0.1, 1000) == pytest.approx([0.1, 1, 10, 100, 1000])
