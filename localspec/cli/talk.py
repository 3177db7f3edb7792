"""What goes to stderr: notes, and progress where a person is watching."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager


def talk(message: str) -> None:
    """A note to the user, above a progress bar that may be there (Rich stands in for stderr)."""
    print(f"localspec: {message}", file=sys.stderr)


@contextmanager
def progress(label: str) -> Generator[Callable[[float], None]]:
    """A progress bar on stderr that disappears when done; nothing without a terminal."""
    with stages(label) as tell:
        yield lambda fraction: tell(label, fraction)


@contextmanager
def stages(label: str) -> Generator[Callable[[str, float], None]]:
    """The same for work of several stages: it hears of each and how far that is."""
    if not sys.stderr.isatty():
        yield lambda label, fraction: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    if console.is_dumb_terminal:
        yield lambda label, fraction: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %")
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=1.0)
        yield lambda label, fraction: bar.update(task, completed=fraction, description=label)
