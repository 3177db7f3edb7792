"""Which processors of a Linux machine are worth a thread: one a core, and of the fast kind.

Two hardware threads of a core share its units, and decoding waits for memory. Slow cores hold up
the others at the end of every matrix. Kinds are told by Intel's own lists, else by the scheduler's
capacity, else by the highest clock; by clock a core is slow if another has 1.5 times as much, since
chips of one kind differ by less (sched-ext/scx, pull request 2134). By capacity those cores count
that do most together at the pace of their slowest: a phone's one fastest core alone does not.

Sources: Documentation/ABI/testing/sysfs-devices-system-cpu and sysfs-bus-event_source-devices.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from localspec.hardware.gpus import line_of

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
    capacity = {cpu: _figure(cpu, "cpu_capacity", root) for cpu in cpus}
    if all(capacity.values()):
        return _together(capacity)
    clock = {cpu: _figure(cpu, "cpufreq/cpuinfo_max_freq", root) for cpu in cpus}
    if all(clock.values()):
        return frozenset(cpu for cpu in cpus if GAP * clock[cpu] > max(clock.values()))
    return cpus


def _together(capacity: Mapping[int, int]) -> frozenset[int]:
    """Cores down to the kind with which equal shares of the work end first."""
    kinds = sorted(set(capacity.values()), reverse=True)
    sets = [frozenset(cpu for cpu, own in capacity.items() if own >= kind) for kind in kinds]
    pace = {cpus: len(cpus) * kind for cpus, kind in zip(sets, kinds, strict=True)}
    return max(sets, key=pace.__getitem__, default=frozenset())


def _figure(cpu: int, name: str, root: Path) -> int:
    text = line_of(root / _CPUS / f"cpu{cpu}" / name)
    return int(text) if text and text.isdigit() else 0


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
