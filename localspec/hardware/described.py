"""Devices that the table does not have: processors by their generation, others by what is said.

"EPYC 9654" has the memory that its maker supports: a range where it takes two kinds, and an
estimate even then, because modules may be slower than allowed, channels empty and sockets two. So
intervals of processors are wide.

"Vulkan GPU 300 GB/s" and "cpu 89.6 GB/s 64 GB" say their bandwidth, their backend and their memory.
A backend that is not named is that of the maker, else Vulkan, which all makers have. Arithmetic is
known of few of them.
"""

import re
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from math import sqrt
from typing import Any

from localspec.hardware.devices import GIB, Device, Match, UnknownDeviceError, find_device

_AROUND = re.compile(
    r"\((?:r|tm)\)|\bmac ?book\b( pro\b| air\b)?|\bmac (mini|studio|pro)\b|\bimac\b", re.IGNORECASE
)
"""What stands around a chip's name: a trade mark, a computer."""
_BANDWIDTH = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)\s*gb/s")
_MEMORY = re.compile(r"(?<![\d.])(\d+)\s*gi?b(?!/s)\b")
_BACKENDS: tuple[tuple[str, str], ...] = (
    (r"\b(cuda|metal|rocm|vulkan|sycl|opencl|hexagon|musa|cann|cpu)\b", r"\1"),
    (r"\bhip\b", "rocm"),
    (r"nvidia|geforce|quadro|tesla|\brtx\b|\bgtx\b|jetson", "cuda"),
    (r"\bapple\b|\bm\d+( pro| max| ultra)?\b", "metal"),
    (r"instinct|\bmi\d{2,3}", "rocm"),
    (r"\bmtt\b", "musa"),
    (r"ascend", "cann"),
    (r"ddr|processor|xeon|epyc|ryzen|core ultra|threadripper|graviton|ampere altra", "cpu"),
)
"""The first pattern that a name has decides."""
USUAL_BACKEND = "vulkan"
SLOWEST = 1e9


def device_meant(name: str, memory_bytes: int | None = None) -> Match:
    """Of the table, else by what the name says. UserError where neither knows it."""
    if found := _described(name):
        return Match((found,))
    try:
        return find_device(name, memory_bytes)
    except UnknownDeviceError:
        bare = " ".join(_AROUND.sub(" ", name).split())
        if bare and bare != name:
            return device_meant(bare, memory_bytes)
        if processor := _processor(name):
            return Match((processor,))
        raise


def _described(name: str) -> Device | None:
    lowered = name.lower()
    said = _BANDWIDTH.search(lowered)
    if said is None or float(said[1]) * 1e9 < SLOWEST:
        return None
    device = _device(name, _backend(lowered), float(said[1]) * 1e9)
    sizes = tuple(int(size) * GIB for size in _MEMORY.findall(lowered))
    return replace(device, memory_bytes=sizes)


def _backend(lowered: str) -> str:
    for pattern, backend in _BACKENDS:
        if found := re.search(pattern, lowered):
            return found.expand(backend)
    return USUAL_BACKEND


def _processor(name: str) -> Device | None:
    found = processor_of(name)
    if found is None:
        return None
    return replace(
        _device(name, "cpu", found.bandwidth_bytes_per_s),
        fp32_flops_per_s=found.flops_per_s,
        same_name_bytes_per_s=(found.least_bytes_per_s, found.most_bytes_per_s),
        source="the memory that its maker supports (processors.toml)",
    )


def _device(name: str, kind: str, bandwidth_bytes_per_s: float) -> Device:
    """Of which nothing else is known."""
    return Device(
        name=" ".join(name.split()),
        kind=kind,
        matches=(name.lower(),),
        bandwidth_bytes_per_s=bandwidth_bytes_per_s,
        fp16_flops_per_s=None,
        fp32_flops_per_s=None,
        memory_bytes=(),
        gpu_cores=None,
        note=None,
        source="the name itself",
        shares_memory=kind == "cpu",
    )


# What systems add to a processor's name: revisions, graphics, cores, instruction sets, memory.
_ADDED = re.compile(
    r"\(.*?\)|\bw/.*|\bwith .*|\b(\d+|eight|quad)-cores?\b|\b\d+th gen\b|\bmodel b\b|\brev .*"
    r"|- \d+gb|(?<![-\w])(intel|amd|raspberry)\b"
)
# What brings processors' names from systems, cpuinfo and people to one form.
_NOISE = re.compile(r"\((?:metal|cpu(?: only)?)\)|\(r\)|\(tm\)|\bcpu\b|\bprocessor\b|@.*?ghz")
_CORES = re.compile(r"(\d+)-cores?\b")
_VIRTUAL = re.compile(r"(\d+) vcpu")
FAST_FIRST = 0.7
"""Of how arithmetic grows with threads: the first have the fast cores and the higher clock."""
CORE_GBPS = 10.0
"""What one core can draw from a server's memory, about: a share of a machine has no more."""
_AMD_CORES = (
    (r"ryzen ai max\+ 395", 16), (r"ryzen 9 (pro )?\d95\d", 16), (r"ryzen 9 (pro )?[79]945hx", 16),
    (r"ryzen 9 (pro )?\d90\d", 12),
    (r"ryzen 9", 8), (r"ryzen 7", 8), (r"ryzen 5 (pro )?[123]5\d\dh?", 4), (r"ryzen 5", 6),
    (r"ryzen 3", 4), (r"embedded r1", 2),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Processor:
    """`flops_per_s` of single precision, None where the number of cores is not known."""

    kind: str
    least_bytes_per_s: float
    most_bytes_per_s: float
    flops_per_s: float | None
    n_cores: float | None = None

    @property
    def bandwidth_bytes_per_s(self) -> float:
        """The middle of the range."""
        return sqrt(self.least_bytes_per_s * self.most_bytes_per_s)


def chip_of(name: str) -> str:
    """One name for a processor, however sources write it: all of its runs are left out at once."""
    return " ".join(_ADDED.sub(" ", _plain(name)).split()) or name


def _plain(name: str) -> str:
    return " ".join(_NOISE.sub(" ", name.lower()).split())


def processor_of(name: str) -> Processor | None:
    """None for a processor of no known generation."""
    plain = _plain(name)
    entries = _table()["processor"]
    found = next((entry for entry in entries if re.search(entry["match"], plain)), None)
    if found is None:
        return None
    cores = _n_cores(plain)
    shared = _VIRTUAL.search(plain)
    most = float(shared[1]) * CORE_GBPS if shared else float("inf")
    return Processor(
        found["class"],
        min(most / 2, *found["gbps"]) * 1e9,
        min(most, max(found["gbps"])) * 1e9,
        cores * found["cycle"] * found["ghz"] * 1e9 if cores else None,
        cores,
    )


def _n_cores(name: str) -> float | None:
    said = _VIRTUAL.search(name) or _CORES.search(name)
    if said:
        return float(said[1])
    known: dict[str, float] = _table()["cores"]
    named = [model for model in known if re.search(rf"(?<!\w){re.escape(model)}(?!\w)", name)]
    if named:
        return known[max(named, key=len)]
    return next((float(n) for pattern, n in _AMD_CORES if re.search(pattern, name)), None)


@cache
def _table() -> dict[str, Any]:
    text = (resources.files("localspec.hardware") / "processors.toml").read_text("utf-8")
    return tomllib.loads(text)
