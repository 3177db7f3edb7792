"""One visit to a case: a child process measures it, and this process watches the machine.

`run` goes through a plan, visit by visit, and skips visits that are on disk. Each visit is stored
with its circumstances: machine, engine build, model file, versions.
"""

import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from localspec import __version__
from localspec.bench.case import Case
from localspec.bench.plan import PlannedCase, schedule
from localspec.bench.prediction import Prediction, drafter_of, facts_of, learn, model_of
from localspec.bench.sample import Measurement
from localspec.bench.store import ResultsHeader, Visited, Writer, read_results
from localspec.engine.child import Ending, call
from localspec.engine.environment import SET_BY_OTHERS
from localspec.engine.graphics import engine_reports, graphics
from localspec.engine.health import engine_fingerprint, engine_version
from localspec.forecast.rated_machine import engine_features
from localspec.gguf.reader import fingerprint
from localspec.hardware.activity import Circumstances, Watch
from localspec.hardware.detect import power, usable_cores
from localspec.hardware.machine import local_devices, machine_key
from localspec.model.facts import ModelFacts
from localspec.notify import Notify, silent
from localspec.settings import OWN

CHILD = "localspec.bench.measure:measure"
ABORTED = "the engine ended without a message"


@dataclass(frozen=True, slots=True)
class Visit:
    """A visit's outcome: a measurement, or the reason why there is none."""

    measurement: Measurement | None
    reason: str | None
    circumstances: Circumstances


def visit(
    case: Case, n_samples: int, stage: Notify = silent, limit_s: float | None = None
) -> Visit:
    """Measure a case in its own process, within `limit_s` seconds.

    Raises KeyboardInterrupt on Ctrl-C. A case that fails raises nothing: the failure is a result.
    """
    watch = Watch()
    ending = call(CHILD, case, n_samples, hear=stage, limit_s=limit_s)
    measurement: Measurement | None = ending.result if ending.is_success else None
    return Visit(measurement, None if measurement else _reason(ending), watch.stop())


def _reason(ending: Ending) -> str:
    """A sentence: the error's own, the last line before the engine died, or the signal."""
    said = (ending.errors.strip().splitlines() or [""])[-1]
    if ending.code > 0:
        # A traceback ends in "module.Kind: sentence".
        kind, _, sentence = said.partition(": ")
        if kind.replace(".", "").replace("_", "").isalnum() and sentence:
            said = "out of memory" if kind == "MemoryError" else sentence
        return said or ABORTED
    return f"{ending.reason}: {said}" if said and not ending.is_timeout else ending.reason


LIMIT_S = 1800.0
"""Limit of one visit, far above the time that any should take."""

Predict = Callable[[Case], Prediction | None]
Announce = Callable[[PlannedCase, int], None]


def remaining(header: ResultsHeader, done: tuple[Visited, ...]) -> list[PlannedCase]:
    """Visits that are not on disk, without those of cases that failed once."""
    numbers = {visited.number for visited in done}
    failed = {visited.case for visited in done if visited.reason}
    planned = schedule(header.cases, header.n_rounds)
    return [each for each in planned if each.number not in numbers and each.case not in failed]


def run(
    writer: Writer, predict: Predict, announce: Announce, stage: Notify, limit_s: float = LIMIT_S
) -> Iterator[Visited]:
    """Measure the visits that the writer's file lacks; each is on disk when it is yielded.

    `announce` hears each visit and how many are left, `stage` each step of it.
    """
    results = read_results(writer.path)
    header, failed = results.header, set[Case]()
    left = remaining(header, results.visits)
    for i, planned in enumerate(left):
        if planned.case in failed:
            continue
        announce(planned, len(left) - i)
        visited = _visited(planned, header.n_samples, predict, stage, limit_s)
        writer.add(visited)
        if visited.reason:
            failed.add(planned.case)
        yield visited


def _visited(
    planned: PlannedCase, n_samples: int, predict: Predict, stage: Notify, limit_s: float
) -> Visited:
    case = planned.case
    prediction = predict(case)
    found = visit(case, n_samples, stage, limit_s)
    if found.measurement and not found.circumstances.disturbances:
        learn(case, found.measurement.plain_s)
    return Visited(
        number=planned.number,
        case=case,
        is_anchor=planned.is_anchor,
        measurement=found.measurement,
        reason=found.reason,
        circumstances=found.circumstances,
        prediction=prediction,
        environment=environment(),
        model=model_record(case.config.model)
        | ({"draft": draft} if (draft := draft_record(case)) else {}),
    )


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_SPINCOUNT",
    "GOMP_CPU_AFFINITY", "KMP_BLOCKTIME")  # fmt: skip


def environment() -> dict[str, Any]:
    """The machine and versions of one visit, read each time: a laptop's power changes."""
    return {
        "taken": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "localspec": __version__,
        "python": platform.python_version(),
        "machine": {**_machine(), "key": machine_key(), "power": power().text},
        "engine": _engine(),
        "variables": {
            name: os.environ[name]
            for name in THREAD_VARIABLES
            if os.environ.get(name) not in (None, SET_BY_OTHERS.get(name))
        },
    }


@cache
def model_record(path: Path) -> dict[str, Any]:
    """A model file's facts and its digest. Raises LocalspecError."""
    return {"file": path.name, **_facts_record(facts_of(path)), "digest": fingerprint(path)}


def draft_record(case: Case) -> dict[str, Any] | None:
    """The same of what drafts; the file of a head inside the model's is `own`."""
    drafter, path = drafter_of(case), case.config.draft
    if drafter is None:
        return None
    file = {"file": path.name if path else OWN, "digest": path and fingerprint(path)}
    return file | _facts_record(model_of(drafter))


def _facts_record(facts: ModelFacts) -> dict[str, Any]:
    return {
        "name": facts.name,
        "architecture": facts.architecture,
        "type": facts.file_type,
        "n_params": facts.n_params,
        "weight_bytes": facts.weight_bytes,
    }


@cache
def _machine() -> dict[str, Any]:
    devices = local_devices(engine_reports())
    return {
        "name": " + ".join(dict.fromkeys(device.name for device in devices)),
        "devices": [
            {"backend": d.backend, "name": d.name, "bytes": d.total_bytes} for d in devices
        ],
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "cores": usable_cores(),
        "memory_bytes": psutil.virtual_memory().total,
    }


@cache
def _engine() -> dict[str, Any]:
    return {
        "version": engine_version(),
        "fingerprint": engine_fingerprint(),
        "backends": sorted({each.backend for each in graphics()}) or ["cpu"],
        "features": engine_features(),
    }
