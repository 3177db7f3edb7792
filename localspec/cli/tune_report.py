"""What `tune` shows: progress with the best so far, and in the end what was tried."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

if TYPE_CHECKING:
    from localspec.session.profile import Profile
    from localspec.tune.search import Outcome
    from localspec.tune.subject import Subject
    from localspec.tune.trial import Trial
    from localspec.tune.work import Listen, News

SHOWN = 8


@contextmanager
def watching(budget_s: float) -> "Generator[Listen]":
    """A listener that draws on a terminal where somebody is watching, and is silent elsewhere."""
    console = Console(stderr=True)
    if not sys.stderr.isatty() or console.is_dumb_terminal:
        yield lambda news: None
        return
    columns = (
        BarColumn(bar_width=12),
        TextColumn("{task.completed:.0f} of {task.total:.0f} s"),
        TextColumn("{task.description}"),
    )
    started = monotonic()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("loading", total=budget_s)

        def listen(news: "News") -> None:
            spent_s = min(budget_s, monotonic() - started)
            bar.update(task, completed=spent_s, description=_line(news))

        yield listen


def _line(news: "News") -> str:
    if news.best is None or news.gain is None:
        return news.stage
    return f"{news.stage}\n[dim]best so far {news.gain:.2f} x: {news.best.text}[/dim]"


def report(outcome: "Outcome", subject: "Subject", profile: "Profile") -> None:
    """The candidates, best first, then what was kept and why."""
    console = Console(highlight=False)
    console.print(_table(outcome, subject))
    console.print("Rows without KLD had a few turns only.", style="dim")
    _explain(console, outcome)
    low, mid, high = profile.ratio
    if not profile.settings:
        console.print("Nothing is significantly better than the defaults here: they stay.")
        return
    kld = f", KL divergence {outcome.kld:.4f} nats a token" if outcome.kld is not None else ""
    if outcome.winner is None:
        console.print(f"[bold]{profile.text}[/bold]: faster than drafting as by default.")
        return
    console.print(
        f"[bold]{profile.text}[/bold]: {mid:.2f} x the defaults in decoding"
        f" ({low:.2f} to {high:.2f}){kld}."
    )
    console.print("Kept: chat, generate and bench use it (--no-profile leaves it).")


def _table(outcome: "Outcome", subject: "Subject") -> Table:
    title = f"{subject.config.model.name}, {subject.n_ctx:,} tokens, {outcome.seconds:.0f} s"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "to defaults", "KLD", "cache MB"):
        table.add_column(name, justify="left" if not name else "right")
    tried = sorted(outcome.tried, key=lambda trial: -trial.gain.mid)
    chosen = outcome.winner
    if chosen:
        tried = [chosen, *(t for t in tried if t.setting.text != chosen.setting.text)]
    for trial in tried[:SHOWN]:
        table.add_row(*_row(trial, subject), style="bold" if trial is chosen else None)
    if len(tried) > SHOWN:
        table.add_row(f"and {len(tried) - SHOWN} slower ones", style="dim")
    return table


def _row(trial: "Trial", subject: "Subject") -> tuple[str, ...]:
    cache = subject.cache_bytes(trial.setting.attention, subject.n_ctx)
    loading = trial.setting.loading
    others = "" if loading.repack and loading.use_mmap else f", {loading.text}"
    return (
        trial.setting.text + others,
        f"{trial.gain.mid:.2f} x",
        f"{trial.quality.kld:.4f}" if trial.quality else "",
        f"{cache / 1e6:,.1f}" if cache else "",
    )


def _explain(console: Console, outcome: "Outcome") -> None:
    if outcome.is_interrupted:
        console.print("Interrupted: this is the best that was proven until then.")
    if outcome.excluded:
        reason = next(iter(outcome.excluded.values()))
        console.print(f"{len(outcome.excluded)} combinations were not tried: {reason}, for one.")
    for note in outcome.notes:
        console.print(f"Not measured: {note}.")
