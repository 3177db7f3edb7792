"""Layers shared out between this processor and workers: predicted beside measured.

    scripts/research/run bench-placement [MODEL] [--part NAME] [--rounds N] [--json]

It starts workers on loopback, of 1 and 2 threads, and measures with a model:

mixed      1, 10 and 20 layers on a worker, with one thread on each side
hop        what a thin model with half its layers on a worker takes longer than the mean of all here
           and all there: of the least times, because processors that sleep wake late at random
split      two workers of different speed: layers shared out by memory and by speed, where the
           faster one holds all of them and where it does not
no-layers  no layers on a device that is there, over no device (see no_layers.py)
pipe       what a process of its own costs a pass (see pipe.py)

A worker's threads beside this process's need as many cores. Layers are computed one after another,
so that two workers seldom compute at once.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from research.gpu.no_layers import no_layers
from research.gpu.pipe import pipe_costs
from working import Running, free_port

from localspec.engine.base import EngineConfig
from localspec.engine.timing import Timer, there_and_back
from localspec.forecast.machine import MachineChoice, PredictedMachine
from localspec.forecast.rated_machine import predicted_machine
from localspec.model.facts import ModelFacts
from localspec.model.synthetic import Shape, write_random_model
from localspec.registry.resolve import resolve
from localspec.session.loading import checked_facts, plan_engines
from localspec.session.session_config import SessionConfig
from localspec.settings import Attention

LAYERS = (1, 10, 20)
THIN = Shape(n_layers=16, n_embd=256, n_heads=4, n_kv_heads=2, n_ff=512, n_vocab=512)
HALF = THIN.n_layers // 2 + 1
N_TOKENS = 32
CACHE = Attention()
N_CTX = 1024
PARTS = ("mixed", "hop", "split", "no-layers", "pipe")
Found = dict[str, list[dict[str, Any]]]


def main(
    model: Annotated[str | None, typer.Argument()] = None,
    part: Annotated[str | None, typer.Option(help=", ".join(PARTS) + "; else all.")] = None,
    rounds: Annotated[int, typer.Option(help="Times that each thing is measured.")] = 5,
    threads: Annotated[int, typer.Option(help="Of this process, for no-layers and pipe.")] = 1,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure all parts, or one."""
    path = resolve(model)
    found: Found = {}
    if part in (None, "mixed", "hop"):
        with _worker(1) as one:
            found |= {"mixed": _mixed(path, one, rounds)} if part != "hop" else {}
            found |= {"hop": _hop(one, rounds)} if part != "mixed" else {}
    if part in (None, "split"):
        with _worker(1) as one, _worker(2) as two:
            found["split"] = _split(path, (one, two), rounds)
    if part in (None, "no-layers"):
        found["no-layers"] = no_layers(path, rounds, threads)
    if part in (None, "pipe"):
        found["pipe"] = [pipe_costs(path, rounds, threads)]
    print(json.dumps(found) if as_json else _text(found))


@contextmanager
def _worker(n_threads: int) -> Iterator[str]:
    running = Running(free_port(), n_threads, is_quick=True)
    try:
        yield running.address
    finally:
        running.kill()


@contextmanager
def _timer(path: Path, **settings: Any) -> Iterator[Timer]:
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - loads libllama

    config = EngineConfig.of(path, ctx=N_CTX, **{"threads": 1, "gpu_layers": 0, **settings})
    engine = LlamaEngine(config)
    try:
        timer = Timer(engine.context())
        timer.token_s(4, 0)
        yield timer
    finally:
        engine.close()


def _token_s(
    path: Path,
    rounds: int,
    settings: Sequence[dict[str, Any]],
    typical: Callable[[list[float]], float] = median,
) -> list[float]:
    """Seconds a token with each, all of them loaded and measured in turns."""
    with ExitStack() as stack:
        timers = [stack.enter_context(_timer(path, **each)) for each in settings]
        times: list[list[float]] = [[] for _ in timers]
        for turn in there_and_back(range(len(timers)), 2 * rounds):
            for i in turn:
                times[i].append(timers[i].token_s(N_TOKENS, 0))
    return [typical(each) for each in times]


