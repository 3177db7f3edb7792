"""The rows of `quality` as a table, with what is published beside what was measured here."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from localspec.quality.published import Published, of_cache, of_weights

if TYPE_CHECKING:
    from localspec.tune.study import Row

FRONT = "*"


def published(row: "Row") -> tuple[Published, ...]:
    """Figures of others for what a row changes."""
    if row.attention.is_exact:
        return of_weights(row.weights)
    return of_cache(row.attention.kv_k, row.attention.kv_v)


def show(path: Path, reference: Path, rows: "list[Row]") -> None:
    """Print it."""
    console = Console(highlight=False)
    table = Table(
        title=f"{path.name}, held against {reference.name} with an f16 cache",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in ("weights", "K/V"):
        table.add_column(name, no_wrap=True)
    for name in ("perplexity", "KLD", "99 %", "same top", "tok/s", "MB", "published"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*_cells(row), style="bold" if row.is_front else None)
    console.print(table)
    _explain(console, rows)


def _cells(row: "Row") -> tuple[str, ...]:
    quality, mark = row.quality, f" {FRONT}" if row.is_front else ""
    figures = published(row)
    return (
        row.weights + mark,
        f"{row.attention.kv_k}/{row.attention.kv_v}",
        f"{quality.perplexity:.3f}",
        "reference" if row.is_reference else f"{max(0.0, quality.kld):.5f}",
        "" if row.is_reference else f"{quality.kld_p99:.4f}",
        f"{quality.same_top:.1%}",
        f"{row.decode_tps:.1f}",
        f"{row.memory_bytes / 1e6:,.0f}",
        f"{figures[0].kld:.5f}" if figures and not row.is_reference else "",
    )


def _explain(console: Console, rows: "list[Row]") -> None:
    n = rows[0].quality.n_tokens if rows else 0
    console.print(
        f"{FRONT} Pareto front: no other row is as good in KLD, speed and memory. KLD in nats a"
        f" token over {n:,} scored tokens."
    )
    sources = {(f.model, f.source) for row in rows for f in published(row)[:1]}
    for model, source in sorted(sources):
        console.print(f"Published, for orientation: KLD of {model} ({source}).", style="dim")
