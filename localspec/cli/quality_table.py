"""The rows of `quality` as a table, with what is published beside what was measured here."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from localspec.quality.published import Published, of_cache, of_weights

if TYPE_CHECKING:
    from localspec.tune.study import Row

FRONT = "*"
WIDE = 76


def published(row: "Row") -> tuple[Published, ...]:
    """Figures of others for what a row changes."""
    if row.attention.is_exact:
        return of_weights(row.weights)
    return of_cache(row.attention.kv_k, row.attention.kv_v)


def show(path: Path, reference: Path, rows: "list[Row]") -> None:
    """Print it; on a narrow terminal without what is least needed."""
    console = Console(highlight=False)
    columns = [c for c in COLUMNS if not c.is_extra or console.width >= WIDE]
    held = "itself" if path == reference else reference.name
    table = Table(
        title=f"{path.name}, held against {held} with an f16 cache",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in columns:
        justify = "left" if column.name in ("weights", "K/V") else "right"
        table.add_column(column.name, justify=justify, no_wrap=True)
    for row in rows:
        style = "bold" if row.is_front else None
        table.add_row(*(column.cell(row) for column in columns), style=style)
    console.print(table)
    _explain(console, rows)


@dataclass(frozen=True, slots=True)
class Column:
    """A heading and what stands under it; `is_extra`: not on a narrow terminal."""

    name: str
    cell: "Callable[[Row], str]"
    is_extra: bool = False


def _kld(row: "Row") -> str:
    return "ref." if row.is_reference else f"{max(0.0, row.quality.kld):.4f}"


def _p99(row: "Row") -> str:
    return "" if row.is_reference else f"{row.quality.kld_p99:.3f}"


def _published(row: "Row") -> str:
    figures = published(row)
    return f"{figures[0].kld:.4f}" if figures and not row.is_reference else ""


COLUMNS = (
    Column("weights", lambda row: row.weights + (f" {FRONT}" if row.is_front else "")),
    Column("K/V", lambda row: f"{row.attention.kv_k}/{row.attention.kv_v}"),
    Column("ppl", lambda row: f"{row.quality.perplexity:.2f}"),
    Column("KLD", _kld),
    Column("99 %", _p99, is_extra=True),
    Column("top", lambda row: f"{row.quality.same_top:.1%}"),
    Column("tok/s", lambda row: f"{row.decode_tps:.1f}"),
    Column("MB", lambda row: f"{row.memory_bytes / 1e6:,.0f}"),
    Column("publ.", _published, is_extra=True),
)


def _explain(console: Console, rows: "list[Row]") -> None:
    n = rows[0].quality.n_tokens if rows else 0
    console.print(
        f"{FRONT} Pareto front: no other row is as good in KLD, speed and memory. ppl: perplexity;"
        f" KLD: divergence in nats a token, over {n:,} scored tokens; top: same best token."
    )
    sources = {(f.model, f.source) for row in rows for f in published(row)[:1]}
    for model, source in sorted(sources):
        where = re.split(r" \(|[,;] ", source)[0]
        console.print(f"publ.: KLD published for {model} ({where}), for orientation.", style="dim")
