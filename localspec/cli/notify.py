"""Notes and progress on stderr: bars where a person watches, a line now and then elsewhere."""

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from localspec.display import console as console_of
from localspec.display import note

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn, TaskID

    from localspec.registry.pull import OnProgress, PullStage

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
