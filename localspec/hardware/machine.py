"""This machine: its devices, joined with published figures, and a key for what was measured here.

The engine reports a device's name and memory, the system its core counts and printed sizes, the
table its figures.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

import psutil

from localspec.hardware.detect import (
    available_memory_bytes,
    power,
    processor_features,
    processor_name,
    usable_cores,
)
from localspec.hardware.devices import Match, match_reported
from localspec.hardware.gpus import MIB, Card, Gpu, system_cards, system_gpus

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

BACKENDS = ("cuda", "metal", "rocm", "vulkan", "sycl", "opencl", "musa", "cann", "rpc")
DeviceKind = Literal["cpu", "gpu", "igpu", "accel"]
"""ggml's: an igpu shares the processor's memory, an accel helps it."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A device of the engine's own list; memory in bytes, None where the backend does not tell.

    `card`: its PCI address. `is_twin`: another backend computes on that card, and is taken.
    """

    name: str
    description: str
    total_bytes: int | None
    free_bytes: int | None
    kind: DeviceKind
    backend: str
    card: str | None = None
    is_twin: bool = False

    @property
    def is_graphics(self) -> bool:
        """Whether it can hold layers of its own."""
        return self.kind in ("gpu", "igpu")

    @property
    def shares_memory(self) -> bool:
        """With the processor, as integrated ones and Apple's do."""
        return self.kind == "igpu" or self.description.startswith("Apple")


@dataclass(frozen=True, slots=True)
class LocalDevice:
    """A device here, with what the table says of it. `shares_memory`: with the processor."""

    backend: str
    name: str
    match: Match
    total_bytes: int | None
    free_bytes: int | None
    shares_memory: bool


def local_devices(
    reported: Sequence[Reported] | None,
    known: Sequence[Gpu] | None = None,
    cards: Sequence[Card] | None = None,
) -> tuple[LocalDevice, ...]:
    """Every device, the processor last; `known` and `cards` None: what the system shows.

    Without an engine's list (None) the devices are those that the system shows.
    """
    gpus = system_gpus() if known is None else known
    if reported is None:
        graphics = [_from_system(gpu) for gpu in gpus]
    else:
        graphics = [_from_engine(each, gpus) for each in computing(reported)]
    parts = [c for c in (cards or ()) if c.is_part_of_processor]
    if cards is None and any(device.backend in _AMD for device in graphics):
        parts = [c for c in system_cards() if c.is_part_of_processor]
    return (*(_as_part(device, parts) for device in graphics), _processor())


_AMD = ("rocm", "vulkan")
"""Backends of AMD's parts of processors."""


def _as_part(device: LocalDevice, parts: Sequence[Card]) -> LocalDevice:
    """A part of the processor as its card tells it: what firmware set aside is not all that it has,
    and of the rest it has no more than the machine has free."""
    part = next((each for each in parts if _is_part(device, each)), None)
    if part is None or part.memory_bytes is None:
        return device
    total = max(device.total_bytes or 0, part.memory_bytes)
    free = min(total, (part.own_bytes or 0) + available_memory_bytes())
    free = free if device.free_bytes is None else min(free, device.free_bytes)
    return replace(device, total_bytes=total, free_bytes=free, shares_memory=True)


def _is_part(device: LocalDevice, part: Card) -> bool:
    """Tools tell of a part's memory what firmware set aside, what may be mapped, or both."""
    sizes = (part.own_bytes, part.mappable_bytes, part.memory_bytes)
    told = device.total_bytes
    is_size = told is not None and any(abs(told - (size or 0)) < MIB for size in sizes)
    return device.backend in _AMD and (device.shares_memory or is_size)


def computing(
    reported: Sequence[Reported], names: Sequence[str] = (), workers: Sequence[str] = ()
) -> list[Reported]:
    """The graphics devices that layers go to, in libllama's order: those that were named, else
    those of `workers`, then GPUs with memory of their own, or where there are none the integrated
    ones.

    A card that two backends list counts once, and of integrated ones those of one backend.

    Source: llama_prepare_model_devices in llama.cpp.
    """
    graphics = [device for device in reported if device.is_graphics]
    far = [each for each in graphics if each.backend == "rpc" and each.description in workers]
    own = [device for device in graphics if device.backend != "rpc"]
    if names:
        return [device for name in names for device in far + own if device.name == name]
    single = [device for device in own if not device.is_twin]
    cards = [device for device in single if device.kind == "gpu"]
    return far + (cards or [each for each in single if each.backend == single[0].backend])


