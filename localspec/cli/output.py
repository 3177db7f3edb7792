"""Documents for programs, tables for people, and files that an option names."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from localspec.cli.notify import notify
from localspec.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_json(document: Any) -> None:
    """One JSON document on stdout. An unknown number is null, never NaN."""
    typer.echo(json.dumps(document, allow_nan=False))


def fields_of(source: object, *names: str) -> dict[str, Any]:
    """Attributes by name, for a document."""
    return {name: getattr(source, name) for name in names}


Rows = Iterable[Iterable[str]]
UNLIMITED = 1000
"""Cells of a terminal in which every table fits."""


def table_of(
    *columns: str, rows: Rows = (), left: int = 1, no_wrap: bool = True, **more: Any
) -> "Table":
    """A table without lines: the first `left` columns to the left, the others to the right."""
    from rich.table import Table
    from rich.text import Text

    usual: dict[str, Any] = {"box": None, "title_justify": "left", "title_style": ""}
    table = Table(**{**usual, **more}, pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < left else "right", no_wrap=no_wrap)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def folding_table(*columns: str, rows: Rows = (), **more: Any) -> "Table":
    """A table of texts: long ones go on in the next line."""
    table = table_of(*columns, rows=rows, left=len(columns), no_wrap=False, **more)
    for column in table.columns:
        column.overflow = "fold"
    return table


def labelled_table() -> "Table":
    """Labels, and beside each a text that may take several lines."""
    table = table_of("", show_header=False)
    table.add_column(overflow="fold")
    return table


def ruled_table(title: str, *columns: str, left: int = 1, no_wrap: bool = True) -> "Table":
    """A table with a title and ruled headings; its first `left` columns go to the left."""
    from rich import box

    more: dict[str, Any] = {"title": title, "title_style": None, "box": box.SIMPLE_HEAD}
    return table_of(*columns, left=left, no_wrap=no_wrap, **more)


def fitting(
    console: "Console", make: Callable[[Sequence[str]], "Table"], names: Sequence[str], *less: str
) -> "Table":
    """A table of all columns, without the `less` needed ones that the terminal has no room for."""
    unlimited = console.options.update(max_width=UNLIMITED)
    table = make(names)
    for name in filter(names.__contains__, less):
        if console.measure(table, options=unlimited).maximum <= console.width:
            break
        names = [each for each in names if each != name]
        table = make(names)
    return table


def write_text(path: Path, option: str, text: str) -> None:
    """Write a file and say so. Raises UserError if that fails."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{option} {path} cannot be written: {error.strerror or error}") from error
    notify(f"wrote {path}")


def make_folder(folder: Path, option: str) -> Path:
    """The folder, made where it is not there. Raises UserError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{option} {folder} is no usable folder: {error.strerror}") from error
    return folder
