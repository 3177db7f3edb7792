"""Does the engine survive this file? Asked once per file and engine build, in a child process.

libllama asserts what its writers took for granted, and next month's models break other assumptions
than today's. What it dies of is found by letting it die: a child maps the file and builds its
graphs, and the verdict is kept by the file's fingerprint and the build's. A file that was loaded
before costs the reading of that verdict. Weights up to EVALUATED_BYTES are passed through once,
too; of larger ones the child touches what libllama reads while it loads, which is cached then.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from localspec import paths
from localspec.engine.child import STOPPED, Ending, run_module
from localspec.engine.health import engine_fingerprint
from localspec.errors import ModelError
from localspec.model.facts import ModelFacts
from localspec.model.identity import fingerprint
from localspec.store import Kept, hashed

CHILD = "localspec.engine.llama.trial"
LIMIT_S = 300.0
EVALUATED_BYTES = 1 << 30
_ASSERTION = re.compile(rf"{re.escape(STOPPED)} \((.*)\)")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the trial of a file ended: `death` None if the child survived."""

    death: str | None


def try_load(model: Path, facts: ModelFacts) -> None:
    """ModelError where loading the file would end the process."""
    kept = _kept(model)
    verdict = kept.load()
    if verdict is None:
        verdict = _tried(model, facts)
        if verdict is None:
            return
        kept.save(verdict)
    if verdict.death:
        raise ModelError(
            f"{model.name} is not loaded, because the engine would die of it ({verdict.death}):"
            " download or convert it again, or get a newer engine with scripts/setup"
        )


def _tried(model: Path, facts: ModelFacts) -> Verdict | None:
    """None where somebody else ended the child: that says nothing about the file."""
    evaluate = ["evaluate"] if facts.streamed_bytes <= EVALUATED_BYTES else []
    ending = run_module(CHILD, [str(model), *evaluate], lambda line: None, LIMIT_S)
    if ending.is_success:
        return Verdict(None)
    if ending.is_killed or ending.is_timeout:
        return None
    return Verdict(death) if (death := _death(ending)) else None


def _death(ending: Ending) -> str | None:
    """The assertion that failed, or the signal; None for errors of another kind."""
    assertion = _ASSERTION.search(ending.errors)
    return assertion[1] if assertion else ending.reason if ending.code < 0 else None


def _kept(model: Path) -> Kept[Verdict]:
    path = hashed(paths.cache_dir() / "trials", f"{fingerprint(model)} {engine_fingerprint()}")
    return Kept(path, lambda kept: Verdict(**kept), asdict)
