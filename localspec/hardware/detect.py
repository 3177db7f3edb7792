"""What the operating system says of this machine: cores, memory, processor, power.

A container's CPU quota, affinity and memory limit count. A laptop on battery is another machine
than a plugged one.
"""

import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from localspec.hardware.cores import allowed_cpus, fast_apple_cores, fast_cores
from localspec.hardware.gpus import line_of, low_power_mode, output_of
from localspec.hardware.limits import cpu_quota, memory_left_bytes, swap_left_bytes
from localspec.hardware.limits import reservable_bytes as promised_bytes

ROOT = Path("/")
_CPUINFO = Path("/proc/cpuinfo")
_SYSCTL = ("/usr/sbin/sysctl", "-n")


@cache
def usable_cores() -> int:
    """Fast physical cores that this process may use, within its CPU quota.

    Decoding waits for memory, so hyper-threads add nothing, and slow cores hold up the others. Of a
    quota of 7.65 CPUs 7 threads can run all the time.
    """
    allowed = allowed_cpus()
    cores = _fast_cores(allowed) or psutil.cpu_count(logical=False) or os.cpu_count() or 1
    quota = cpu_quota(ROOT)
    return max(1, min(cores, len(allowed), int(cores if quota is None else quota)))


def thread_limit() -> int:
    """Logical processors that this process may use, slow ones too, within its CPU quota."""
    quota, allowed = cpu_quota(ROOT), len(allowed_cpus())
    return max(1, min(allowed, int(allowed if quota is None else quota)))


def available_memory_bytes() -> int:
    """Memory that can be had without swapping, within every limit of its groups of processes."""
    free, left = psutil.virtual_memory().available, memory_left_bytes(ROOT)
    return free if left is None else min(free, left)


def reservable_bytes(mapped_bytes: int = 0) -> int | None:
    """What this process may still reserve, used or not; None without a limit.

    `ulimit -v` counts files that are yet to be mapped as well.
    """
    address_space = _address_space_bytes()
    limits = [promised_bytes(ROOT)]
    limits += [None if address_space is None else max(0, address_space - mapped_bytes)]
    return min((limit for limit in limits if limit is not None), default=None)


def _address_space_bytes() -> int | None:
    """Up to `ulimit -v`."""
    try:
        import resource  # noqa: PLC0415 - of Unix alone
    except ImportError:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    return max(0, limit - psutil.Process().memory_info().vms)


def swap_bytes() -> int:
    """Free swap space within every limit of the groups; 0 where the system does not tell."""
    try:
        free = psutil.swap_memory().free
    except (OSError, ValueError, RuntimeError, psutil.Error):
        return 0
    left = swap_left_bytes(ROOT)
    return free if left is None else min(free, left)


def _fast_cores(allowed: frozenset[int]) -> int | None:
    if platform.system() == "Darwin":
        return fast_apple_cores(lambda name: output_of(*_SYSCTL, name).strip())
    return fast_cores(allowed, ROOT)


@cache
def processor_name() -> str:
    """The processor's own name, as far as the system tells it."""
    if platform.system() == "Darwin":
        return output_of(*_SYSCTL, "machdep.cpu.brand_string").strip() or platform.processor()
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


@cache
def processor_features() -> frozenset[str]:
    """Instruction sets as Linux spells them; empty where the system does not list them."""
    info = _cpuinfo()
    listed = frozenset(
        (info.get("flags") or info.get("Features") or info.get("features") or "").split()
    )
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return listed | {"asimddp"}  # of every Apple M
    return listed


@cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's entry in /proc/cpuinfo; empty elsewhere than on Linux."""
    try:
        lines = _CPUINFO.read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def read_int(path: Path) -> int | None:
    """The number in a small file of the kernel, None if there is none."""
    text = line_of(path)
    return int(text) if text and text.isdigit() else None


_PROFILE = Path("/sys/firmware/acpi/platform_profile")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True, slots=True)
class Power:
    """Supply and settings; None where the system does not say."""

    on_battery: bool | None
    low_power_mode: bool | None
    profile: str | None
    governor: str | None = None

    @property
    def text(self) -> str:
        """For people, and part of the key under which measurements are kept."""
        supply = {True: "on battery", False: "on mains power", None: "power supply unknown"}
        parts = [supply[self.on_battery]]
        if self.low_power_mode:
            parts.append("low power mode")
        if self.profile:
            parts.append(f"profile {self.profile}")
        if self.governor:
            parts.append(f"governor {self.governor}")
        return ", ".join(parts)


def power() -> Power:
    """Asked each time: a laptop's changes."""
    low = low_power_mode(output_of("pmset", "-g")) if platform.system() == "Darwin" else None
    return Power(_on_battery(), low, line_of(_PROFILE), line_of(_GOVERNOR))


def _on_battery() -> bool | None:
    """psutil reads what drivers of batteries write, which is not always a number."""
    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError, ValueError, RuntimeError, psutil.Error):
        return None
    plugged = None if battery is None else battery.power_plugged
    return None if plugged is None else not plugged


_STATUS = Path("/proc/self/status")


def peak_resident_bytes() -> int:
    """Since this program began: on Linux `getrusage` counts what was before the exec, too."""
    try:
        lines = _STATUS.read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        import resource  # noqa: PLC0415 - of Unix alone

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else 1024 * peak
