"""The page of the report on speed: its tables, put into the prose of the page that is there.

Who reads a page wants words beside figures, and words are written by people. So a page that has as
many tables as the report makes keeps everything else.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from statistics import geometric_mean
from typing import Any

from research.engine.report_parts import TYPES, Row

from localspec.format import count, percent
from localspec.hardware.detect import processor_name, usable_cores

_TABLE = re.compile(r"^\|.*\n(?:\|.*\n)+", re.MULTILINE)


def page_of(kept: Mapping[str, Any], pairs: Sequence[str], machine: str | None, old: str) -> str:
    """The Markdown of docs/measurements/speed.md, of the parts that were measured, in their order.

    `old`: the page that is there, or nothing.
    """
    tables = (_head(kept, machine), _figures(kept, pairs))
    if len(_TABLE.findall(old)) == len(tables):
        given = iter(tables)
        return _TABLE.sub(lambda _: next(given), old)
    return "\n".join(["# Speed in one place\n", *tables])


def _head(kept: Mapping[str, Any], machine: str | None) -> str:
    dates = ", ".join(sorted({each["date"] for each in kept.values()}))
    cpu = machine or f"{usable_cores()} cores of {processor_name()}"
    row = f"| {dates} | {cpu} | `scripts/research/run report` |"
    return _table(["| Date | Machine | Command |", "|---|---|---|", row])


def _figures(kept: Mapping[str, Any], pairs: Sequence[str]) -> str:
    rows = [row for each in kept.values() for row in each["rows"]]
    lines = ["| | Tokens | What | Figure |", "|---|---|---|---|"]
    for row in rows:
        lines += _LINES[row["part"]](row) if row["part"] in _LINES else []
    for pair in pairs:
        lines += _speculation_lines([r for r in rows if r.get("model") == pair], pair)
    return _table([*lines, *_parts(kept)])


def _parts(kept: Mapping[str, Any]) -> list[str]:
    """When each was measured, and what disturbed it."""
    return [
        f"| `{name}` | | measured {each['date']} in {each['seconds']:.0f} s |"
        f" others had {percent(each['others'])} of the processors |"
        for name, each in kept.items()
    ]


def _table(lines: Sequence[str]) -> str:
    return "\n".join([*lines, ""])


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


def _speculation_lines(rows: Sequence[Row], pair: str) -> list[str]:
    """`auto` to plain and to the best of llama-server's types, chosen by category in hindsight."""
    lines: list[str] = []
    to_plain, to_best = list[float](), list[float]()
    for category in dict.fromkeys(row["category"] for row in rows):
        own = [row for row in rows if row["category"] == category]
        mean = {
            name: geometric_mean([row[name] for row in own])
            for name in ("auto", "plain", *(f"llama-server {kind}" for kind in TYPES))
        }
        best = max((n for n in mean if n.startswith("llama")), key=lambda n: mean[n])
        to_plain.append(mean["auto"] / mean["plain"])
        to_best.append(mean["auto"] / mean[best])
        lines.append(
            f"| {pair} | | `--spec auto`, {category}, {count(len(own), 'question')} |"
            f" {to_plain[-1]:.2f} x plain, {to_best[-1]:.2f} x {best} ({mean[best]:.1f} tok/s) |"
        )
    if lines:
        lines.append(
            f"| {pair} | | the same, all categories | {geometric_mean(to_plain):.2f} x plain,"
            f" {geometric_mean(to_best):.2f} x the best of llama-server's types by category"
            f" ({min(to_best):.2f} to {max(to_best):.2f}) |"
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


_LINES: dict[str, Callable[[Row], list[str]]] = {
    "energy": _energy_lines,
    "settings": _settings_lines,
    "plain": _plain_lines,
    "load": _load_lines,
    "large": _large_lines,
}
