"""What libllama allocates lies in large pages, where the system has them."""

import re
from pathlib import Path

import pytest
from models import smollm2

from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.llama.pages import LEAST, LargePages

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
OURS = Path("/proc/self/smaps_rollup")


@pytest.fixture(autouse=True)
def has_large_pages() -> None:
    if not ENABLED.is_file() or "[never]" in ENABLED.read_text():
        pytest.skip("this system has no large pages to give")


def large_bytes() -> int:
    found = re.search(r"AnonHugePages:\s+(\d+) kB", OURS.read_text())
    return 1024 * int(found[1]) if found else 0


@pytest.mark.parametrize("is_mapped", [False, True])
def test_weights_and_cache_lie_in_large_pages(is_mapped: bool) -> None:
    config = EngineConfig.of(smollm2(), ctx=2048, threads=2, mmap=is_mapped, repack=False)
    before = large_bytes()
    engine = LlamaEngine(config)
    try:
        cache = 2 * 2 * 30 * 192 * 2048
        expected = cache + (0 if is_mapped else smollm2().stat().st_size)
        assert large_bytes() - before > 0.8 * expected
    finally:
        engine.close()


def test_memory_that_was_there_is_left_alone() -> None:
    held = bytearray(2 * LEAST)
    pages, before = LargePages(), large_bytes()
    pages.ask()
    held[:] = bytes(len(held))
    assert large_bytes() - before < LEAST
