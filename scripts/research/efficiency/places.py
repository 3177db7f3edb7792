"""Where a published run was made: the device by its figures, and what else its speed depends on.

Drivers, people and sources name one device in several ways. What a source says of the build, the
libraries and the machine's cooling is taken from its notes, or from tables of what is known of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Self

from research.efficiency.builds import age_years, era_of, month_of
from research.efficiency.notes import Notes, number
from research.efficiency.power import share_left
from research.efficiency.shapes import Shape

from localspec.errors import UserError
from localspec.forecast.named_machine import memory_of
from localspec.hardware.described import (
    FAST_FIRST,
    chip_of,
    device_meant,
    modules_bytes_per_s,
    processor_of,
)
from localspec.hardware.devices import Match, all_devices, match_reported
from localspec.prediction.conditions import TYPICAL_INTENSITY, RunConditions
from localspec.prediction.families import EIGHT, HALF, K_QUANTS, LOW, MICROSCALED, type_class
from localspec.prediction.published import circumstances

GIB = 2**30

# Names that sources give to devices without saying which of several they are.
ALIASES = {
    "NVIDIA H100": "NVIDIA H100 SXM5 80 GB",
    "NVIDIA H100 80GB": "NVIDIA H100 SXM5 80 GB",
    "NVIDIA H100 80 GB": "NVIDIA H100 SXM5 80 GB",
    "NVIDIA Tesla V100": "NVIDIA Tesla V100 SXM2 16 GB",
    "NVIDIA Tesla P100": "NVIDIA Tesla P100 PCIe 16 GB",
}
THROTTLED: tuple[tuple[str, str], ...] = (("mac-llm-bench", "Apple M5"),)
"""Machines whose runs contradict each other: a fanless MacBook Air, by its source's files, that ran
18.3 and 18.4 GiB at 5.5 and 2.5 tokens a second in one series."""
_QUANT = re.compile(r"(UD-)?(I?Q\d|TQ\d|B?F(P)?(16|32)|MXFP|NVFP)")
MICROSCALED_BELOW = 8.0
"""Bits of a weight of gpt-oss: files of 16 bits exist, too."""
_CLASS_BY_BITS = ((12.0, HALF), (7.0, EIGHT), (4.2, K_QUANTS), (0.0, LOW))
METHODS = (
    ("localscore", "LocalScore"),
    ("avgtps", "average with the prompt"),
    ("toksout", "average with the prompt"),
    ("decode", "server"),
    ("prefill", "server"),
    ("server_gen", "server"),
    ("eval_rate", "server"),
)
"""How a test was timed, by its name; llama-bench is the rule."""
USUAL_CYCLE = 16
"""Single-precision operations of a core and cycle: two fused multiply-adds of 128 bits."""
_ADDITION = re.compile(r" \((Metal|\d+-core GPU, \d+ GB)\)$")
"""What sources add to a device's name."""


@dataclass(frozen=True, slots=True)
class Place:
    """A device in the hands of one source. `chip`: what is left out together."""

    chip: str
    circumstances: RunConditions
    bandwidth_range: tuple[float, float]
    memory_bytes: int | None = None
    knows_compute: bool = True

    def at_depth(self, n_cells: float) -> Self:
        """With attention that looks so far."""
        return replace(self, circumstances=replace(self.circumstances, n_cells=n_cells))


def place_of(row: dict[str, str], notes: Notes, kind: str, shape: Shape) -> Place | str:
    """Of a row of CSV and its class of weight type; a reason where its device is not known."""
    if row["backend"] == "cpu":
        return _processor(row, notes, kind, shape)
    cores = number(notes.get("gpu_cores")) or _said_cores(row["device"])
    memory = number(notes.get("accel_ram")) or notes.memory_gb or _said_gb(row["device"])
    backend = row["backend"]
    match = match_of(_ADDITION.sub("", row["device"]), cores, memory, backend)
    inside = re.search(r"\(([^()]+)\)", row["device"])
    if inside and (match.device is None or match.device.kind == "cpu"):
        match = match_of(inside[1], cores, None, backend)
    if match.device is None or match.device.kind == "cpu":
        return "device not in the table"
    backend = row["backend"] or match.device.kind
    known = circumstances(match.device, backend).with_type(kind)
    least, most = match.bandwidth_range or (known.bandwidth_bytes_per_s,) * 2
    left = share_left(match.device.name, notes.power_limit_w)
    known = _limited(known, left)
    return Place(
        chip=match.device.name,
        circumstances=_by_source(known, row, notes, shape),
        bandwidth_range=(left * least, left * most),
        memory_bytes=None if backend == "metal" else memory_of(match),
    )


def _limited(run: RunConditions, left: float) -> RunConditions:
    """Under a limit of power that leaves a share of the device's figures."""
    return replace(
        run,
        bandwidth_bytes_per_s=left * run.bandwidth_bytes_per_s,
        fp32_flops_per_s=left * run.fp32_flops_per_s,
        fp16_flops_per_s=left * run.fp16_flops_per_s if run.fp16_flops_per_s else None,
    )


def class_of(model: str, quant: str, bits_per_weight: float) -> str:
    """The class of a weight type, by how many bits a weight takes where the name says nothing.

    OpenAI publishes gpt-oss with experts of MXFP4, and makers of files leave them so: the name of
    the quantization is that of the few other weights.
    """
    if "gpt-oss" in model.lower().replace("_", "-") and bits_per_weight < MICROSCALED_BELOW:
        return MICROSCALED
    if _QUANT.match(quant.upper()):
        return type_class(quant)
    return next(kind for least, kind in _CLASS_BY_BITS if bits_per_weight >= least)


