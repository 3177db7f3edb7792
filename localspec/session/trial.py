"""Does the engine survive this file? Asked once per file and engine build, in a child process.

libllama asserts what its writers took for granted, and next month's models break other assumptions
than today's. What it dies of is found by letting it die: a child maps the file and builds its
graphs, and the verdict is kept by the file's fingerprint and the build's. A file that was loaded
before costs the reading of that verdict. Where the file leaves as much memory again, one token
passes through its weights as well, and the pages are cached for the engine that follows; of a
larger one no weight is touched.
"""

import importlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from localspec import paths
from localspec.engine.child import STOPPED, Ending, run_module
from localspec.engine.health import engine_fingerprint
from localspec.errors import ModelError
from localspec.hardware.detect import available_memory_bytes
from localspec.model.facts import ModelFacts
from localspec.model.identity import fingerprint
from localspec.notify import Notify
from localspec.store import Kept, hashed

CHILD = "localspec.engine.llama.trial"
LIMIT_S = 300.0
SAID_BYTES = 2 << 30
"""From here on the user hears of the trial."""
_ASSERTION = re.compile(rf"{re.escape(STOPPED)} \((.*)\);", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TrialVerdict:
    """How the trial of a file ended: `death` None if the child survived."""

    death: str | None


def try_load(model: Path, name: str, facts: ModelFacts, notify: Notify) -> None:
    """ModelError where loading the file would end the process; `name` is what users call it."""
    kept = _kept(model)
    verdict = kept.load()
    if verdict is None:
        if facts.weight_bytes > SAID_BYTES:
            notify(f"{name} is new here: a process of its own tries it first")
        verdict = _tried(model, facts)
        if verdict is None:
            return
        kept.save(verdict)
    if verdict.death:
        raise ModelError(
            f"{name} is not loaded, because the engine would die of it ({verdict.death}):"
            " download or convert it again, or get a newer engine with scripts/setup"
        )


def _tried(model: Path, facts: ModelFacts) -> TrialVerdict | None:
    """None where somebody else ended the child: that says nothing about the file."""
    is_small = 2 * facts.weight_bytes <= available_memory_bytes()
    evaluate = ["evaluate"] if is_small else []
    ending = run_module(CHILD, [str(model), *evaluate], _meanwhile, LIMIT_S)
    if ending.is_success:
        return TrialVerdict(None)
    if ending.is_killed or ending.is_timeout:
        return None
    return TrialVerdict(death) if (death := _death(ending)) else None


def _meanwhile(line: str) -> None:
    """Import the engine, which takes as long as the child does, when the child has begun."""
    importlib.import_module("localspec.engine.llama.engine")


def _death(ending: Ending) -> str | None:
    """The assertion that failed, or the signal; None for errors of another kind."""
    assertion = _ASSERTION.search(ending.errors)
    if assertion:
        return " ".join(assertion[1].split())
    return ending.reason if ending.code < 0 else None


def _kept(model: Path) -> Kept[TrialVerdict]:
    path = hashed(paths.cache_dir() / "trials", f"{fingerprint(model)} {engine_fingerprint()}")
    return Kept(path, lambda kept: TrialVerdict(**kept), asdict)
