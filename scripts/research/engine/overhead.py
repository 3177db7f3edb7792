"""What localspec's loop costs beside the engine: milliseconds a token, and resident memory.

    scripts/research/run bench-overhead [--json]

1. In one process: a step's wall time less the time inside llama_decode and llama_synchronize, per
   token, greedy and sampled (temperature 0.8, top-k 40, top-p 0.95), in turns.
2. Against a bare ctypes script that decodes the same tokens with the same settings, process by
   process in the order A B B A: the ratio of decode times, the difference of peak resident memory.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer
from models import gemma, smollm2

from localspec.engine.sampling import Sampling
from localspec.hardware.detect import usable_cores
from localspec.session.reply_options import ReplyOptions
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

PROMPT = "The lighthouse keeper wrote in the log every evening. Tonight the entry began"
GREEDY = Sampling(temperature=0)
SAMPLED = Sampling(temperature=0.8, top_k=40, top_p=0.95, min_p=0.0, seed=2)
LIMITS_MS = {"SmolLM2 (49k)": (0.15, 0.4), "Gemma-3 (262k)": (0.5, 1.5)}
LIMIT_MB = 80
N_CTX = 4096
PEAK = """import sys
from localspec.cli.main import run
from localspec.hardware.detect import peak_resident_bytes

code = run()
print(peak_resident_bytes(), file=sys.stderr)
sys.exit(code)"""
"""One `localspec` command; its peak of resident memory is the last line on stderr."""


def main(
    max_tokens: Annotated[int, typer.Option("-n", "--max-tokens")] = 128,
    rounds: Annotated[int, typer.Option(help="Rounds of A B B A.")] = 5,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure, and compare with the limits."""
    results = []
    for (name, limits), path in zip(LIMITS_MS.items(), (smollm2(), gemma()), strict=True):
        results.append(
            {
                "model": name,
                **_overhead(path, max_tokens, rounds),
                **_bare(path, max_tokens, rounds),
            }
        )
        _show(results[-1], limits, sys.stderr if as_json else sys.stdout)
    if as_json:
        print(json.dumps({"results": results}))


def _overhead(path: Path, n_tokens: int, rounds: int) -> dict[str, Any]:
    """Median and 90th percentile of milliseconds a token outside the engine."""
    costs: dict[str, list[float]] = {"greedy": [], "sampled": []}
    with Session.open(SessionConfig.of(path, spec="none", ctx=N_CTX)) as session:
        prompt = session.raw_prompt(PROMPT)
        for _ in range(rounds):
            for name, sampling in (
                ("greedy", GREEDY),
                ("sampled", SAMPLED),
                ("sampled", SAMPLED),
                ("greedy", GREEDY),
            ):
                options = ReplyOptions(sampling, n_tokens, ignore_eos=True)
                costs[name] += _outside_engine_ms(session, prompt, options)
    return {
        f"{name}_ms": {
            "median": statistics.median(ms),
            "p90": statistics.quantiles(ms, n=10)[-1],
            "n": len(ms),
        }
        for name, ms in costs.items()
    }


def _outside_engine_ms(
    session: Session, prompt: list[int], options: ReplyOptions
) -> Iterator[float]:
    """For each token after the first: time between emissions less the engine's share."""
    engine = session.target
    last, last_busy = None, 0.0
    for _ in session.reply(prompt, options):
        now, busy = perf_counter(), engine.busy_s
        if last is not None:
            yield 1e3 * ((now - last) - (busy - last_busy))
        last, last_busy = now, busy


def _bare(path: Path, n_tokens: int, rounds: int) -> dict[str, Any]:
    """Ratios of decode time, ours over bare, and the difference of peak memory, by pairs."""
    tokens = _tokens(path, n_tokens)
    runs = {"ours": lambda: _run_ours(path, n_tokens), "bare": lambda: _run_bare(path, tokens)}
    done: dict[str, list[tuple[float, float]]] = {"ours": [], "bare": []}
    for _ in range(rounds):
        for name in ("ours", "bare", "bare", "ours"):
            done[name].append(runs[name]())
    ratios = sorted(
        ours[0] / bare[0] for ours, bare in zip(done["ours"], done["bare"], strict=True)
    )
    memory = {name: statistics.median(rss for _, rss in values) for name, values in done.items()}
    return {
        "decode_ratio_to_bare": {
            "median": statistics.median(ratios),
            "low": ratios[len(ratios) // 4],
            "high": ratios[-len(ratios) // 4],
        },
        "extra_resident_mb": (memory["ours"] - memory["bare"]) / 1e6,
    }


def _tokens(path: Path, n_tokens: int) -> dict[str, list[int]]:
    with Session.open(SessionConfig.of(path, spec="none", ctx=N_CTX)) as session:
        prompt = session.raw_prompt(PROMPT)
        return {
            "prompt": prompt,
            "reply": session.reply(prompt, ReplyOptions(GREEDY, n_tokens)).finish().tokens,
        }


def _run_ours(path: Path, n_tokens: int) -> tuple[float, float]:
    options = f"--raw --spec none --temp 0 --ctx {N_CTX} -n {n_tokens} --json".split()
    command = [sys.executable, "-c", PEAK, "generate", str(path), *options, "-p", PROMPT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["timings"]["decode_s"], int(done.stderr.splitlines()[-1])


def _run_bare(path: Path, tokens: dict[str, list[int]]) -> tuple[float, float]:
    script = Path(__file__).with_name("bare.py")
    command = [sys.executable, str(script), str(path), str(N_CTX), str(usable_cores())]
    done = subprocess.run(
        command, input=json.dumps(tokens), capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout)
    return result["decode_s"], result["peak_rss_bytes"]


def _show(result: dict[str, Any], limits: tuple[float, float], out: Any) -> None:
    ratio = result["decode_ratio_to_bare"]
    print(
        f"{result['model']}: overhead a token {result['greedy_ms']['median']:.3f} ms greedy"
        f" (limit {limits[0]}),"
        f" {result['sampled_ms']['median']:.3f} ms sampled (limit {limits[1]});"
        f" decode {ratio['median']:.3f} x bare ctypes ({ratio['low']:.3f} to {ratio['high']:.3f});"
        f" {result['extra_resident_mb']:.0f} MB more resident (limit {LIMIT_MB})",
        file=out,
    )
