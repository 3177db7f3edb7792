"""Does the engine survive this file? Asked once per file and engine build, in a child process.

libllama asserts what its writers took for granted, and next month's models break other assumptions
than today's. What it dies of is found by letting it die: a child maps the file and builds its
graphs, and the verdict is kept by the file's fingerprint and the build's. A file that was loaded
before costs the reading of that verdict. Where the file leaves as much memory again, one token
passes through its weights as well, and the pages are cached for the engine that follows; of a
larger one no weight is touched. Draft heads are tried as well, beside the model that they draft
for.
"""

import importlib
import re
from dataclasses import dataclass
from pathlib import Path

from localspec.engine.child import STOPPED, Ending, call
from localspec.engine.health import engine_fingerprint
from localspec.errors import EngineError, ModelError
from localspec.gguf.reader import fingerprint
from localspec.hardware.detect import available_memory_bytes
from localspec.model.facts import HeadFacts, ModelFacts
from localspec.notify import Notify
from localspec.store import Kept

CHILD = "localspec.engine.llama.trial:survive"
PATIENCE_S, SLOW_DISK = 60.0, 20e6
"""A trial that takes longer than this, and than so many bytes of weights a second, does not end:
some loops of the engine do not, as where a header says that keys turn by no number."""
SAID_BYTES = 2 << 30
"""From here on the user hears of the trial."""
_ASSERTION = re.compile(rf"{re.escape(STOPPED)} \((.*?)\);", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TrialVerdict:
    """How the trial of a file ended: `death` None if the child survived."""

    death: str | None


def try_load(model: Path, name: str, facts: ModelFacts, notify: Notify) -> None:
    """ModelError where loading the file would end the process; `name` is what users call it."""
    said = f"{name} is new here: a process of its own tries it first"
    fault = _fault_of(model, facts, said if facts.weight_bytes > SAID_BYTES else None, notify)
    if fault:
        raise ModelError(
            f"{name} is not loaded, because the engine would {fault}:"
            " download or convert it again, or get a newer engine with scripts/setup"
        )


def has_loaded(model: Path) -> bool:
    """Whether the installed engine has loaded this file before."""
    try:
        verdict = _kept(model, None).load()
    except (OSError, EngineError):
        return False
    return verdict is not None and verdict.death is None


def try_head(model: Path, facts: ModelFacts, head: HeadFacts, notify: Notify) -> None:
    """ModelError where a draft head beside `model`, which has been tried, would end the process."""
    name = head.path.name if head.path else f"the draft head in {model.name}"
    said = f"{name} is new here: a process of its own tries it beside {model.name} first"
    fault = _fault_of(model, facts, said if facts.weight_bytes > SAID_BYTES else None, notify, head)
    if fault:
        raise ModelError(
            f"{name} does not draft for {model.name}, because the engine would {fault}:"
            " pull another head, or get a newer engine with scripts/setup"
        )


def _fault_of(
    model: Path, facts: ModelFacts, said: str | None, notify: Notify, head: HeadFacts | None = None
) -> str | None:
    """What the engine would do with it, now or when the file was new."""
    kept = _kept(model, head)
    verdict = kept.load()
    if verdict is None:
        if said:
            notify(said)
        is_small = 2 * facts.weight_bytes <= available_memory_bytes()
        limit_s = PATIENCE_S + facts.weight_bytes / SLOW_DISK
        ending = call(CHILD, str(model), head, is_small, limit_s=limit_s, meanwhile=_import_engine)
        if ending.is_timeout:  # not kept: a busy machine may be to blame
            return f"hang (a trial did not end within {limit_s:.0f} s)"
        verdict = TrialVerdict(_death(ending))
        if ending.is_success or verdict.death:
            kept.save(verdict)
    return f"die of it ({verdict.death})" if verdict.death else None


def _import_engine() -> None:
    """Which takes as long as the child does."""
    importlib.import_module("localspec.engine.llama.engine")


def _death(ending: Ending) -> str | None:
    """The assertion that failed, or the signal.

    None for errors of another kind, and where somebody else ended the child: that says nothing
    about the file.
    """
    if ending.is_killed:
        return None
    assertion = _ASSERTION.search(ending.errors)
    if assertion:
        return " ".join(assertion[1].split())
    return ending.reason if ending.code < 0 else None


def _kept(model: Path, head: HeadFacts | None) -> Kept[TrialVerdict]:
    key = f"{fingerprint(model)} {engine_fingerprint()}"
    if head:
        key += f" {head.method} {fingerprint(head.path) if head.path else 'own'}"
    return Kept.of(TrialVerdict, "trials", key)
