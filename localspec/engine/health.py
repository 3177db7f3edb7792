"""Is this engine build sound here? Asked once per build and processor, in a child process.

Some builds are not: GCC 12 drops the stores of the AMX tile configuration, and a llama-cpp-python
built by it dies at the first batch of two tokens (llama.cpp PR 26954). Where repacked weights crash
or compute something else than plain ones, localspec loads models without repacking, which is slower
and right. Verdicts are kept by a fingerprint of the build, taken without loading it.
"""

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from localspec import paths
from localspec.engine.child import Ending, run_module
from localspec.errors import EngineError
from localspec.hardware.detect import processor_features, processor_name
from localspec.store import Kept

_DISTRIBUTION = "llama-cpp-python"
NOT_INSTALLED = "the engine is not installed: run scripts/setup, or `pip install llama-cpp-python`"


@cache
def engine_version() -> str:
    """The installed llama-cpp-python's version. Raises EngineError if none is installed."""
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise EngineError(NOT_INSTALLED) from error


def engine_fingerprint() -> str:
    """A short hash of the version, the library files (name, size, time) and the processor."""
    digest = hashlib.sha256(engine_version().encode())
    for path in sorted([*library_folder().glob("*"), *module_files()]):
        status = path.stat()
        digest.update(f"{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    digest.update(f"{processor_name()} {sorted(processor_features())}".encode())
    return digest.hexdigest()[:16]


def library_folder() -> Path:
    """Where the engine's shared libraries lie."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise EngineError(NOT_INSTALLED)
    return Path(spec.origin).parent / "lib"


def module_files() -> list[Path]:
    """Backends that were built by others, each with its own libggml: those beside the engine, and
    the one that GGML_BACKEND_PATH names, which is ggml's own variable."""
    files = sorted((library_folder() / "modules").glob("*ggml-*"))
    found = [path for path in files if "ggml-base" not in path.name]
    named = os.environ.get("GGML_BACKEND_PATH")
    if named and not Path(named).is_file():
        raise EngineError(f"GGML_BACKEND_PATH={named} is no file: correct it or unset it")
    return [*found, Path(named)] if named else found


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
    def can_repack(self) -> bool:
        """Whether weights may be repacked for the processor's matrix units."""
        return self.problem is None


def engine_health(notify: Callable[[str], None]) -> Health:
    """The verdict on the installed build, from the cache or by testing now.

    `notify` hears of a problem once. Raises EngineError where the build cannot evaluate at all.
    """
    kept = _kept()
    if health := kept.load():
        return health
    health = run_self_test()
    if health.problem:
        notify(
            f"this engine build is faulty on this processor ({health.problem}): "
            "weights are used without repacking, which is slower; `localspec doctor` explains it"
        )
    kept.save(health)
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
    _kept().path.unlink(missing_ok=True)


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


def _kept() -> Kept[Health]:
    folder = paths.cache_dir() / "engine-health"
    folder.mkdir(exist_ok=True)
    return Kept(folder / f"{engine_fingerprint()}.json", lambda kept: Health(**kept), asdict)
