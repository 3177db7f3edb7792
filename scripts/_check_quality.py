"""Do perplexity and KL divergence agree with llama.cpp's own llama-perplexity?

    scripts/check-quality --tool build/bin/llama-perplexity [--windows 8] [--json]

Both read the text that ships, SmolLM2 and Gemma by cache type and by weight type, in windows of 512
tokens. They agree if a mean divergence differs by at most 5 % or 1e-4. Without the tool nothing is
compared and the exit code is 0: it is not built by scripts/setup (llama.cpp, target
llama-perplexity).
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer
from _models import gemma, smollm2, variant

from localspec.engine.base import EngineConfig
from localspec.engine.health import engine_health
from localspec.engine.llama.engine import LlamaEngine
from localspec.hardware.detect import usable_cores
from localspec.quality import Divergence, Reference, divergence_of, reference_of, shipped_text
from localspec.quality.divergence import Windows, windows_of

TOOL = "llama-perplexity"
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


def main(
    tool: Annotated[
        Path | None, typer.Option(help="llama-perplexity, built from llama.cpp.")
    ] = None,
    windows: Annotated[int, typer.Option(help="Of 512 tokens.")] = 8,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Compare; exit code 1 where they do not agree."""
    found = tool or (Path(path) if (path := shutil.which(TOOL)) else None)
    if found is None or not found.exists():
        typer.echo(f"skipped: {TOOL} is not here; name it with --tool", err=True)
        return
    with tempfile.TemporaryDirectory(prefix="localspec-") as folder:
        rows = [_compared(found, case, windows, Path(folder)) for case in _cases()]
    if as_json:
        print(json.dumps(rows))
    if not all(row["agrees"] for row in rows):
        raise typer.Exit(1)


def _cases() -> list[Case]:
    small, large = smollm2(), gemma()
    pairs = (("bf16", "bf16"), ("q8_0", "q8_0"), ("q8_0", "q4_0"), ("q4_0", "q4_0"))
    by_cache = [Case(model, model, *pair) for model in (small, large) for pair in pairs]
    f16 = variant(small, "F16")
    return [*by_cache, Case(f16, variant(small, "Q4_0")), Case(f16, variant(small, "Q8_0"))]


def _compared(tool: Path, case: Case, n_windows: int, folder: Path) -> dict[str, Any]:
    mine, theirs = _ours(case, n_windows), _theirs(tool, case, n_windows, folder)
    difference = abs(mine.kld - theirs["kld"])
    row = {
        "case": case.name,
        "kld": mine.kld,
        "kld_p99": mine.kld_p99,
        "perplexity": mine.perplexity,
        "same_top": mine.same_top,
        **{f"theirs_{name}": value for name, value in theirs.items()},
        "agrees": difference <= max(ABSOLUTE, RELATIVE * theirs["kld"]),
    }
    typer.echo(
        f"{row['case']:44}  KLD {mine.kld:.6f} {theirs['kld']:.6f}"
        f"  99 % {mine.kld_p99:.5f} {theirs['kld_p99']:.5f}"
        f"  ppl {mine.perplexity:.4f} {theirs['perplexity']:.4f}"
        f"  top {mine.same_top:.3%} {theirs['same_top']:.3%}"
        f"  {'agrees' if row['agrees'] else 'DIFFERS'}",
        err=True,
    )
    return row


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
        raise SystemExit(f"{TOOL} failed: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout + done.stderr


if __name__ == "__main__":
    typer.run(main)
