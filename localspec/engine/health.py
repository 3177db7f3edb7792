"""Is this engine build sound here? Asked once per build and processor, in a child process.

Some builds are not: GCC 12 drops the stores of the AMX tile configuration, and a llama-cpp-python
built by it dies at the first batch of two tokens (llama.cpp PR 26954). Where repacked weights crash
or compute something else than plain ones, localspec loads models without repacking, which is slower
and right. Verdicts are kept by a fingerprint of the build, taken without loading it.

Does a graphics device compute what the processor does? Asked once per build, device and driver: one
that is broken or too old gives wrong numbers, or ends the process. A child evaluates two small
models on the device and on the processor.
"""

import hashlib
import importlib.util
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from localspec import paths
from localspec.engine.child import Ending, call
from localspec.errors import EngineError
from localspec.hardware.detect import processor_features, processor_name
from localspec.hardware.gpus import system_gpus
from localspec.hardware.machine import Reported
from localspec.notify import Notify
from localspec.store import Kept

NOT_INSTALLED = "the engine is not installed: run scripts/setup, or `pip install llama-cpp-python`"


@cache
def engine_version() -> str:
    """The installed llama-cpp-python's version, by its own word: the package index's records would
    take longer to read than all else that is known of a build. Raises EngineError if none is
    installed."""
    found = re.search(r'^__version__ = "(.+)"', _package().read_text(), re.MULTILINE)
    return found.group(1) if found else "unknown"


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
    return _package().parent / "lib"


def _package() -> Path:
    """The module that begins llama_cpp. Raises EngineError where there is none."""
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise EngineError(NOT_INSTALLED)
    return Path(spec.origin)


def module_files() -> list[Path]:
    """Backends that were built by others, each with its own libggml: those beside the engine, and
    the one that GGML_BACKEND_PATH names, which is ggml's own variable."""
    files = sorted((library_folder() / "modules").glob("*ggml-*"))
    found = [path for path in files if "ggml-base" not in path.name]
    named = os.environ.get("GGML_BACKEND_PATH")
    if named and not Path(named).is_file():
        raise EngineError(f"GGML_BACKEND_PATH={named} is no file: correct it or unset it")
    return [*found, Path(named)] if named else found


CHILD = "localspec.engine.llama.trial"
LIMIT_S, DEVICE_LIMIT_S = 120.0, 240.0
"""The test takes one or two seconds. A driver may compile its programs first, which takes minutes
where it does so in software."""

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


def engine_health(notify: Notify) -> Health:
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
        errors, ending = _asked("repacked", folder, limit_s=LIMIT_S)
        if ending.is_success:
            return Health(_difference(errors), errors)
        ending.raise_known()
        if ending.is_killed:
            raise EngineError(f"the engine's self-test was stopped ({ending.reason}): try again")
        _, plain_ending = _asked("plain", folder, limit_s=LIMIT_S)
        if not plain_ending.is_success:
            raise EngineError(
                f"the engine fails its self-test ({plain_ending.reason}): "
                "rebuild it with scripts/setup --rebuild"
            )
    return Health(ending.reason, errors)


def forget_verdict() -> None:
    """Make the next `engine_health` test again."""
    _kept().path.unlink(missing_ok=True)


def _asked(how: str, *arguments: str, limit_s: float) -> tuple[dict[str, float], Ending]:
    errors: dict[str, float] = {}
    ending = call(f"{CHILD}:{how}", *arguments, hear=errors.__setitem__, limit_s=limit_s)
    return errors, ending


def _difference(errors: dict[str, float]) -> str | None:
    # Written so that a NaN, too, counts as a difference.
    wrong = [kind for kind, error in errors.items() if not error <= LARGEST_ERROR]
    return f"it computes wrong numbers for {', '.join(wrong)}" if wrong else None


def _kept() -> Kept[Health]:
    folder = paths.cache_dir() / "engine-health"
    return Kept(folder / f"{engine_fingerprint()}.json", lambda kept: Health(**kept), asdict)


@dataclass(frozen=True, slots=True)
class DeviceHealth:
    """What is wrong with a device; None in a sound one."""

    problem: str | None


def sound_devices(devices: Sequence[Reported], notify: Notify) -> list[Reported]:
    """Those that compute what the processor does. `notify` hears of the others."""
    found: list[Reported] = []
    for device in devices:
        problem = None if device.backend == "rpc" else device_health(device, notify).problem
        if problem is None:
            found.append(device)
        else:
            notify(
                f"{device.name} ({device.description}) is not used: {problem}; a newer driver may"
                " help, and `localspec doctor` tests again"
            )
    return found


def device_health(device: Reported, notify: Notify) -> DeviceHealth:
    """The verdict, from the cache or by testing now, which `notify` hears of."""
    kept = _device_kept(device)
    health = kept.load()
    if health is None:
        notify(f"testing {device.name} ({device.description}) once")
        health = _tested(device)
        kept.save(health)
    return health


def devices_text(devices: Sequence[Reported]) -> str:
    """Part of the key of whatever was measured or kept on these devices: names, memory, drivers."""
    parts = [f"{each.backend} {each.description} {each.total_bytes}" for each in devices]
    return "; ".join([*parts, *(repr(gpu) for gpu in system_gpus())]) if parts else ""


def _tested(device: Reported) -> DeviceHealth:
    with tempfile.TemporaryDirectory(prefix="localspec-") as folder:
        errors, ending = _asked("on_device", folder, device.name, limit_s=DEVICE_LIMIT_S)
    failed = None if ending.is_success else f"its test failed ({ending.reason})"
    return DeviceHealth(_difference(errors) or failed)


def _device_kept(device: Reported) -> Kept[DeviceHealth]:
    key = f"{engine_fingerprint()} {device.name} {devices_text([device])}"
    return Kept.of(DeviceHealth, "device-health", key)
