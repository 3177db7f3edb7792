"""What the operating system says of this machine: cores, memory, processor, power.

A container's CPU quota, affinity and memory limit count. A laptop on battery is another machine
than a plugged one.

A thread is worth one core, of the fast kind: two hardware threads of a core share its units, and
slow cores hold up the others at the end of every matrix. On Linux kinds are told by Intel's own
lists, else by the scheduler's capacity, else by the highest clock; by clock a core is slow if
another has 1.5 times as much, since chips of one kind differ by less (sched-ext/scx, pull request
2134). By capacity those cores count that do most together at the pace of their slowest: a phone's
one fastest core alone does not.

Sources: Documentation/ABI/testing/sysfs-devices-system-cpu and sysfs-bus-event_source-devices.
"""

import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from localspec.hardware.gpus import int_of, line_of, output_of
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


_PROFILE = Path("/sys/firmware/acpi/platform_profile")
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_LOW_POWER = re.compile(r"^\s*(?:lowpowermode|powermode)\s+(\d)", re.MULTILINE)


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


def low_power_mode(text: str) -> bool | None:
    """From `pmset -g`, where newer machines print `powermode`: 1 is low; None without either."""
    found = _LOW_POWER.search(text)
    return None if found is None else found[1] == "1"


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


GAP = 1.5
_CPUS = "sys/devices/system/cpu"
_FAST_LIST = "sys/devices/cpu_core/cpus"
"""Of Intel's fast cores; machines with one kind of core have no such file."""


def allowed_cpus() -> frozenset[int]:
    """Logical processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))


def fast_cores(allowed: Iterable[int], root: Path = Path("/")) -> int | None:
    """How many cores of the fast kind there are among some processors; None where it is not told.

    Where only slow ones are allowed, they count.
    """
    cpus = frozenset(allowed)
    siblings = {cpu: _siblings(cpu, root) for cpu in cpus}
    if not all(siblings.values()):
        return None
    return len({siblings[cpu] for cpu in _fast(cpus, root)}) or None


def cpu_list(text: str) -> frozenset[int]:
    """Numbers from the kernel's form "0-3,8,10-11"; what is no number is left out."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and (last or first).isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _siblings(cpu: int, root: Path) -> str | None:
    folder = root / _CPUS / f"cpu{cpu}" / "topology"
    return line_of(folder / "core_cpus_list") or line_of(folder / "thread_siblings_list")


def _fast(cpus: frozenset[int], root: Path) -> frozenset[int]:
    listed = cpus & cpu_list(line_of(root / _FAST_LIST) or "")
    if listed:
        return listed
    folders = {cpu: root / _CPUS / f"cpu{cpu}" for cpu in cpus}
    capacity = {cpu: int_of(folder / "cpu_capacity") or 0 for cpu, folder in folders.items()}
    if all(capacity.values()):
        return _together(capacity)
    clocks = {cpu: folder / "cpufreq/cpuinfo_max_freq" for cpu, folder in folders.items()}
    clock = {cpu: int_of(path) or 0 for cpu, path in clocks.items()}
    if all(clock.values()):
        return frozenset(cpu for cpu in cpus if GAP * clock[cpu] > max(clock.values()))
    return cpus


def _together(capacity: Mapping[int, int]) -> frozenset[int]:
    """Cores down to the kind with which equal shares of the work end first."""
    kinds = sorted(set(capacity.values()), reverse=True)
    sets = [frozenset(cpu for cpu, own in capacity.items() if own >= kind) for kind in kinds]
    pace = {cpus: len(cpus) * kind for cpus, kind in zip(sets, kinds, strict=True)}
    return max(sets, key=pace.__getitem__, default=frozenset())


def fast_apple_cores(read: Callable[[str], str]) -> int | None:
    """From `sysctl`: the cores of every level that is not called Efficiency; None elsewhere.

    Level 0 is the fastest. Systems before macOS 13 do not name the levels.
    """
    n_levels = read("hw.nperflevels")
    counts: list[int] = []
    for level in range(int(n_levels) if n_levels.isdigit() else 1):
        name = read(f"hw.perflevel{level}.name")
        count = read(f"hw.perflevel{level}.physicalcpu")
        if count.isdigit() and (level == 0 or name not in ("", "Efficiency")):
            counts.append(int(count))
    return sum(counts) or None
