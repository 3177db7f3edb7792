"""The machine as it is given: quotas, limits, affinity and kinds of cores."""

from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace

import pytest
from trees import TREES, Tree

from localspec.hardware import detect
from localspec.hardware.detect import cpu_list, fast_apple_cores, fast_cores
from localspec.hardware.limits import cpu_quota, memory_left_bytes

FREE = 10**12


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A machine of 48 cores and a terabyte, of which /proc and /sys are empty."""
    monkeypatch.setattr(detect, "ROOT", tmp_path)
    monkeypatch.setattr(detect.psutil, "cpu_count", lambda logical=True: 96 if logical else 48)
    memory = SimpleNamespace(available=FREE, total=FREE)
    monkeypatch.setattr(detect.psutil, "virtual_memory", lambda: memory)
    detect.usable_cores.cache_clear()
    yield tmp_path
    detect.usable_cores.cache_clear()


@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree.name)
def test_threads_and_memory_are_those_that_are_given(
    root: Path, monkeypatch: pytest.MonkeyPatch, tree: Tree
) -> None:
    """More threads than CPUs wait for each other at every layer; memory beyond a limit kills."""
    allowed = tree.write(root)
    monkeypatch.setattr(detect, "allowed_cpus", lambda: allowed)
    assert detect.usable_cores() == tree.cores
    assert memory_left_bytes(root) == tree.left
    assert detect.available_memory_bytes() == (FREE if tree.left is None else tree.left)


@pytest.mark.parametrize("text", ["max 100000\n", "", "nonsense", "100000 0", "-1 100000"])
def test_what_is_no_quota_limits_nothing(root: Path, text: str) -> None:
    for name in ("cpu.max", "memory.max"):
        (root / "sys/fs/cgroup").mkdir(parents=True, exist_ok=True)
        (root / "sys/fs/cgroup" / name).write_text(text)
    assert cpu_quota(root) is None
    assert memory_left_bytes(root) is None


def test_without_a_topology_the_system_s_count_holds(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detect, "allowed_cpus", lambda: frozenset(range(6)))
    assert fast_cores(range(6), root) is None
    assert detect.usable_cores() == 6


def test_a_limit_that_is_used_up_leaves_nothing(root: Path) -> None:
    folder = root / "sys/fs/cgroup"
    folder.mkdir(parents=True)
    (folder / "memory.max").write_text("1000\n")
    (folder / "memory.current").write_text("4000\n")
    assert memory_left_bytes(root) == 0


@pytest.mark.parametrize(
    ("version", "files", "left"),
    [
        (2, {"memory.swap.max": "0", "memory.swap.current": "0"}, 0),
        (2, {"memory.swap.max": "3000", "memory.swap.current": "1000"}, 2000),
        (2, {"memory.swap.max": "max"}, None),
        # `docker run --memory` sets twice as much for both together
        (1, {"memory.memsw.limit_in_bytes": "6000", "memory.limit_in_bytes": "4000"}, 2000),
        (1, {"memory.memsw.limit_in_bytes": "4000", "memory.limit_in_bytes": "4000"}, 0),
        (1, {"memory.memsw.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_swap_ends_where_a_group_allows_no_more(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    version: int,
    files: dict[str, str],
    left: int | None,
) -> None:
    """A container without swap is killed where the machine would slow down."""
    folder = root / "sys/fs/cgroup" / ("memory" if version == 1 else "")
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    monkeypatch.setattr(detect.psutil, "swap_memory", lambda: SimpleNamespace(free=FREE))
    assert detect.swap_bytes() == (FREE if left is None else left)


def test_numbers_of_processors() -> None:
    assert cpu_list("0-3,8,10-11\n") == {0, 1, 2, 3, 8, 10, 11}
    assert cpu_list("") == cpu_list("nonsense") == frozenset()


@pytest.mark.parametrize(
    ("shown", "cores"),
    [
        ({"hw.nperflevels": "2", "hw.perflevel0.name": "Performance",
          "hw.perflevel0.physicalcpu": "8", "hw.perflevel1.name": "Efficiency",
          "hw.perflevel1.physicalcpu": "2"}, 8),
        ({"hw.perflevel0.physicalcpu": "4", "hw.perflevel1.physicalcpu": "4"}, 4),
        ({"hw.nperflevels": "2", "hw.perflevel0.name": "Super",
          "hw.perflevel0.physicalcpu": "6", "hw.perflevel1.name": "Performance",
          "hw.perflevel1.physicalcpu": "12"}, 18),
        ({}, None),
    ],
)  # fmt: skip
def test_apple_s_efficiency_cores_get_no_thread(shown: dict[str, str], cores: int | None) -> None:
    assert fast_apple_cores(lambda name: shown.get(name, "")) == cores
