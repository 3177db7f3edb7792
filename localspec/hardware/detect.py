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

from localspec.hardware.gpus import line_of, low_power_mode, output_of

_CGROUP = Path("/sys/fs/cgroup")
_CPUINFO = Path("/proc/cpuinfo")
_SYSCTL = ("/usr/sbin/sysctl", "-n")


@cache
def usable_cores() -> int:
    """Physical cores that this process may use; on Apple silicon the performance cores alone.

    Decoding waits for memory, so hyper-threads add nothing, and efficiency cores hold up the
    others.
    """
    physical = _performance_cores() or psutil.cpu_count(logical=False) or os.cpu_count() or 1
    return max(1, min(physical, _affinity(), _cpu_quota() or physical))


def available_memory_bytes() -> int:
    """Memory that can be had without swapping, within the container's limit."""
    free = psutil.virtual_memory().available
    limit, used = read_int(_CGROUP / "memory.max"), read_int(_CGROUP / "memory.current")
    if limit is None or used is None:
        return free
    return min(free, max(0, limit - used + _cached_bytes()))


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
    return frozenset((info.get("flags") or info.get("Features") or "").split())


@cache
def _cpuinfo() -> dict[str, str]:
    """The first processor's entry in /proc/cpuinfo; empty elsewhere than on Linux."""
    try:
        lines = _CPUINFO.read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cached_bytes() -> int:
    """What files hold in memory, mapped weights above all; it is given up at need."""
    try:
        pairs = (line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        return sum(int(n) for name, n in pairs if name in ("active_file", "inactive_file"))
    except (OSError, ValueError):
        return 0


def _performance_cores() -> int | None:
    if platform.system() != "Darwin":
        return None
    cores = output_of(*_SYSCTL, "hw.perflevel0.physicalcpu").strip()
    return int(cores) if cores.isdigit() else None


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_quota() -> int | None:
    """Whole CPUs in the container's quota, or None without one."""
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else max(1, int(quota) // int(period))


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
