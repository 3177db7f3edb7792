"""`localspec list`: the models on this machine."""

import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import typer

from localspec.cli.options import JsonFlag
from localspec.cli.output import fields_of, folding_table, notify, print_json, table_of
from localspec.display import console
from localspec.format import size

if TYPE_CHECKING:
    from localspec.forecast.known_machine import KnownMachine
    from localspec.registry.catalog import Entry
    from localspec.session.inventory import InventoryRow


def list_models(
    with_others: bool = typer.Option(
        False, "--all", help="Also models of Hugging Face's cache, Ollama, LM Studio and llama.cpp."
    ),
    known: bool = typer.Option(
        False,
        "--known",
        help="List the names that `pull` knows; proved: a pull has proved it here.",
    ),
    as_json: JsonFlag = False,
) -> None:
    """List the models on this machine, by the names that commands take.

    localspec list --all
    """
    if known:
        _show_known(as_json=as_json)
        return
    from localspec.session.inventory import inventory

    rows = inventory(with_others=with_others)
    if as_json:
        print_json({"models": [_document(row) for row in rows]})
    else:
        _show(rows, with_others=with_others)


def _document(row: "InventoryRow") -> dict[str, Any]:
    return {
        **fields_of(row, "name", "origin", "kind", "quantization", "draft", "last_used"),
        **fields_of(row, "predicted_tps", "problem", "head"),
        "drafts_for": list(row.drafts_for),
        "path": str(row.path),
        "bytes": row.n_bytes,
        "context": row.n_ctx,
    }


def _show(rows: "list[InventoryRow]", *, with_others: bool) -> None:
    from localspec.model.kind import WRITERS

    table = table_of()
    table.add_column("model", overflow="fold", min_width=12)
    for heading in ("size", "type", "context"):
        table.add_column(heading, justify="left" if heading == "type" else "right", no_wrap=True)
    table.add_column("draft", overflow="fold")
    table.add_column("tok/s", justify="right", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    if with_others:
        table.add_column("kind", overflow="fold")
        table.add_column("from", overflow="fold")
    for row in rows:
        table.add_row(*_cells(row, with_others=with_others))
    _print(table)
    for row in rows:  # what is no model has its kind in the table
        if row.problem and (not with_others or row.kind in (None, *WRITERS)):
            notify(f"{row.name}: {row.problem}")


def _cells(row: "InventoryRow", *, with_others: bool) -> list[Any]:
    from rich.text import Text

    cells = [
        row.name,
        size(row.n_bytes),
        row.quantization or "-",
        f"{row.n_ctx:,}" if row.n_ctx else "-",
        _drafter(row),
        f"{row.predicted_tps:.1f}" if row.predicted_tps else "-",
        row.last_used.partition("T")[0] if row.last_used else "never",
    ]
    more = [row.kind or "-", row.origin] if with_others else []
    return [Text(cell) for cell in (*cells, *more)]


def _drafter(row: "InventoryRow") -> str:
    """Who drafts for a model, or for whom a head drafts."""
    if row.drafts_for:
        return f"for {', '.join(row.drafts_for)}"
    return {"own": "own head", None: row.draft or "-"}.get(row.head, row.head or "-")


def _show_known(*, as_json: bool) -> None:
    """Sizes and speeds are from known headers: nothing is fetched."""
    from localspec.forecast.known_machine import KnownMachine
    from localspec.registry.catalog import load_catalog
    from localspec.registry.manifest import pulled

    proved = {file.name for file in pulled() if file.is_whole}
    machine = KnownMachine.here()
    entries = [
        replace(entry, verified=entry.verified or entry.name in proved)
        for entry in load_catalog().values()
    ]
    if as_json:
        models = [{**asdict(entry), **_predicted(entry, machine)} for entry in entries]
        print_json({"models": models})
        return
    rows = (_known_cells(entry, _predicted(entry, machine)) for entry in entries)
    heads = ("name", "size", "tok/s", "draft", "proved", "licence", "good for")
    _print(folding_table(*heads, rows=rows))


def _predicted(entry: "Entry", machine: "KnownMachine") -> dict[str, Any]:
    from localspec.forecast.known_models import known_facts
    from localspec.forecast.recommend import known_speed

    facts, speed = known_facts(entry), known_speed(entry, machine)
    return {
        "weight_bytes": facts.weight_bytes if facts else None,
        "context": facts.n_ctx_train if facts else None,
        "predicted_tps": speed.mid if speed else None,
    }


def _known_cells(entry: "Entry", predicted: dict[str, Any]) -> list[str]:
    names = ", ".join((entry.name, *entry.aliases))
    proved = "yes" if entry.verified else "not yet"
    n_bytes, tps = predicted["weight_bytes"], predicted["predicted_tps"]
    figures = (size(n_bytes) if n_bytes else None, f"{tps:.1f}" if tps else None)
    cells = (names, *figures, entry.draft, proved, entry.license, entry.good_for)
    return [text or "-" for text in cells]


def _print(table: object) -> None:
    """A pipe gets one wide line for each model."""
    console(width=None if sys.stdout.isatty() else 200).print(table)
