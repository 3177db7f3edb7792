"""What libllama allocates lies in large pages, where the system has them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from models import smollm2

from localspec.engine.llama.pages import CLEARED_BYTES, LEAST, LargePages

CELL_BYTES = 2 * 2 * 30 * 192
ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
OURS = Path("/proc/self/smaps_rollup")


@pytest.fixture(autouse=True)
def has_large_pages() -> None:
    if not ENABLED.is_file() or "[never]" in ENABLED.read_text():
        pytest.skip("this system has no large pages to give")


ASK = """
import re, sys
from pathlib import Path
from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine
path, is_mapped = Path(sys.argv[1]), sys.argv[2] == "1"
config = EngineConfig.of(
    path, ctx=int(sys.argv[3]), threads=2, mmap=is_mapped, repack=False, gpu_layers=0
)
engine = LlamaEngine(config)
memory = Path("/proc/self/smaps").read_text()
regions = re.findall(r"(?s)Size: +(\\d+) kB.*?VmFlags:([^\\n]*)", memory)
asked = sum(1024 * int(size) for size, flags in regions if "hg" in flags.split())
print(asked, sum(1024 * int(size) for size in re.findall(r"AnonHugePages: +(\\d+) kB", memory)))
engine.close()
"""
"""Prints how many bytes of the program's memory asked Linux for large pages (`hg`), and how many
lie in some."""


def large_bytes() -> int:
    found = re.search(r"AnonHugePages:\s+(\d+) kB", OURS.read_text())
    return 1024 * int(found[1]) if found else 0


@pytest.mark.parametrize("is_mapped", [False, True])
def test_weights_and_cache_ask_for_large_pages(is_mapped: bool) -> None:
    """In a process of its own: engines that came before leave memory, which is used again."""
    expected = CELL_BYTES * 2048 + (0 if is_mapped else smollm2().stat().st_size)
    assert asked_and_large(2048, is_mapped=is_mapped)[0] > 0.8 * expected


def test_a_large_cache_is_there_before_its_large_pages() -> None:
    """Making these can take longer than all else before the first token."""
    asked, large = asked_and_large(16384, is_mapped=True)
    assert asked > 0.8 * CELL_BYTES * 16384 > CLEARED_BYTES
    assert large < 0.5 * CELL_BYTES * 16384


def asked_and_large(n_ctx: int, *, is_mapped: bool) -> tuple[int, int]:
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(smollm2()), str(int(is_mapped)), str(n_ctx)],
        capture_output=True,
        text=True,
        check=True,
    )
    asked, large = map(int, done.stdout.split()[-2:])
    return asked, large


def test_memory_that_was_there_is_left_alone() -> None:
    held = bytearray(2 * LEAST)
    pages, before = LargePages(), large_bytes()
    pages.ask()
    held[:] = bytes(len(held))
    assert large_bytes() - before < LEAST