def _processor(row: dict[str, str], notes: Notes, kind: str, shape: Shape) -> Place | str:
    """By the bandwidth in a row's notes, else by what its generation's memory can be."""
    known = processor_of(row["device"])
    said = number(notes.get("bw")) or _said_gbps(row["device"]) or _memory_gbps(row["device"])
    counted = re.search(r"(\d+) cores at ([\d.]+) GHz", row["device"])
    if known is None and said is None:
        return "memory bandwidth of the processor not known"
    bandwidth = said * 1e9 if said else known.bandwidth_bytes_per_s if known else 0.0
    flops = known.flops_per_s if known else None
    if flops is None and counted:
        flops = float(counted[1]) * float(counted[2]) * 1e9 * USUAL_CYCLE
    cores = known.n_cores if known else number(counted[1]) if counted else None
    if flops and cores and notes.n_threads:
        flops *= min(1.0, notes.n_threads / cores) ** FAST_FIRST
    chip = chip_of(row["device"])
    run = RunConditions(
        backend="cpu",
        family=f"{known.kind} processor" if known else "processor",
        type_class=kind,
        bandwidth_bytes_per_s=bandwidth,
        fp32_flops_per_s=flops or bandwidth / TYPICAL_INTENSITY,
        chip=chip,
    )
    limits = (known.least_bytes_per_s, known.most_bytes_per_s) if known and not said else None
    return Place(
        chip=chip,
        circumstances=_by_source(run, row, notes, shape),
        bandwidth_range=limits or (bandwidth, bandwidth),
        knows_compute=flops is not None,
    )


def _said_cores(name: str) -> float | None:
    found = re.search(r"(\d+)(?:-core GPU| GPU cores|-core\))", name)
    return float(found[1]) if found else None


def _said_gb(name: str) -> float | None:
    found = re.search(r"(?<![\d.])(\d+) ?GB(?!/s)\b", name)
    return float(found[1]) if found else None


def _said_gbps(name: str) -> float | None:
    found = re.search(r"(\d+(?:\.\d+)?) GB/s", name)
    return float(found[1]) if found else None


def _memory_gbps(name: str) -> float | None:
    """Of memory that is named instead of a processor, or with it: "DDR5-5600 dual channel"."""
    bytes_per_s = modules_bytes_per_s(name)
    if bytes_per_s is None:
        exact = [d for d in all_devices() if d.kind == "cpu" and d.name.lower() == name.lower()]
        bytes_per_s = exact[0].bandwidth_bytes_per_s if exact else None
    return bytes_per_s / 1e9 if bytes_per_s else None


def _by_source(
    run: RunConditions, row: dict[str, str], notes: Notes, shape: Shape
) -> RunConditions:
    source = row.get("source", "")
    month = None if "localscore" in source else month_of(source, notes)
    traits = ("moe",) * shape.is_mixture + (shape.kind,) * (shape.kind != "dense")
    traits += ("gemma",) * ("gemma" in row["model"].lower())
    traits += ("convolution",) * ("lfm2" in row["model"].lower())
    return replace(
        run,
        era=era_of(source, month),
        age_years=age_years(month),
        traits=traits,
        width=shape.n_embd,
        group=shape.group,
        cache=notes.cache,
        habits=tuple(_habits(run, row, notes)),
    )


def _habits(run: RunConditions, row: dict[str, str], notes: Notes) -> Iterator[tuple[str, str]]:
    """What a source did that a user's machine does not do."""
    source, test = row.get("source", ""), row["test"].lower()
    if method := next((name for text, name in METHODS if text in test), None):
        yield "method", method
    if source:
        yield "source", notes.source_of(source)
    if run.backend == "vulkan" and "amdvlk" in notes.text:
        yield "driver", "AMDVLK"
    if any(text in source and row["device"] == name for text, name in THROTTLED):
        yield "state", f"throttled {row['device']}"
    if run.backend == "rocm" and _has_rocblas_alone(notes, run.family):
        yield "library", f"rocBLAS alone, {row['test'][:2]}"


@cache
def match_of(
    name: str, cores: float | None, memory: float | None, backend: str | None = None
) -> Match:
    """What a driver's name, else a person's, can mean."""
    exact = [device for device in all_devices() if device.name == ALIASES.get(name, name)]
    if exact:
        return Match(tuple(exact[:1]))
    found = match_reported(
        name,
        memory_bytes=round(memory * GIB) if memory else None,
        gpu_cores=round(cores) if cores else None,
    )
    is_of_backend = backend is None or found.device is None or found.device.kind != "cpu"
    return found if found.candidates and is_of_backend else _as_typed(name, cores, backend)


@cache
def _as_typed(name: str, cores: float | None, backend: str | None = None) -> Match:
    try:
        found = device_meant(name, None, backend).candidates
    except UserError:
        return Match(())
    return Match(tuple(device for device in found if device.gpu_cores in (None, cores)) or found)


def _has_rocblas_alone(notes: Notes, family: str) -> bool:
    """Toolboxes turn hipBLASLt on; builds by hand have it where their notes say so."""
    if family != "AMD Strix Halo":
        return False
    said = f"{notes.get('build')} {notes.get('env')}".lower()
    return "hblt0" in said or ("llama.cpp-" in said and "hipblaslt=1" not in said)
