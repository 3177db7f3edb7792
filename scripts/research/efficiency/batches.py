"""Published batches: what a pass over several tokens took, in plain passes of the same run.

Sources print speeds of several sequences, or of prompts in micro-batches of n.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from research.efficiency.notes import number
from research.efficiency.places import match_of
from research.efficiency.shapes import Shape, shape_of

from localspec.hardware.devices import Device
from localspec.prediction.conditions import RunConditions
from localspec.prediction.families import type_class
from localspec.prediction.published import circumstances

NAMES = {
    "AMD Strix Halo": "AMD Ryzen AI Max+ 395 / Radeon 8060S (Strix Halo)",
    "Apple M2 Ultra 76c": "Apple M2 Ultra (76-core GPU)",
    "AMD Instinct MI50 16GB": "AMD Radeon Instinct MI50",
    "NVIDIA A100-SXM4-80GB": "NVIDIA A100 SXM4 80 GB",
}
"""Names of devices in the table by those of sources."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One curve: v by number of tokens. `shape`: of a mixture, else None."""

    run: RunConditions
    shape: Shape | None
    costs: Mapping[int, float] = field(hash=False)

    @property
    def device(self) -> str:
        return self.run.chip

    @property
    def backend(self) -> str:
        return self.run.backend

    @property
    def is_mixture(self) -> bool:
        return self.shape is not None


def read_batches(*paths: Path) -> list[Batch]:
    """Curves that have a plain pass to compare with, of devices in the table."""
    groups: defaultdict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
    for path in paths:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                n, speed = number(row.get("batch_k") or row.get("B")), _speed(row)
                if n and speed and "@ d" not in row.get("kind", ""):
                    groups[_key(row)][round(n)] = speed
    found = [_batch(key, speeds) for key, speeds in groups.items() if speeds.get(1)]
    return [batch for batch in found if batch]


def _speed(row: dict[str, str]) -> float | None:
    """Of all sequences, or of a prompt in such micro-batches."""
    return (
        number(row.get("tokens_per_s"))
        or number(row.get("tg_tps_total"))
        or ("micro-batch" in row.get("kind", "") and number(row.get("pp_tps")))
        or None
    )


def _key(row: dict[str, str]) -> tuple[str, ...]:
    device = re.sub(r" (llama\.cpp-\S+|\(.*\))$", "", row["device"])
    if "Ryzen AI Max" in device:
        device = "AMD Strix Halo"
    backend = re.split(r"[ -]", row["backend"].lower())[0]
    quant = re.split(r"[.\- ]", row["quant"])[-1]  # some are file names
    variant = row["source"] + row["device"] + row.get("kind", "") + row.get("notes", "")
    return device, backend, type_class(quant), row["model"], row["moe"], variant


def _batch(key: tuple[str, ...], speeds: dict[int, float]) -> Batch | None:
    name, backend, kind, model, moe, _ = key
    device = _device(name)
    if device is None:
        return None
    costs = {n: n * speeds[1] / speed for n, speed in speeds.items() if n > 1}
    shape = shape_of(model, None, is_mixture=True) if moe == "1" else None
    return Batch(_conditions(device, backend, kind, shape), shape, costs)


def _conditions(device: Device, backend: str, kind: str, shape: Shape | None) -> RunConditions:
    run = circumstances(device, backend).with_type(kind)
    if shape is None:
        return run
    traits = ("moe", *((shape.kind,) if shape.kind != "dense" else ()))
    return replace(run, traits=traits, width=shape.n_embd, group=shape.group)


@cache
def _device(name: str) -> Device | None:
    return match_of(NAMES.get(name, name), None, None).device
