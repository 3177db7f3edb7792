"""One visit to a case: a child process measures it, and this one sees what happened meanwhile."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass

from localspec.bench.case import Case
from localspec.bench.circumstances import Circumstances, Watch
from localspec.bench.sample import Measurement
from localspec.engine.child import Ending, run_module

CHILD = "localspec.bench.worker"
ABORTED = "the engine ended without a word"

Stage = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Visit:
    """What a visit came to: a measurement, or the reason why there is none."""

    measurement: Measurement | None
    reason: str | None
    circumstances: Circumstances


def visit(
    case: Case,
    n_samples: int,
    stage: Stage = lambda sentence: None,
    limit_s: float | None = None,
) -> Visit:
    """Measure a case in a process of its own, within `limit_s` seconds.

    Raises KeyboardInterrupt on Ctrl-C, and nothing for a case that fails: that is a result.
    """
    found: list[Measurement] = []

    def on_line(line: str) -> None:
        kind, _, rest = line.partition(" ")
        if kind == "stage":
            stage(rest)
        elif kind == "measured":
            found.append(Measurement.from_json(json.loads(rest)))

    request = json.dumps({"case": case.to_json(), "n_samples": n_samples})
    watch = Watch()
    ending = run_module(CHILD, [request, str(os.getpid())], on_line, limit_s)
    measurement = found[0] if found and ending.is_success else None
    return Visit(measurement, None if measurement else _reason(ending), watch.stop())


def _reason(ending: Ending) -> str:
    """A sentence: the error's own, the engine's last word before it died, or the signal."""
    said = (ending.errors.strip().splitlines() or [""])[-1]
    if ending.code > 0:
        # A traceback ends in "module.Kind: sentence".
        kind, _, sentence = said.partition(": ")
        if kind.replace(".", "").replace("_", "").isalnum() and sentence:
            said = "out of memory" if kind == "MemoryError" else sentence
        return said or ABORTED
    return f"{ending.reason}: {said}" if said and not ending.is_timeout else ending.reason
