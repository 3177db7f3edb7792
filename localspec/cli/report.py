"""`localspec report` and `compare`: stored results as tables and pictures, and beside others."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from localspec.cli.options import JsonFlag
from localspec.cli.output import (
    fields_of,
    folding_table,
    make_folder,
    notify,
    print_json,
    write_text,
)
from localspec.display import console as console_of
from localspec.display import echo
from localspec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localspec.bench.compare import Comparison
    from localspec.bench.store import Results

Form = Literal["table", "json", "csv", "md", "bench-json", "bench-md", "scoreboard"]
FileArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="Results of bench or of `llama-bench -o json`.")
]


def report(
    files: list[str] | None = typer.Argument(
        None, metavar="[FILE]...", help="Results; several are merged. Default: the newest."
    ),
    form: Form = typer.Option(
        "table",
        "--format",
        help="Form of stdout; bench-json, bench-md: as llama-bench; scoreboard: a line to paste.",
    ),
    html: Path | None = typer.Option(None, metavar="FILE", help="Write one page with pictures."),
    svg: Path | None = typer.Option(None, metavar="DIR", help="Write each picture as an SVG file."),
    png: Path | None = typer.Option(None, metavar="DIR", hidden=True),
    as_json: bool = typer.Option(False, "--json", help="As --format json."),
) -> None:
    """Show stored results as tables and pictures.

    localspec report --html page.html

    localspec report laptop.jsonl desktop.jsonl --format md
    """
    results = [open_results(name) for name in files or [None]]
    if html:
        from localspec.bench.report.documents import page

        write_text(html, "--html", page(results))
    if png:
        notify("--png writes SVG files: use --svg")
    folder = svg or png
    if folder:
        from localspec.bench.report.charts import charts_of
        from localspec.bench.report.svg import picture
        from localspec.bench.report.tables import all_rows

        make_folder(folder, "--svg")
        for chart in charts_of(all_rows(results)):
            write_text(folder / f"{chart.key}.svg", "--svg", picture(chart.caption, [chart]))
    if not (html or folder) or form != "table" or as_json:
        print_results(results, "json" if as_json else form)


def open_results(name: str | None) -> "Results":
    """A file by its path or by its name in the folder of results; the newest of a folder.

    None: the newest of all.
    """
    from localspec.bench.llama_bench import results_of, rows_in
    from localspec.bench.store import path_of, read_results, result_files, results_folder
    from localspec.store import read_text

    path = results_folder() if name is None else path_of(name)
    if path.is_dir() or name is None:
        newest = next(iter(result_files(path)), None)
        if newest is None:
            raise UserError(f"there are no results in {path}: run `localspec bench` first")
        return read_results(newest)
    rows = rows_in(read_text(path, str(path)))
    return results_of(path, rows) if rows else read_results(path)


def print_results(results: "Sequence[Results]", form: Form) -> None:
    """Raises UserError where llama-bench could have measured none of them."""
    from localspec.bench import llama_bench
    from localspec.bench.report.documents import csv_text, document, markdown_text
    from localspec.bench.report.tables import all_rows
    from localspec.cli.bench_tables import show

    if form == "json":
        print_json(document(results))
    elif form == "csv":
        echo(csv_text(results), end="")
    elif form == "md":
        echo(markdown_text(results), end="")
    elif form == "table":
        show(results)
    else:
        rows = list(llama_bench.rows_of(all_rows(results)))
        if form == "bench-json":
            print_json(rows)
        else:
            shown = llama_bench.markdown if form == "bench-md" else llama_bench.scoreboard
            echo(shown(rows), end="")


def compare(before: FileArgument, after: FileArgument, as_json: JsonFlag = False) -> None:
    """Compare two results: the second's speed by case, regressions first.

    localspec compare old-engine.jsonl new-engine.jsonl
    """
    from localspec.bench.compare import compare as compared

    found = compared(open_results(before), open_results(after))
    if as_json:
        print_json(_comparison(found))
    else:
        _show_comparison(found)


def _comparison(found: "Comparison") -> dict[str, Any]:
    return {
        "differs": list(found.differs),
        "drift": found.drift.sd if found.drift else None,
        "cases": [
            {
                "case": case.b.case.work.text,
                "model": case.b.model_name,
                "setting": case.b.case.setting_text,
                "measure": case.measure,
                "ratio": fields_of(case.ratio, "low", "mid", "high"),
                "verdict": case.verdict,
                "before_tps": case.a_tps,
                "after_tps": case.b_tps,
                "differs": list(case.differs),
            }
            for case in found.cases
        ],
        "only_before": [row.case.text for row in found.only_a],
        "only_after": [row.case.text for row in found.only_b],
    }


def _show_comparison(found: "Comparison") -> None:
    from rich.text import Text

    from localspec.bench.report.tables import labels
    from localspec.format import interval, number

    console = console_of()
    for text in found.differs:
        console.print(Text(text))
    drift = f", drift {100 * found.drift.sd:.1f} %" if found.drift else ""
    has_energy = any(case.measure == "energy" for case in found.cases)
    unit = "tok/s (energy: tokens a joule)" if has_energy else "tok/s"
    console.print(Text(f"{unit} before and after; ratio with its 99 % interval{drift}\n"))
    table = folding_table("case")
    for name in ("", "before", "after", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    names = labels([case.b for case in found.cases])
    for case, name in zip(found.cases, names, strict=True):
        ratio = case.ratio
        own = [text for text in case.differs if text not in found.differs]
        table.add_row(
            ", ".join([name, *own]),
            case.measure,
            number(case.a_tps),
            number(case.b_tps),
            interval(ratio.mid, ratio.low, ratio.high),
            Text(case.verdict, style={"slower": "red", "faster": "green"}.get(ratio.verdict, "")),
        )
    console.print(table)
    for side, rows in (("before", found.only_a), ("after", found.only_b)):
        for row in rows:
            notify(f"only {side}: {row.case.text}")
