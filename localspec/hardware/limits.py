"""CPU quotas and memory limits that Linux sets a group of processes, at any level of any version.

/proc/self/cgroup names this process's group in each hierarchy, /proc/self/mountinfo says where a
hierarchy is mounted and from which of its groups on. A limit of any group from there up to the
mount holds, so the smallest counts. A container may see its own group as "/", or a path of which
nothing is mounted: then the mount itself is the group.

Version 1 gives each controller a hierarchy and writes "no limit" as a number near 2^63; version 2
has one hierarchy and writes "max". Sources: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/
memory.rst and scheduler/sched-bwc.rst of the kernel, proc_pid_mountinfo(5).
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from localspec.hardware.gpus import int_of, line_of

_UNLIMITED = 2**62
_USUAL_MOUNTS = {
    "cpu": ("cpu,cpuacct", "cpuacct,cpu", "cpu"),
    "memory": ("memory",),
}
"""Below /sys/fs/cgroup, where a sandbox shows no mounts."""
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Group:
    """A folder of a mounted hierarchy, with the version of its files."""

    folder: Path
    version: int

    def number(self, name: str) -> int | None:
        """What a file says; None for no limit, and where it is not there."""
        value = int_of(self.folder / name)
        return None if value is None or value >= _UNLIMITED else value

    def statistics(self) -> dict[str, int]:
        """memory.stat by name."""
        found: dict[str, int] = {}
        for line in (line_of(self.folder / "memory.stat") or "").splitlines():
            name, _, value = line.partition(" ")
            with suppress(ValueError):
                found[name] = int(value)
        return found


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that this process may use; None without a limit."""
    return min(filter(None, map(_quota_of, groups("cpu", root))), default=None)


def memory_left_bytes(root: Path = Path("/")) -> int | None:
    """Bytes up to the nearest limit; None without one. Cached files are given up at need."""
    left = (_left_in(group) for group in groups("memory", root))
    return min((n for n in left if n is not None), default=None)


def swap_left_bytes(root: Path = Path("/")) -> int | None:
    """Bytes of swap that the groups still allow; None without a limit. Many containers have none.

    Version 1 limits memory and swap together (memory.memsw of cgroup-v1/memory.rst, section 2.4).
    """
    left = (_swap_left_in(group) for group in groups("memory", root))
    return min((n for n in left if n is not None), default=None)


def reservable_bytes(root: Path = Path("/")) -> int | None:
    """What the system still promises where it promises no more than it has; None where it may.

    Mode 2 of vm.overcommit_memory (Documentation/mm/overcommit-accounting.rst of the kernel).
    """
    if line_of(root / "proc/sys/vm/overcommit_memory") != "2":
        return None
    sizes = {
        name: 1024 * int(words[0])
        for name, _, rest in (
            line.partition(":") for line in (line_of(root / "proc/meminfo") or "").splitlines()
        )
        if (words := rest.split()) and words[0].isdigit()
    }
    if "CommitLimit" not in sizes or "Committed_AS" not in sizes:
        return None
    return max(0, sizes["CommitLimit"] - sizes["Committed_AS"])


def groups(controller: str, root: Path = Path("/")) -> list[Group]:
    """This process's group and all those above it that can be seen, for one controller."""
    own = _own_paths(root)
    mounts = [mount for mount in _mounts(root) if mount.has(controller)]
    found: list[Group] = []
    for mount in mounts or _usual_mounts(controller, root):
        path = own.get("" if mount.version == 2 else controller, "/")
        folder = mount.folder_of(path)
        while folder.is_relative_to(mount.folder):
            found.append(Group(folder, mount.version))
            folder = folder.parent
    return found


@dataclass(frozen=True, slots=True)
class _Mount:
    """`top` is the group that the folder shows, by its path in the whole hierarchy."""

    folder: Path
    version: int
    top: str = "/"
    controllers: frozenset[str] = frozenset()

    def has(self, controller: str) -> bool:
        return self.version == 2 or controller in self.controllers

    def folder_of(self, path: str) -> Path:
        """A group's folder; of a path that is not visible, the longest end of it that is."""
        group = PurePosixPath(path)
        if ".." not in group.parts and group.is_relative_to(self.top):
            inner = self.folder / group.relative_to(self.top)
            if inner.is_dir():
                return inner
        parts = [part for part in group.parts if part not in ("/", "..")]
        ends = (self.folder.joinpath(*parts[i:]) for i in range(len(parts)))
        return next((end for end in ends if end.is_dir()), self.folder)


def _own_paths(root: Path) -> dict[str, str]:
    """The group's path by controller; that of version 2 under the empty name."""
    paths: dict[str, str] = {}
    for line in (line_of(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        paths |= dict.fromkeys(controllers.split(","), path)
    return paths


def _mounts(root: Path) -> Iterator[_Mount]:
    for line in (line_of(root / "proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, source = before.split(), after.split()
        if len(fields) < 5 or len(source) < 3 or not source[0].startswith("cgroup"):
            continue
        top, folder = (_unescaped(text) for text in fields[3:5])
        yield _Mount(
            folder=root / folder.lstrip("/"),
            version=2 if source[0] == "cgroup2" else 1,
            top=top,
            controllers=frozenset(source[2].split(",")),
        )


def _usual_mounts(controller: str, root: Path) -> list[_Mount]:
    top = root / "sys/fs/cgroup"
    names = [name for name in _USUAL_MOUNTS[controller] if (top / name).is_dir()]
    first = [_Mount(top / name, 1) for name in names[:1]]
    return [*first, _Mount(top, 2)] if top.is_dir() else []


def _unescaped(text: str) -> str:
    """mountinfo writes spaces and the like as \\040."""
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)


def _quota_of(group: Group) -> float | None:
    if group.version == 2:
        quota, _, period = (line_of(group.folder / "cpu.max") or "").partition(" ")
    else:
        quota, period = (
            line_of(group.folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")
        )
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None
    return int(quota) / int(period)


def _left_in(group: Group) -> int | None:
    """Up to the limit of a group. memory.high slows a process down before it is reached."""
    statistics = group.statistics()
    if group.version == 2:
        limits = [group.number("memory.max"), group.number("memory.high")]
        used = group.number("memory.current")
        cached = ("active_file", "inactive_file")
    else:
        inherited = statistics.get("hierarchical_memory_limit", _UNLIMITED)
        limits = [
            group.number("memory.limit_in_bytes"),
            inherited if inherited < _UNLIMITED else None,
        ]
        used = group.number("memory.usage_in_bytes")
        cached = ("total_active_file", "total_inactive_file")
    known = [limit for limit in limits if limit is not None]
    if not known:
        return None
    dropped = sum(statistics.get(name, 0) for name in cached)
    return max(0, min(known) - (used or 0) + dropped)


def _swap_left_in(group: Group) -> int | None:
    if group.version == 2:
        limit, used = group.number("memory.swap.max"), group.number("memory.swap.current")
        return None if limit is None else max(0, limit - (used or 0))
    both, memory = (group.number(f"memory.{name}limit_in_bytes") for name in ("memsw.", ""))
    if both is None or memory is None:
        return None
    used, in_memory = (group.number(f"memory.{name}usage_in_bytes") for name in ("memsw.", ""))
    return max(0, both - memory - max(0, (used or 0) - (in_memory or 0)))
