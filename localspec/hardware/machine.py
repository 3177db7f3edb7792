"""This machine: processor, memory, power, and its devices joined with published figures."""

import hashlib
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from localspec.hardware.detect import (
    available_memory_bytes,
    processor_features,
    processor_name,
    usable_cores,
)
from localspec.hardware.devices import Match, match_reported
from localspec.hardware.system import Gpu, amd_gpus, apple_gpus, low_power_mode, nvidia_gpus

TOOL_LIMIT_S = 5
BACKENDS = ("cuda", "metal", "rocm", "vulkan", "sycl", "opencl")
_PROFILE = Path("/sys/firmware/acpi/platform_profile")


@dataclass(frozen=True, slots=True)
class Power:
    """What it runs on; None where the system does not say."""

    on_battery: bool | None
    low_power_mode: bool | None
    profile: str | None

    @property
    def text(self) -> str:
        """For people, and part of the key under which measurements are kept."""
        supply = {True: "on battery", False: "on mains power", None: "power supply unknown"}
        parts = [supply[self.on_battery]]
        if self.low_power_mode:
            parts.append("low power mode")
        if self.profile:
            parts.append(f"profile {self.profile}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Reported:
    """A device of the engine's own list."""

    name: str
    description: str
    total_bytes: int | None
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class LocalDevice:
    """A device here, with what the table says of it. `shares_memory`: with the processor."""

    backend: str
    name: str
    match: Match
    total_bytes: int | None
    free_bytes: int | None
    shares_memory: bool


def local_devices(reported: Sequence[Reported] | None) -> tuple[LocalDevice, ...]:
    """Every device, the processor last. Without an engine's list: what the system shows."""
    known = system_gpus()
    if reported is None:
        graphics = [_from_system(gpu) for gpu in known]
    else:
        listed = [(backend_of(device.name), device) for device in reported]
        graphics = [_from_engine(backend, d, known) for backend, d in listed if backend != "cpu"]
    total_bytes, free_bytes = psutil.virtual_memory().total, available_memory_bytes()
    match = match_reported(processor_name())
    kinds = Match(tuple(device for device in match.candidates if device.kind == "cpu"))
    return (
        *graphics,
        LocalDevice("cpu", processor_name(), kinds, total_bytes, free_bytes, True),
    )


def backend_of(name: str) -> str:
    """The backend of a ggml device name such as CUDA0, Metal, ROCm1, Vulkan0; else "cpu"."""
    lowered = name.lower()
    named = {"mtl": "metal", "hip": "rocm", "gpuopencl": "opencl"}
    known = {**{backend: backend for backend in BACKENDS}, **named}
    return next((backend for start, backend in known.items() if lowered.startswith(start)), "cpu")


@cache
def system_gpus() -> tuple[Gpu, ...]:
    """Graphics processors that the system's tools show."""
    if platform.system() == "Darwin":
        shown = _output("system_profiler", "SPDisplaysDataType", "-json")
        return apple_gpus(shown, psutil.virtual_memory().total)
    query = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
    amd = _output("rocm-smi", "--showproductname", "--showmeminfo", "vram", "--json")
    return nvidia_gpus(_output("nvidia-smi", *query)) + amd_gpus(amd)


def power() -> Power:
    """Asked each time: a laptop's changes."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    low = low_power_mode(_output("pmset", "-g")) if platform.system() == "Darwin" else None
    try:
        profile = _PROFILE.read_text().strip() or None
    except OSError:
        profile = None
    return Power(None if battery is None else not battery.power_plugged, low, profile)


def machine_key() -> str:
    """A short hash of what makes measurements comparable: hardware and power state."""
    parts = [
        processor_name(),
        " ".join(sorted(processor_features())),
        str(usable_cores()),
        str(psutil.virtual_memory().total),
        repr(system_gpus()),
        power().text,
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _from_system(gpu: Gpu) -> LocalDevice:
    match = match_reported(gpu.name, memory_bytes=gpu.memory_bytes, gpu_cores=gpu.gpu_cores)
    shared = gpu.backend == "metal"
    return LocalDevice(gpu.backend, gpu.name, match, gpu.memory_bytes, None, shared)


def _from_engine(backend: str, device: Reported, known: Sequence[Gpu]) -> LocalDevice:
    """The engine's name is the better one, the system knows core counts."""
    twin = next((gpu for gpu in known if gpu.name in device.description), None)
    memory_bytes = device.total_bytes if twin is None else twin.memory_bytes or device.total_bytes
    cores = twin.gpu_cores if twin else None
    match = match_reported(device.description, memory_bytes=memory_bytes, gpu_cores=cores)
    shared = backend == "metal"
    return LocalDevice(
        backend, device.description, match, device.total_bytes, device.free_bytes, shared
    )


def _output(*command: str) -> str:
    """What a tool prints; nothing if it is absent, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace",
            timeout=TOOL_LIMIT_S, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
