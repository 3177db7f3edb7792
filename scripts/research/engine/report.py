"""Speed in one place: settings, plain decoding, prompts, loading and speculation, part by part.

    scripts/research/run report [--part NAME ...] [--store FILE] [--page docs/measurements/speed.md]

Parts: `settings:MODEL` (the automatic choice and the best exact settings, to the engine's own, by
depth), `plain:MODEL` (decoding and prompts beside llama-bench), `load:MODEL` (from the command to
the first token), `large:random` (loading a file of 4 GB), `energy:MODEL` and
`speculation:TARGET,DRAFT` (`--spec auto` and plain decoding beside llama-server's own types; needs
--prompts). Without --part all of them run, in less than forty minutes on two quiet cores.
Each part keeps its rows in the store as soon as it is over, in place of those of an earlier run, so
that `--resume` passes over what a stopped run has measured. A part that fails ends alone. The page
is made of all that is there. llama-bench and llama-server are found by LLAMA_BENCH and
LLAMA_SERVER, or on the path; build them from the source of the installed engine.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import geometric_mean
from time import perf_counter
from typing import Annotated, Any

import typer
from research.engine.report_loading import large_load_rows, load_rows
from research.engine.report_parts import (
    TYPES,
    Row,
    energy_rows,
    plain_rows,
    program,
    settings_rows,
    speculation_rows,
)

from localspec import paths
from localspec.format import percent
from localspec.hardware.activity import Watch
from localspec.hardware.detect import processor_name, usable_cores
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
        """Of all that was kept."""
        if self._page:
            write_text(self._page, page_of(self._kept, self._machine))


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


def page_of(kept: dict[str, Any], machine: str | None = None) -> str:
    """The Markdown of docs/measurements/speed.md."""
    kept = {name: kept[name] for name in PARTS if name in kept}
    rows = [row for each in kept.values() for row in each["rows"]]
    dates = sorted({each["date"] for each in kept.values()})
    cpu = machine or f"{usable_cores()} cores of {processor_name()}"
    lines = ["# Speed in one place", "", "| Date | Machine | Command |", "|---|---|---|"]
    lines += [f"| {', '.join(dates)} | {cpu} | `scripts/research/run report` |", ""]
    lines += ["Tokens of prompts and depths; exact settings are those that change no number but by"]
    lines += [
        "rounding. Each part is measured by itself; what others took of the processors meanwhile"
    ]
    lines += [f"was {', '.join(_shares(kept))}.", ""]
    lines += ["| | Tokens | What | Figure |", "|---|---|---|---|"]
    for row in rows:
        lines += _lines[row["part"]](row) if row["part"] in _lines else []
    for pair in PAIRS:
        lines += speculation_lines([r for r in rows if r.get("model") == pair], pair)
    return "\n".join([*lines, ""])


def _shares(kept: dict[str, Any]) -> list[str]:
    return [f"{percent(each['others'])} ({name})" for name, each in kept.items()]


def _settings_lines(row: Row) -> list[str]:
    return [
        f"| {row['model']} | {row['depth']:,} | automatic: {row['chosen']} |"
        f" {row['auto']:.2f} x the engine's {row['default_tps']:.1f} tok/s,"
        f" {row['auto_to_best']:.2f} x the best ({row['fastest']}) |"
    ]


def _plain_lines(row: Row) -> list[str]:
    is_prompt = row["n_prompt"] > 0
    what = "prompt" if is_prompt else "plain decoding"
    what += "" if row["mmap"] else ", weights read"
    place = row["n_prompt"] if is_prompt else row["depth"]
    return [
        f"| {row['model']} | {place:,} | {what} | {row['tps']:.1f} tok/s, {row['ratio']:.2f} x"
        f" llama-bench's {row['llama_bench_tps']:.1f}; best to best {row['best_to_best']:.2f} |"
    ]


def _load_lines(row: Row) -> list[str]:
    times = f"{row['median_s']:.2f} s (least {row['least_s']:.2f})"
    return [f"| {row['model']} | | {row['what']} | {times} |"]


def speculation_lines(rows: Sequence[Row], pair: str) -> list[str]:
    """`auto` to plain and to the best of llama-server's types, chosen by category in hindsight."""
    lines: list[str] = []
    gains: list[float] = []
    for category in dict.fromkeys(row["category"] for row in rows):
        own = [row for row in rows if row["category"] == category]
        mean = {
            name: geometric_mean([row[name] for row in own])
            for name in ("auto", "plain", *(f"llama-server {kind}" for kind in TYPES))
        }
        best = max((n for n in mean if n.startswith("llama")), key=lambda n: mean[n])
        gains.append(mean["auto"] / mean[best])
        lines.append(
            f"| {pair} | | {category} | auto {mean['auto'] / mean['plain']:.2f} x plain,"
            f" {gains[-1]:.2f} x {best} ({mean[best]:.1f} tok/s) |"
        )
    if gains:
        lines.append(
            f"| {pair} | | all | auto {geometric_mean(gains):.2f} x the best by category |"
        )
    return lines


def _large_lines(row: Row) -> list[str]:
    place = "on the disk" if row["is_cold"] else "in memory"
    repacked = "repacked" if row["repack"] else "not repacked"
    return [
        f"| {row['model']} | | first token of a file of {row['bytes'] / 1e9:.1f} GB, {place},"
        f" {repacked} | {row['first_token_s']:.2f} s, {row['ratio']:.2f} x libllama's"
        f" {row['bare_s']:.2f} for loading it and reading two tokens |"
    ]


def _energy_lines(row: Row) -> list[str]:
    joules = row["joules_per_token"]
    told = "this machine does not tell it" if joules is None else f"{joules:.3f} J a token"
    return [f"| {row['model']} | | energy of plain decoding | {told} |"]


_lines = {
    "energy": _energy_lines,
    "settings": _settings_lines,
    "plain": _plain_lines,
    "load": _load_lines,
    "large": _large_lines,
}