def backend_of(name: str) -> str:
    """The backend of a name of ggml's such as CUDA, Metal, ROCm, Vulkan; else "cpu"."""
    lowered = name.lower()
    named = {"mtl": "metal", "hip": "rocm", "gpuopencl": "opencl"}
    known = {**{backend: backend for backend in BACKENDS}, **named}
    return next((backend for start, backend in known.items() if lowered.startswith(start)), "cpu")


def machine_key() -> str:
    """A short hash of what makes measurements comparable: hardware, drivers and power state."""
    parts = [
        processor_name(),
        " ".join(sorted(processor_features())),
        str(usable_cores()),
        str(psutil.virtual_memory().total),
        repr(system_gpus()),
        power().text,
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def hardware_key(devices: str = "") -> str:
    """A short hash of the processor and GPUs alone: which machine this is, in whatever state.

    `devices`: what the engine computes on beside the processor.
    """
    parts = [processor_name(), *(f"{gpu.backend} {gpu.name}" for gpu in system_gpus())]
    parts += [devices] if devices else []
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _processor() -> LocalDevice:
    """Its bandwidth is that of the memory in the slots, which names hardly ever tell."""
    found = match_reported(processor_name()).candidates
    match = Match(tuple(device for device in found if device.kind == "cpu"))
    total_bytes = psutil.virtual_memory().total
    return LocalDevice("cpu", processor_name(), match, total_bytes, available_memory_bytes(), True)


def _from_system(gpu: Gpu) -> LocalDevice:
    memory_bytes = _memory_of(gpu.name, gpu.memory_bytes)
    match = match_reported(gpu.name, memory_bytes=memory_bytes, gpu_cores=gpu.gpu_cores)
    return LocalDevice(gpu.backend, gpu.name, match, memory_bytes, None, _shares(match, gpu.name))


def _from_engine(device: Reported, known: Sequence[Gpu]) -> LocalDevice:
    """The engine's name is the better one; the system knows core counts and Apple's memory.

    Metal gives the share of memory that graphics should use as the total, so sizes of several
    machines could be meant; elsewhere the engine's total is this very card's.
    """
    twin = next((gpu for gpu in known if gpu.name in device.description), None)
    sizes = (device.total_bytes, twin.memory_bytes if twin else None)
    engine_first = sizes if device.backend != "metal" else sizes[::-1]
    match = match_reported(
        device.description,
        memory_bytes=next((size for size in engine_first if size), None),
        gpu_cores=twin.gpu_cores if twin else None,
    )
    return LocalDevice(
        backend=device.backend,
        name=device.description,
        match=match,
        total_bytes=device.total_bytes,
        free_bytes=device.free_bytes,
        shares_memory=device.kind == "igpu" or _shares(match, device.description),
    )


def _memory_of(name: str, memory_bytes: int | None) -> int | None:
    """A part without memory of its own has the machine's."""
    if memory_bytes is None and _shares(match_reported(name), name):
        return psutil.virtual_memory().total
    return memory_bytes


def _shares(match: Match, name: str) -> bool:
    known = match.candidates
    return all(d.shares_memory for d in known) if known else name.startswith("Apple")


_READ_BYTES = 512 << 20
_READS = 5
QUICK_READ_BYTES = 160 << 20
"""More than most last caches hold, and read in a fifth of a second by any machine."""


def memory_read_bytes_per_s(n_threads: int, n_bytes: int = _READ_BYTES) -> float:
    """How fast threads read memory and do nothing else, the ceiling of decoding on a processor.

    The best of several reads by `n_threads`; NumPy lets go of the interpreter.
    """
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    import numpy as np  # noqa: PLC0415 - most who ask for a machine read no memory

    parts = np.array_split(np.empty(n_bytes // 8), n_threads)
    with ThreadPoolExecutor(n_threads) as pool:
        list(pool.map(_fill, parts))
        return max(n_bytes / _seconds(pool, parts) for _ in range(_READS))


def _fill(part: Any) -> None:
    """By the thread that reads it, so that the memory is near to it."""
    part.fill(1.0)


def _seconds(pool: "ThreadPoolExecutor", parts: list[Any]) -> float:
    started = perf_counter()
    list(pool.map(lambda part: part.max(), parts))
    return perf_counter() - started
