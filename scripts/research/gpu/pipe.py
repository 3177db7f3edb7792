"""What the pipe to an engine in a process of its own costs: seconds of a pass outside the engine.

The same model is loaded here and behind a pipe, with as many threads, and each decodes one by one
in the order A B B A. Of a pass counts the wall time less `busy_s`, the time inside libllama: the
request's way, the engine's own preparations, the copy of the logits, and the way back. An engine
in this process has the second of these only.
"""

from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from localspec.engine.base import EngineConfig
from localspec.engine.interrupt import Interrupt
from localspec.engine.process import EngineProcess
from localspec.engine.timing import TimedContext, there_and_back

N_PASSES, N_WARM = 100, 16
Times = list[tuple[float, float]]
"""Of each pass: seconds outside the engine, and all of them."""


def pipe_costs(path: Path, rounds: int, n_threads: int) -> dict[str, Any]:
    """Milliseconds of a pass here, behind the pipe, and their difference; least and median."""
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - loads libllama

    config = EngineConfig.of(path, ctx=1024, threads=n_threads, gpu_layers=0)
    through, inside = EngineProcess(config, Interrupt()), LlamaEngine(config)
    places = {"behind the pipe": through.context(), "here": inside.context()}
    found: dict[str, Times] = {name: [] for name in places}
    try:
        for context in places.values():
            _passes(context, N_WARM)
        for name in (name for turn in there_and_back(list(places), 2 * rounds) for name in turn):
            found[name] += _passes(places[name], N_PASSES)
    finally:
        through.close()
        inside.close()
    rows = {name: _told(times) for name, times in found.items()}
    far, near = rows["behind the pipe"], rows["here"]
    return {"threads": n_threads, **rows, "difference": {k: far[k] - near[k] for k in far}}


def _passes(context: TimedContext, n: int) -> Times:
    engine, taken = context.engine, list[tuple[float, float]]()
    context.truncate(0)
    for token in range(1, n + 1):
        before, started = engine.busy_s, perf_counter()
        context.eval([token], 1).row(0)
        wall_s = perf_counter() - started
        taken.append((wall_s - (engine.busy_s - before), wall_s))
    return taken


def _told(times: Times) -> dict[str, float]:
    outside, whole = ([1e3 * each[i] for each in times] for i in range(2))
    return {
        "outside_least_ms": min(outside),
        "outside_median_ms": median(outside),
        "pass_least_ms": min(whole),
        "pass_median_ms": median(whole),
    }
