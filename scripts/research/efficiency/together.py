"""What several equal devices take beside one, by runs of one source that differ in nothing else.

A model's layers lie on the devices one after the other, so that a token takes as long as on one and
the ways between them. Of a long prompt, devices with CUDA compute several micro-batches at once.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from research.efficiency.notes import Notes, number

FEWEST_RUNS = 2
_COUNT = re.compile(r"n_gpu=\d+( \([^)]*\))?")
_PROMPT = re.compile(r"pp(\d+)")


def together(tables: Sequence[Path]) -> list[dict[str, Any]]:
    """Median speeds over one device's, by backend, number of devices and test."""
    speeds: defaultdict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
    for table in tables:
        with table.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            for row in csv.DictReader(file):
                notes = Notes(row["notes"] or "")
                speed = number(row["tokens_per_s"])
                if speed and " + " not in row["device"]:
                    speeds[_alike(row, notes)][round(notes.n_devices)] = speed
    found: defaultdict[tuple[str, int, str], list[float]] = defaultdict(list)
    for (backend, test, *_), by_count in speeds.items():
        for n in by_count.keys() - {1}:
            if 1 in by_count:
                found[backend, n, test].append(by_count[n] / by_count[1])
    return [
        {"backend": backend, "n_devices": n, "test": test, "n": len(of), "median_ratio": median(of)}
        for (backend, n, test), of in sorted(found.items())
        if len(of) >= FEWEST_RUNS
    ]


def _alike(row: dict[str, str], notes: Notes) -> tuple[str, ...]:
    """What runs have in common that differ in the number of devices alone."""
    prompt = _PROMPT.match(row["test"])
    circumstances = _COUNT.sub("", notes.text).strip("; ")
    same = ("device", "model", "file_size_gib", "quant", "test")
    return (
        row["backend"],
        prompt[0] if prompt else "decode",
        notes.source_of(row["source"]),
        circumstances,
        *(row[name] for name in same),
    )
