"""Devices that the table does not have: processors by their generation, others by what is said.

"EPYC 9654" has the memory that its maker supports. "Vulkan GPU 300 GB/s" and "cpu 89.6 GB/s 64 GB"
say their bandwidth, their backend and their memory. A backend that is not named is that of the
maker, else Vulkan, which all makers have. Arithmetic is known of few of them.
"""

import re
from dataclasses import replace

from localspec.hardware.devices import GIB, Device, Match, UnknownDeviceError, find_device
from localspec.hardware.processors import processor_of

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
