"""Perplexity and KL divergence agree with llama.cpp's own llama-perplexity.

Both read the text that ships, SmolLM2 and Gemma by cache type and by weight type, in windows of 512
tokens. The tool is LLAMA_PERPLEXITY or the one on PATH, built from llama.cpp (target
llama-perplexity); without it the tests are skipped.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from models import gemma, smollm2, variant

from localspec.engine.base import EngineConfig
from localspec.engine.health import engine_health
from localspec.engine.llama.engine import LlamaEngine
from localspec.hardware.detect import usable_cores
from localspec.quality.divergence import (
    Divergence,
    Windows,
    divergence_of,
    reference_of,
    shipped_text,
    windows_of,
)
from localspec.quality.reference import Reference

pytestmark = pytest.mark.engine
TOOL = "llama-perplexity"
N_WINDOWS = 8
RELATIVE, ABSOLUTE = 0.05, 1e-4
_FIGURES = {
    "kld": re.compile(r"^Mean\s+KLD:\s+([-\d.]+)", re.MULTILINE),
    "kld_p99": re.compile(r"^99\.0%\s+KLD:\s+([-\d.]+)", re.MULTILINE),
    "perplexity": re.compile(r"^Mean PPL\(Q\)\s*:\s+([-\d.]+)", re.MULTILINE),
    "same_top": re.compile(r"^Same top p:\s+([-\d.]+)", re.MULTILINE),
}


@dataclass(frozen=True, slots=True)
class Case:
    """A model beside its reference."""

    reference: Path
    model: Path
    kv_k: str = "f16"
    kv_v: str = "f16"

    @property
    def name(self) -> str:
        return f"{self.model.stem} {self.kv_k}/{self.kv_v}"


@pytest.fixture(scope="module")
def tool() -> Path:
    found = os.environ.get("LLAMA_PERPLEXITY") or shutil.which(TOOL)
    if found is None:
        pytest.skip(f"{TOOL} is not here: LLAMA_PERPLEXITY names it")
    return Path(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


PAIRS = (("bf16", "bf16"), ("q8_0", "q8_0"), ("q8_0", "q4_0"), ("q4_0", "q4_0"))


@pytest.mark.parametrize("pair", PAIRS, ids="/".join)
@pytest.mark.parametrize("model", [smollm2, gemma])
def test_by_cache_type(
    tool: Path, folder: Path, model: Callable[[], Path], pair: tuple[str, str]
) -> None:
    _assert_agreement(tool, Case(model(), model(), *pair), folder)


@pytest.mark.parametrize("weight_type", ["Q4_0", "Q8_0"])
def test_by_weight_type(tool: Path, folder: Path, weight_type: str) -> None:
    small = smollm2()
    _assert_agreement(tool, Case(variant(small, "F16"), variant(small, weight_type)), folder)


def _assert_agreement(tool: Path, case: Case, folder: Path) -> None:
    """Reached on 2026-11-25: mean divergences within 0.6 %, perplexities to the eighth digit."""
    mine, theirs = _ours(case, N_WINDOWS), _theirs(tool, case, N_WINDOWS, folder)
    assert abs(mine.kld - theirs["kld"]) <= max(ABSOLUTE, RELATIVE * theirs["kld"]), (mine, theirs)
    assert mine.perplexity == pytest.approx(theirs["perplexity"], rel=1e-5), (mine, theirs)


def _ours(case: Case, n_windows: int) -> Divergence:
    with _reading(case.model, case.kv_k, case.kv_v) as (engine, windows_for):
        windows = windows_for(n_windows)
        known = _reference(case.reference, n_windows)
        return divergence_of(engine, engine.context(), windows, known)


@cache
def _reference(model: Path, n_windows: int) -> Reference:
    with _reading(model, "f16", "f16") as (engine, windows_for):
        return reference_of(engine, engine.context(), windows_for(n_windows))


@contextmanager
def _reading(
    model: Path, kv_k: str, kv_v: str
) -> Generator[tuple[LlamaEngine, Callable[[int], Windows]]]:
    repack = engine_health(lambda message: None).can_repack
    threads = usable_cores()
    config = EngineConfig.of(
        model, 255, ctx=512, threads=threads, kv_k=kv_k, kv_v=kv_v, repack=repack
    )
    engine = LlamaEngine(config)
    try:
        yield engine, lambda n: windows_of(engine.vocabulary, shipped_text(), n_windows=n)
    finally:
        engine.close()


def _theirs(tool: Path, case: Case, n_windows: int, folder: Path) -> dict[str, float]:
    text, base = folder / "text.txt", folder / f"{case.reference.stem}.base"
    text.write_text(shipped_text(), encoding="utf-8")
    common = ["-f", str(text), "-c", "512", "-b", "512", "--chunks", str(n_windows)]
    common += ["-t", str(usable_cores()), "--kl-divergence-base", str(base)]
    if not base.exists():
        _run(tool, ["-m", str(case.reference), *common])
    kinds = ["-ctk", case.kv_k, "-ctv", case.kv_v]
    said = _run(tool, ["-m", str(case.model), *common, "--kl-divergence", *kinds])
    found = {name: float(pattern.findall(said)[0]) for name, pattern in _FIGURES.items()}
    return found | {"same_top": found["same_top"] / 100}


def _run(tool: Path, arguments: list[str]) -> str:
    environment = os.environ | {"LD_LIBRARY_PATH": str(tool.parent)}
    done = subprocess.run(
        [str(tool), *arguments], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode != 0:
        pytest.fail(f"{TOOL} failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout + done.stderr