def _machine(facts: ModelFacts, choice: MachineChoice) -> PredictedMachine:
    return predicted_machine(choice, [facts], [CACHE], N_CTX, _said)


def _predicted_s(facts: ModelFacts, choice: MachineChoice) -> float:
    return _machine(facts, choice).roofline(facts, CACHE).seconds(1, N_TOKENS // 2)


def _said(message: str) -> None:
    print(message, file=sys.stderr)


def _mixed(path: Path, worker: str, rounds: int) -> list[dict[str, Any]]:
    facts = checked_facts(path)
    choices = [MachineChoice(n_threads=1, n_gpu_layers=n, workers=(worker,)) for n in LAYERS]
    predicted = [_predicted_s(facts, choice) for choice in choices]
    measured = _token_s(path, rounds, [{"gpu_layers": n, "workers": (worker,)} for n in LAYERS])
    return [_row(*each, layers=n) for n, *each in zip(LAYERS, predicted, measured, strict=True)]


def _hop(worker: str, rounds: int) -> list[dict[str, Any]]:
    """The same difference of the same three passes, predicted and measured."""
    with TemporaryDirectory(prefix="localspec-") as folder:
        path = Path(folder) / "thin.gguf"
        write_random_model(path, THIN, "F16")
        facts = checked_facts(path)
        there = {"workers": (worker,)}
        here_s, there_s, both_s = _token_s(
            path, 4 * rounds, [{}, {"gpu_layers": -1, **there}, {"gpu_layers": HALF, **there}], min
        )
    choices = (
        MachineChoice(n_threads=1, n_gpu_layers=0),
        MachineChoice(n_threads=1, workers=(worker,)),
        MachineChoice(n_threads=1, n_gpu_layers=HALF, workers=(worker,)),
    )
    here, far, both = (_predicted_s(facts, choice) for choice in choices)
    return [
        _row(here, here_s, layers="none there"),
        _row(far, there_s, layers="all there"),
        _row(both, both_s, layers="half there"),
        _row(both - (here + far) / 2, both_s - (here_s + there_s) / 2, layers="the hop"),
    ]


def _split(path: Path, workers: tuple[str, str], rounds: int) -> list[dict[str, Any]]:
    facts = checked_facts(path)
    limited = workers[0], f"{workers[1]}={facts.streamed_bytes / 2e9:.3f}GB"
    asked: list[tuple[str, str, dict[str, Any], float]] = []
    for room, used in (("holds all", workers), ("holds half", limited)):
        for split in ("memory", "speed"):
            choice = MachineChoice(n_threads=1, workers=used, split=split)
            predicted = _predicted_s(facts, choice)
            config = SessionConfig.of(
                path, ctx=N_CTX, threads=1, spec="none", workers=used, split=split
            )
            shares = plan_engines(config).target.settings.shares
            settings = {"gpu_layers": -1, "workers": used, "shares": shares}
            asked.append((room, split, settings, predicted))
    measured = _token_s(path, rounds, [settings for _, _, settings, _ in asked])
    return [
        _row(predicted, seconds, fast_worker=room, split=split, shares=settings["shares"])
        for (room, split, settings, predicted), seconds in zip(asked, measured, strict=True)
    ]


def _row(predicted_s: float, measured_s: float, **more: Any) -> dict[str, Any]:
    return {
        **more,
        "predicted_ms": 1e3 * predicted_s,
        "measured_ms": 1e3 * measured_s,
        "ratio": predicted_s / measured_s if measured_s else None,
    }


def _text(found: Found) -> str:
    return "\n".join(
        f"{part}: " + ", ".join(f"{name} {_figure(value)}" for name, value in row.items())
        for part, rows in found.items()
        for row in rows
    )


def _figure(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_figure(each)}" for name, each in value.items()) + ")"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
