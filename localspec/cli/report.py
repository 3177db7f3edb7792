"""`localspec report`: tables and pictures from stored results."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from localspec.cli.notify import notify
from localspec.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from localspec.bench.store import Results

FilesArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FILE]...", help="Results; several are merged. Default: the newest."),
]


def report(
    files: FilesArgument = None,
    form: Annotated[
        Literal["table", "json", "csv", "md"], typer.Option("--format", help="What stdout gets.")
    ] = "table",
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one page with pictures.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write each picture as an SVG file.")
    ] = None,
    png: Annotated[Path | None, typer.Option(metavar="DIR", hidden=True)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As --format json.")] = False,
) -> None:
    """Tables and pictures from stored results.

    localspec report --html page.html

    localspec report laptop.jsonl desktop.jsonl --format md
    """
    results = [open_results(name) for name in files or [None]]
    if html:
        from localspec.bench.report.page import page

        write_text(html, "--html", page(results))
    if png:
        notify("--png writes SVG files: use --svg")
    folder = svg or png
    if folder:
        _write_pictures(results, folder)
    if not (html or folder) or form != "table" or as_json:
        _print(results, "json" if as_json else form)


def open_results(name: str | None) -> "Results":
    """A file by its path or by its name in the folder of results; None: the newest."""
    from localspec import paths
    from localspec.bench.store import read_results, result_files

    folder = paths.data_dir() / "results"
    if name is None:
        newest = next(iter(result_files(folder)), None)
        if newest is None:
            raise UserError(f"there are no results in {folder}: run `localspec bench` first")
        return read_results(newest)
    path = Path(name).expanduser()
    if path.is_dir():
        newest = next(iter(result_files(path)), None)
        if newest is None:
            raise UserError(f"there are no results in {path}")
        return read_results(newest)
    kept = folder / name
    return read_results(kept if not path.exists() and kept.exists() else path)


def _print(results: "Sequence[Results]", form: str) -> None:
    from localspec.bench.report.documents import csv_text, document, markdown_text

    if form == "json":
        typer.echo(json.dumps(document(results), allow_nan=False))
    elif form == "csv":
        typer.echo(csv_text(results), nl=False)
    elif form == "md":
        typer.echo(markdown_text(results), nl=False)
    else:
        from localspec.cli.bench_tables import show

        show(results)


def write_text(path: Path, option: str, text: str) -> None:
    """Write a file and say so. UserError if that cannot be done."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written: {error.strerror or error}") from error
    notify(f"wrote {path}")


def _write_pictures(results: "Sequence[Results]", folder: Path) -> None:
    from localspec.bench.report.charts import charts_of
    from localspec.bench.report.documents import all_rows
    from localspec.bench.report.svg import picture

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--svg {folder} cannot be written: {error.strerror or error}") from error
    for chart in charts_of(all_rows(results)):
        write_text(folder / f"{chart.key}.svg", "--svg", picture(chart.caption, [chart]))
