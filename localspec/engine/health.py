"""Is this engine build sound here? Asked once for a build and processor, in a child process.

Some builds are not: GCC 12 drops the stores of the AMX tile configuration, and llama-cpp-python
built so dies at the first batch of two tokens (llama.cpp PR 26954). Where repacked weights crash or
compute something else than plain ones, localspec loads models without repacking, which is slower
and right.
"""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from localspec import paths
from localspec.engine.build import engine_fingerprint
from localspec.engine.child import Ending, run_module
from localspec.errors import EngineError

CHILD = "localspec.engine.llama.selftest"
LIMIT_S = 120.0
"""The test takes one or two seconds."""

LARGEST_ERROR = 0.25
"""Of the logits' spread. Kernels round differently (Q4_0: 0.04); broken ones are off by > 1."""


@dataclass(frozen=True, slots=True)
class Health:
    """What the self-test found: no `problem` in a sound build; relative `errors` by weight type."""

    problem: str | None
    errors: dict[str, float]

    @property
    def use_extra_buffers(self) -> bool:
        """Whether weights may be repacked for the processor's matrix units."""
        return self.problem is None


def engine_health(talk: Callable[[str], None]) -> Health:
    """The verdict on the installed build, from the cache or by testing now.

    `talk` hears of a problem once. Raises EngineError where the build cannot evaluate at all.
    """
    kept = _verdict_path()
    if health := _read(kept):
        return health
    health = run_self_test()
    if health.problem:
        talk(
            f"this engine build is faulty on this processor ({health.problem}): "
            "weights are used without repacking, which is slower; `localspec doctor` explains it"
        )
    _write(kept, health)
    return health


def run_self_test() -> Health:
    """Test now. Raises EngineError where the build fails without repacked weights too."""
    with tempfile.TemporaryDirectory(prefix="localspec-") as folder:
        errors, ending = _run_child([folder])
        if ending.is_success:
            return Health(_difference(errors), errors)
        ending.raise_known()
        if ending.is_killed:
            raise EngineError(f"the engine's self-test was stopped ({ending.reason}): try again")
        _, plain_ending = _run_child([folder, "plain"])
        if not plain_ending.is_success:
            raise EngineError(
                f"the engine fails its self-test ({plain_ending.reason}): "
                "rebuild it with scripts/setup --rebuild"
            )
    return Health(ending.reason, errors)


def forget_verdict() -> None:
    """Make the next `engine_health` test again."""
    _verdict_path().unlink(missing_ok=True)


def _run_child(arguments: list[str]) -> tuple[dict[str, float], Ending]:
    errors: dict[str, float] = {}

    def on_line(line: str) -> None:
        weight_type, _, error = line.partition(" ")
        errors[weight_type] = float(error)

    return errors, run_module(CHILD, arguments, on_line, LIMIT_S)


def _difference(errors: dict[str, float]) -> str | None:
    # Written so that a NaN, too, counts as a difference.
    wrong = [kind for kind, error in errors.items() if not error <= LARGEST_ERROR]
    return f"it computes wrong numbers for {', '.join(wrong)}" if wrong else None


def _verdict_path() -> Path:
    folder = paths.cache_dir() / "engine-health"
    folder.mkdir(exist_ok=True)
    return folder / f"{engine_fingerprint()}.json"


def _read(path: Path) -> Health | None:
    try:
        return Health(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _write(path: Path, health: Health) -> None:
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_text(json.dumps(asdict(health)))
    partial.replace(path)
