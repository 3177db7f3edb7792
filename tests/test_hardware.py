"""Limits of containers, which are not the machine's."""

from pathlib import Path

import psutil
import pytest

from localspec.hardware import detect


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(detect, "_CGROUP", tmp_path)
    detect.usable_cores.cache_clear()
    yield tmp_path
    detect.usable_cores.cache_clear()


@pytest.mark.parametrize(
    ("quota", "cores"), [("100000 100000", 1), ("150000 100000", 1), ("20000 100000", 1)]
)
def test_a_quota_limits_the_threads(container: Path, quota: str, cores: int) -> None:
    """More threads than CPUs wait for each other at every layer."""
    (container / "cpu.max").write_text(quota + "\n")
    assert detect.usable_cores() == cores


@pytest.mark.parametrize("text", ["max 100000\n", "", "nonsense"])
def test_without_a_quota_the_cores_count(container: Path, text: str) -> None:
    (container / "cpu.max").write_text(text)
    assert 1 <= detect.usable_cores() <= psutil.cpu_count()


def test_a_memory_limit_counts(container: Path) -> None:
    (container / "memory.max").write_text("1000000\n")
    (container / "memory.current").write_text("400000\n")
    assert detect.available_memory_bytes() == 600_000
    (container / "memory.stat").write_text("anon 5\nactive_file 1000\ninactive_file 20000\n")
    assert detect.available_memory_bytes() == 621_000
    (container / "memory.max").write_text("max\n")
    assert detect.available_memory_bytes() > 1_000_000
