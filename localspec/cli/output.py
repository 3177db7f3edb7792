"""What commands say: documents, tables and files of an option; notes and progress on stderr.

Progress is a bar where a person watches, and a line now and then elsewhere.
"""

import json
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import typer

from localspec.display import console as console_of
from localspec.display import note
from localspec.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, TaskID
    from rich.table import Table

    from localspec.registry.pull import OnProgress, PullStage


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


WIDE = 76
"""Cells of a terminal that has room for everything."""


def notify(message: str) -> None:
    """A note to the user, above a progress bar if there is one (Rich replaces stderr then)."""
    # One write: notes of two threads do not run into each other.
    print(f"localspec: {note(message)}\n", end="", file=sys.stderr, flush=True)


Columns = Callable[[int], "Sequence[str | ProgressColumn]"]
"""The columns of a bar, for the width of a terminal in cells."""


@contextmanager
def bar(columns: Columns) -> "Generator[Progress | None]":
    """A bar on stderr that disappears at the end; None where nobody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import Progress

    console = console_of(stderr=True)
    if console.is_dumb_terminal:
        yield None
        return
    is_wide = console.width >= WIDE
    with Progress(*columns(console.width), console=console, expand=is_wide, transient=True) as made:
        yield made


@contextmanager
def live_line(text: Callable[[], str]) -> Generator[Callable[[], None]]:
    """A dim line on stderr that is written anew while it lasts; nothing where nobody watches.

    It ends with what is yielded, or at the end.
    """
    from localspec.chat.frontend import is_dumb
    from localspec.chat.tty import Waiting, terminal_size

    if not sys.stderr.isatty() or is_dumb():
        yield lambda: None
        return
    line = Waiting(sys.stderr, lambda: text()[: terminal_size().columns - 1])
    try:
        yield line.stop
    finally:
        line.stop()


@contextmanager
def progress(label: str) -> Generator[Callable[[float], None]]:
    """A listener that draws the finished fraction where a person watches."""
    with stages(label) as tell:
        yield lambda fraction: tell(label, fraction)


@contextmanager
def stages(label: str) -> Generator[Callable[[str, float], None]]:
    """The same for several stages: it hears the stage and its finished fraction."""
    with bar(_stage_columns) as made:
        if made is None:
            yield lambda label, fraction: None
            return
        task = made.add_task(label, total=1.0)
        yield lambda label, fraction: made.update(task, completed=fraction, description=label)


def _stage_columns(width: int) -> "Sequence[str | ProgressColumn]":
    from rich.progress import BarColumn

    return "{task.description}", BarColumn(), "{task.percentage:3.0f} %"


LINE_EVERY_S = 10.0


@contextmanager
def transfers(*, quiet: bool = False) -> "Generator[OnProgress]":
    """A listener that shows progress of files; `quiet`: only where a person watches."""
    with bar(_transfer_columns) as made:
        is_silent = quiet and not sys.stderr.isatty()
        yield Bars(made) if made else (lambda *news: None) if is_silent else Lines()


def _transfer_columns(width: int) -> "Sequence[str | ProgressColumn]":
    from rich import progress

    is_wide = width >= WIDE
    return [
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(bar_width=None if is_wide else 10),
        progress.DownloadColumn() if is_wide else progress.TaskProgressColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(compact=True),
    ]


@dataclass(slots=True)
class Bars:
    """One bar, for the present file and stage; bytes that were here do not count as speed."""

    bar: "Progress"
    key: tuple[str, str] | None = None
    task: "TaskID | None" = None

    def __call__(self, stage: "PullStage", name: str, n_bytes: int, total: int | None) -> None:
        if self.key != (stage, name) or self.task is None:
            if self.task is not None:
                self.bar.remove_task(self.task)
            self.key, width = (stage, name), max(8, self.bar.console.width // 3)
            half = width // 2
            is_long = len(name) > width
            label = f"{name[:half]}…{name[half + 1 - width :]}" if is_long else name
            self.task = self.bar.add_task(f"{stage} {label}", total=total)
            self.bar.update(self.task, completed=n_bytes)
            self.bar.reset(self.task, completed=n_bytes, total=total)
            return
        self.bar.update(self.task, completed=n_bytes)


@dataclass(slots=True)
class Lines:
    """A line at the start of each file, then one every 10 seconds."""

    key: tuple[str, str] | None = None
    begun_s: float = 0.0
    said_s: float = 0.0
    n_begin: int = 0

    def __call__(self, stage: "PullStage", name: str, n_bytes: int, total: int | None) -> None:
        now_s = monotonic()
        if self.key != (stage, name):
            self.key, self.begun_s, self.said_s, self.n_begin = (stage, name), now_s, now_s, n_bytes
            if stage == "fetching":
                size = "" if total is None else f", {total / 1e6:,.1f} MB"
                kept = f", from {n_bytes / 1e6:,.1f} MB on" if n_bytes else ""
                notify(f"{stage} {name}{size}{kept}")
        elif now_s - self.said_s >= LINE_EVERY_S:
            self.said_s = now_s
            rate, left = (n_bytes - self.n_begin) / (now_s - self.begun_s), ""
            if total and rate > 0:
                minutes, seconds = divmod(round((total - n_bytes) / rate), 60)
                left = f", {minutes}:{seconds:02d} left"
            notify(f"{stage} {name}: {_done(n_bytes, total)}, {rate / 1e6:.1f} MB/s{left}")


def _done(n_bytes: int, total: int | None) -> str:
    if not total:
        return f"{n_bytes / 1e6:,.1f} MB"
    return f"{100 * n_bytes / total:.0f} % of {total / 1e6:,.1f} MB"
