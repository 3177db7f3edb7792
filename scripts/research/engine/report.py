"""Speed in one place: settings, plain decoding, prompts, loading and speculation, part by part.

    scripts/research/run report [--part NAME ...] [--store FILE] [--page docs/measurements/speed.md]

Parts: `settings:MODEL` (the automatic choice and the best exact settings, to the engine's own, by
depth), `plain:MODEL` (decoding and prompts beside llama-bench), `load:MODEL` (from the command to
the first token), `large:random` (loading a file of 4 GB), `energy:MODEL` and
`speculation:TARGET,DRAFT` (`--spec auto` and plain decoding beside llama-server's own types; needs
--prompts). Without --part all of them run, in less than forty minutes on two quiet cores.
Each part keeps its rows in the store as soon as it is over, in place of those of an earlier run, so
that `--resume` passes over what a stopped run has measured. A part that fails ends alone. The
page's tables are made of all that is there; its prose stays. llama-bench and llama-server are found
by LLAMA_BENCH and LLAMA_SERVER, or on the path; build them from the source of the installed engine.
"""

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer
from research.engine.report_loading import large_load_rows, load_rows
from research.engine.report_page import page_of
from research.engine.report_parts import (
    Row,
    energy_rows,
    plain_rows,
    program,
    settings_rows,
    speculation_rows,
)

from localspec import paths
from localspec.hardware.activity import Watch
from localspec.store import write_text

SMALL = ("smollm2", "smollm2:Q4_0", "smollm2:Q8_0", "smollm2:F16")
LARGER = ("gemma", "gemma:Q4_0", "gemma:Q8_0", "gemma:F16")
PAIRS = ("smollm2:F16,smollm2:Q4_0", "gemma:F16,gemma")
PARTS = (
    "load:smollm2",
    "large:random",
    *(f"plain:{model}" for model in ("smollm2", "gemma")),
    *(f"settings:{model}" for model in (*SMALL, *LARGER)),
    *(f"energy:{model}" for model in ("smollm2", "gemma")),
    *(f"speculation:{pair}" for pair in PAIRS),
)
"""Each takes at most six minutes on two quiet cores."""
FRESH_S = 24 * 3600
"""How old a part may be that is not measured again."""


def main(  # noqa: PLR0913 - one option each
    part: Annotated[
        list[str] | None, typer.Option(help="One of the parts; may be repeated.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Where rows are kept.")] = None,
    page: Annotated[Path | None, typer.Option(help="The page to write.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Questions, one JSON object a line.")] = None,
    questions: Annotated[int, typer.Option(min=1, help="Of each category.")] = 2,
    machine: Annotated[str | None, typer.Option(help="Its letter among the pages.")] = None,
    join: Annotated[bool, typer.Option("--join", help="Measure nothing; write the page.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Leave out parts of today.")] = False,
) -> None:
    """Measure the parts, and join all that was measured into one page."""
    for name in part or ():
        if name not in PARTS:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(PARTS)}")
    report = Report(store or paths.cache_dir() / "report.json", page, machine)
    names = [] if join else [n for n in part or PARTS if not (resume and report.has_fresh(n))]
    failed = [name for name in names if not report.take(name, prompts, questions)]
    report.write_page()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; --resume measures what is missing")


class Report:
    """The parts that were measured, in their file, and the page of them."""

    def __init__(self, store: Path, page: Path | None, machine: str | None) -> None:
        self._store, self._page, self._machine = store, page, machine
        self._kept: dict[str, Any] = json.loads(store.read_text()) if store.is_file() else {}

    def has_fresh(self, name: str) -> bool:
        """Whether it was measured lately."""
        measured_at = self._kept.get(name, {}).get("at", 0.0)
        return datetime.now(UTC).timestamp() - measured_at < FRESH_S

    def take(self, name: str, prompts: Path | None, n: int) -> bool:
        """Measure a part and keep it; False where that fails, which ends no other part."""
        try:
            found = _measured(name, prompts, n)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the others are worth having
            print(f"{name}: failed, {error!r}", file=sys.stderr)
            return False
        if found:
            self._kept[name] = found
            write_text(self._store, json.dumps(self._kept, indent=1))
        return True

    def write_page(self) -> None:
        """Of all that was kept, in place of the tables of the page that is there."""
        if self._page:
            kept = {name: self._kept[name] for name in PARTS if name in self._kept}
            old = self._page.read_text("utf-8") if self._page.is_file() else ""
            write_text(self._page, page_of(kept, PAIRS, self._machine, old))


def _measured(name: str, prompts: Path | None, n: int) -> dict[str, Any] | None:
    """A part of the store; None where it was left out."""
    watch, started = Watch(), perf_counter()
    rows = list(_shown(name, _rows(name, prompts, n)))
    seconds = perf_counter() - started
    print(f"{name}: {seconds:.0f} s", file=sys.stderr)
    now = datetime.now(UTC)
    taken = watch.stop().taken_share
    known = {"date": f"{now:%Y-%m-%d}", "at": now.timestamp(), "seconds": seconds}
    return {**known, "others": taken, "rows": rows} if rows else None


def _shown(name: str, rows: Iterator[Row]) -> Iterator[Row]:
    for row in rows:
        print(f"{name}: {json.dumps(row)}", file=sys.stderr, flush=True)
        yield row


def _rows(name: str, prompts: Path | None, n: int) -> Iterator[Row]:
    kind, _, model = name.partition(":")
    if kind == "settings":
        yield from settings_rows(model)
    elif kind == "load":
        yield from load_rows(model)
    elif kind == "large":
        yield from large_load_rows(model)
    elif kind == "energy":
        yield from energy_rows(model)
    elif kind == "plain":
        bench = program("llama-bench", None)
        yield from plain_rows(model, bench) if bench else _skipped(name, "llama-bench is not here")
    else:
        server = program("llama-server", None)
        if server and prompts:
            yield from speculation_rows(model, prompts, server, n)
        else:
            yield from _skipped(name, "it needs llama-server and --prompts")


def _skipped(name: str, why: str) -> Iterator[Row]:
    print(f"{name}: skipped, {why}", file=sys.stderr)
    yield from ()
