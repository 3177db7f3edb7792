"""Decoding as measured by `localspec bench` and by upstream's llama-bench, in turns.

    scripts/research/run bench-against-llama-bench [MODEL ...] [--llama-bench PATH] [--json]

Build llama-bench from the source that the engine was built from, with the same flags: unpack the
source distribution of the installed llama-cpp-python and build the target `llama-bench` of its
vendor/llama.cpp with the CMAKE_ARGS and CXXFLAGS that `scripts/setup --dry-run` shows. The order is
A B B A, each time a process of its own; the ratio is localspec's speed to llama-bench's.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from localspec.bench.case import Case, Work
from localspec.bench.statistics import estimate, ratio
from localspec.bench.visit import visit
from localspec.hardware.detect import usable_cores
from localspec.registry.resolve import resolve
from localspec.session.session_config import SessionConfig

SAMPLES = 3
# As localspec sets it, so that both wait alike.
ENVIRONMENT = os.environ | {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "1000")}


def main(
    models: Annotated[list[str] | None, typer.Argument()] = None,
    llama_bench: Annotated[
        str | None, typer.Option(help="Path; also LLAMA_BENCH, or PATH.")
    ] = None,
    depths: Annotated[str, typer.Option("-d", "--depth")] = "0,1024",
    n_gen: Annotated[int, typer.Option("-n")] = 64,
    rounds: Annotated[int, typer.Option(help="Rounds of A B B A.")] = 3,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure both, or say that llama-bench is not here."""
    program = llama_bench or os.environ.get("LLAMA_BENCH") or shutil.which("llama-bench")
    if program is None or shutil.which(program) is None:
        print("skipped: llama-bench is not here; --llama-bench PATH names it", file=sys.stderr)
        return
    found = []
    for name in models or [None]:
        for depth in map(int, depths.split(",")):
            work = Work(0, n_gen, depth)
            config = SessionConfig.of(resolve(name), spec="none", threads=usable_cores())
            found.append(_compared(Case(config, work), program, rounds))
            if not as_json:
                _show(found[-1])
    if as_json:
        print(json.dumps({"results": found}))


def _compared(case: Case, program: str, rounds: int) -> dict[str, Any]:
    theirs: list[list[float]] = []
    ours: list[list[float]] = []
    engine: list[list[float]] = []
    for turn in (0, 1, 1, 0) * rounds:
        if turn:
            taken = _localspec(case)
            ours.append([n / wall for n, wall, _ in taken])
            engine.append([n / busy for n, _, busy in taken])
        else:
            theirs.append(_llama_bench(case, program))
    of_loop, of_engine = (
        ratio(theirs, ours, confidence=0.95),
        ratio(theirs, engine, confidence=0.95),
    )
    return {
        "model": case.config.model.name,
        "depth": case.work.depth,
        "llama_bench_tps": estimate(theirs).mid,
        "localspec_tps": estimate(ours).mid,
        "ratio": [of_loop.low, of_loop.mid, of_loop.high],
        "ratio_of_engine_time": [of_engine.low, of_engine.mid, of_engine.high],
    }


def _localspec(case: Case) -> list[tuple[int, float, float]]:
    """Tokens, seconds of the loop, and of them inside the engine, by repetition."""
    found = visit(case, SAMPLES)
    if found.measurement is None:
        sys.exit(f"localspec could not measure: {found.reason}")
    return [(s.n_tokens, s.decode_s or 0.0, s.engine_s) for s in found.measurement.samples]


def _llama_bench(case: Case, program: str) -> list[float]:
    done = subprocess.run(
        [program, "-m", case.config.model, "-p", "0", "-n", str(case.work.n_gen),
         "-d", str(case.work.depth), "-t", str(case.settings.threads), "-r", str(SAMPLES),
         "-o", "json"],
        capture_output=True, text=True, check=True, env=ENVIRONMENT,
    )  # fmt: skip
    (result,) = json.loads(done.stdout)
    return result["samples_ts"]


def _show(found: dict[str, Any]) -> None:
    low, mid, high = found["ratio"]
    engine = found["ratio_of_engine_time"][1]
    print(
        f"{Path(found['model']).stem} @ d{found['depth']}: llama-bench"
        f" {found['llama_bench_tps']:.1f}, localspec {found['localspec_tps']:.1f} tok/s, ratio"
        f" {mid:.3f} ({low:.3f} to {high:.3f}); of time in the engine {engine:.3f}",
        flush=True,
    )
