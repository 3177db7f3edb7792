"""Layers shared out between this processor and workers: predicted beside measured.

    scripts/research/run bench-placement [MODEL] [--json]

It starts workers on loopback, of 1 and 2 threads, and measures with a model:

1. mixed placement at 1, 10 and 20 layers on a worker, with one thread on each side;
2. the hop to a worker: a thin model with half its layers there takes longer than the mean of all
   here and all there;
3. two workers of different speed: layers shared out by memory and by speed;
4. no layers on a device that is there, against no device, in the order A B B A;
5. the pipe to an engine in a process of its own: milliseconds a pass that are not in the engine.

Four workers' threads beside this process's need as many cores; on fewer they disturb each other.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any

import typer
from working import Running, free_port

from localspec.engine.base import EngineConfig
from localspec.engine.graphics import graphics
from localspec.engine.interrupt import Interrupt
from localspec.engine.process import EngineProcess
from localspec.engine.timing import TimedEngine, Timer
from localspec.forecast.machine import MachineChoice
from localspec.forecast.rated_machine import predicted_machine
from localspec.model.facts import ModelFacts
from localspec.model.synthetic import Shape, write_random_model
from localspec.registry.resolve import resolve
from localspec.session.config import SessionConfig
from localspec.session.loading import checked_facts, plan_engines
from localspec.settings import Attention

LAYERS = (1, 10, 20)
THIN = Shape(n_layers=16, n_embd=256, n_heads=4, n_kv_heads=2, n_ff=512, n_vocab=512)
N_TOKENS, N_PASSES = 32, 200
CACHE = Attention()
N_CTX = 1024


def main(
    model: Annotated[str | None, typer.Argument()] = None,
    rounds: Annotated[int, typer.Option(help="Times that each thing is measured.")] = 3,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure all five."""
    path = resolve(model)
    with _worker(1) as one, _worker(2) as two:
        found = {
            "mixed": _mixed(path, one, rounds),
            "hop": _hop(one, rounds),
            "split": _split(path, (one, two), rounds),
            "no_layers": _no_layers(path, one, rounds),
            "pipe_ms": _pipe_ms(path),
        }
    if as_json:
        print(json.dumps(found))
    else:
        _show(found)


@contextmanager
def _worker(n_threads: int) -> Iterator[str]:
    running = Running(free_port(), n_threads)
    try:
        yield running.address
    finally:
        running.kill()


def _token_s(path: Path, rounds: int, **settings: Any) -> float:
    """The least of some rounds: other programs only add."""
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - loads libllama

    config = EngineConfig.of(path, ctx=N_CTX, **{"threads": 1, "gpu_layers": 0, **settings})
    engine = LlamaEngine(config)
    try:
        timer = Timer(engine.context())
        timer.token_s(4, 0)
        return min(timer.token_s(N_TOKENS, 0) for _ in range(rounds))
    finally:
        engine.close()


def _predicted_s(facts: ModelFacts, choice: MachineChoice) -> float:
    machine = predicted_machine(choice, [facts], [CACHE], N_CTX, _said)
    return machine.roofline(facts, CACHE).seconds(1, N_TOKENS // 2)


def _said(message: str) -> None:
    print(message, file=sys.stderr)


def _mixed(path: Path, worker: str, rounds: int) -> list[dict[str, Any]]:
    facts = checked_facts(path)
    rows: list[dict[str, Any]] = []
    for n_layers in LAYERS:
        choice = MachineChoice(n_threads=1, n_gpu_layers=n_layers, workers=(worker,))
        predicted = _predicted_s(facts, choice)
        measured = _token_s(path, rounds, gpu_layers=n_layers, workers=(worker,))
        rows.append(_row(predicted, measured, layers=n_layers))
    return rows


def _hop(worker: str, rounds: int) -> dict[str, Any]:
    facts = None
    with TemporaryDirectory(prefix="localspec-") as folder:
        path = Path(folder) / "thin.gguf"
        write_random_model(path, THIN, "F16")
        facts = checked_facts(path)
        here, there, both = (
            _token_s(path, 2 * rounds, gpu_layers=n, workers=workers)
            for n, workers in ((0, ()), (-1, (worker,)), (THIN.n_layers // 2 + 1, (worker,)))
        )
    choice = MachineChoice(n_threads=1, n_gpu_layers=THIN.n_layers // 2 + 1, workers=(worker,))
    machine = predicted_machine(choice, [facts], [CACHE], N_CTX, _said)
    predicted = sum(share.hop_s for share in machine.peer_shares(facts, CACHE))
    return _row(predicted, max(0.0, both - (here + there) / 2))


def _split(path: Path, workers: tuple[str, ...], rounds: int) -> list[dict[str, Any]]:
    facts = checked_facts(path)
    rows: list[dict[str, Any]] = []
    for split in ("memory", "speed"):
        choice = MachineChoice(n_threads=1, workers=workers, split=split)
        predicted = _predicted_s(facts, choice)
        config = SessionConfig.of(
            path, ctx=N_CTX, threads=1, spec="none", workers=workers, split=split
        )
        shares = plan_engines(config).target.settings.shares
        measured = _token_s(path, rounds, gpu_layers=-1, workers=workers, shares=shares)
        rows.append(_row(predicted, measured, split=split, shares=shares))
    return rows


def _no_layers(path: Path, worker: str, rounds: int) -> dict[str, Any]:
    """Speed with a device that gets no layers, over that without one."""
    with_device, without = list[float](), list[float]()
    seen = graphics()
    visible = {} if seen else {"workers": (worker,)}
    for turn in (0, 1, 1, 0) * rounds:
        (without if turn else with_device).append(_token_s(path, 1, **({} if turn else visible)))
    devices = [each.name for each in seen] or [worker]
    return {"ratio": median(without) / median(with_device), "devices": devices}


def _pipe_ms(path: Path) -> float:
    """Of a pass through the pipe, outside the engine; less that of an engine in this process."""
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - loads libllama

    config = EngineConfig.of(path, ctx=N_CTX, threads=1, gpu_layers=0)
    through, inside = EngineProcess(config, Interrupt()), LlamaEngine(config)
    try:
        return 1e3 * (_outside_s(through) - _outside_s(inside))
    finally:
        through.close()
        inside.close()


def _outside_s(engine: TimedEngine) -> float:
    context, taken = engine.context(), list[float]()
    for token in range(1, N_PASSES + 1):
        before, started = engine.busy_s, perf_counter()
        context.eval([token], 1).row(0)
        taken.append(perf_counter() - started - (engine.busy_s - before))
    return median(taken)


def _row(predicted_s: float, measured_s: float, **more: Any) -> dict[str, Any]:
    return {
        **more,
        "predicted_ms": 1e3 * predicted_s,
        "measured_ms": 1e3 * measured_s,
        "ratio": predicted_s / measured_s if measured_s else None,
    }


def _show(found: dict[str, Any]) -> None:
    for row in (*found["mixed"], {"hop": "", **found["hop"]}, *found["split"]):
        ratio = f"{row['ratio']:.2f}" if row["ratio"] else "-"
        name = ", ".join(f"{k} {v}" for k, v in row.items() if k not in _FIGURES)
        print(f"{name}: predicted {row['predicted_ms']:.2f} ms, measured"
              f" {row['measured_ms']:.2f} ms, ratio {ratio}")  # fmt: skip
    none = found["no_layers"]
    print(f"no layers on {', '.join(none['devices'])}: {none['ratio']:.3f} x without it")
    print(f"the pipe: {found['pipe_ms']:.3f} ms a pass")


_FIGURES = frozenset({"predicted_ms", "measured_ms", "ratio"})
