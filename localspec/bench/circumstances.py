"""What the machine did while something was measured: power, throttling, other programs.

Shares are of all cores' time between two looks. A virtual machine's neighbours show as stolen time
and as nothing else. None is what the system does not say.

What a measurement depends on beside its case: machine, engine build, model file, versions.
"""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import psutil

from localspec import __version__
from localspec.bench.prediction import facts_of
from localspec.engine.health import engine_fingerprint, engine_version, gpu_backends
from localspec.forecast.sources import engine_reports
from localspec.hardware.detect import power, usable_cores
from localspec.hardware.machine import local_devices, machine_key
from localspec.model.identity import fingerprint

_THROTTLES = "/sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"
BUSY = 0.10
"""Of the machine, taken by others: worth a word."""
SLOWED = 0.85


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Of one visit."""

    power: str
    elapsed_s: float
    others_share: float | None = None
    stolen_share: float | None = None
    mhz_before: float | None = None
    mhz_after: float | None = None
    n_throttles: int | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What makes a number doubtful, in a few words each."""
        return (*self.disturbances, *([self.power] if self.is_saving_power else []))

    @property
    def is_saving_power(self) -> bool:
        return "on battery" in self.power or "low power" in self.power

    @property
    def disturbances(self) -> tuple[str, ...]:
        """Of them what passes, so that a calm visit says more."""
        words: list[str] = []
        if self.n_throttles:
            words.append("the processor throttled for heat")
        if self.mhz_before and self.mhz_after and self.mhz_after < SLOWED * self.mhz_before:
            words.append(f"clock fell from {self.mhz_before:,.0f} to {self.mhz_after:,.0f} MHz")
        if self.others_share is not None and self.others_share > BUSY:
            words.append(f"other programs took {self.others_share:.0%} of the processor")
        if self.stolen_share is not None and self.stolen_share > BUSY:
            words.append(f"the host withheld {self.stolen_share:.0%} of the processor")
        return tuple(words)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Raises KeyError or TypeError where it is none."""
        return cls(**{name: document[name] for name in cls.__slots__ if name in document})


class Watch:
    """Looks at the machine now and at `stop`."""

    def __init__(self) -> None:
        self._started = perf_counter()
        self._machine = psutil.cpu_times()
        self._own = _children_s()
        self._mhz = _mhz()
        self._throttles = _throttles()

    def stop(self) -> Circumstances:
        """Call it when the children that did the work have ended."""
        elapsed_s = perf_counter() - self._started
        now, all_s = psutil.cpu_times(), elapsed_s * (psutil.cpu_count() or 1)
        others_s = _busy_s(now) - _busy_s(self._machine) - (_children_s() - self._own)
        stolen_s = _stolen_s(now) - _stolen_s(self._machine) if hasattr(now, "steal") else None
        before, after = self._throttles, _throttles()
        return Circumstances(
            power=power().text,
            elapsed_s=elapsed_s,
            others_share=max(0.0, others_s / all_s),
            stolen_share=None if stolen_s is None else stolen_s / all_s,
            mhz_before=self._mhz,
            mhz_after=_mhz(),
            n_throttles=None if before is None or after is None else after - before,
        )


def _busy_s(times: Any) -> float:
    return times.user + times.system + getattr(times, "nice", 0.0)


def _stolen_s(times: Any) -> float:
    return getattr(times, "steal", 0.0)


def _children_s() -> float:
    """This process's own time and that of children that have ended."""
    times = psutil.Process().cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def _mhz() -> float | None:
    """What most systems say is the clock's nominal rate; some the present one."""
    try:
        frequency = psutil.cpu_freq()
    except (AttributeError, OSError, ValueError, RuntimeError, NotImplementedError):
        return None
    return frequency.current or None if frequency else None


def _throttles() -> int | None:
    counts = [_count(path) for path in sorted(Path("/").glob(_THROTTLES[1:]))]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _count(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "GOMP_SPINCOUNT",
    "GOMP_CPU_AFFINITY", "KMP_BLOCKTIME")  # fmt: skip


def environment() -> dict[str, Any]:
    """Asked before each visit: a laptop's power changes."""
    return {
        "taken": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "localspec": __version__,
        "python": platform.python_version(),
        "machine": {**_machine(), "key": machine_key(), "power": power().text},
        "engine": _engine(),
        "variables": {name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
    }


@cache
def model_record(path: Path) -> dict[str, Any]:
    """A model file: what it is and a digest that tells it from others. Raises LocalspecError."""
    facts = facts_of(path)
    return {
        "file": path.name,
        "name": facts.name,
        "architecture": facts.architecture,
        "type": facts.file_type,
        "n_params": facts.n_params,
        "weight_bytes": facts.weight_bytes,
        "digest": fingerprint(path),
    }


@cache
def _machine() -> dict[str, Any]:
    devices = local_devices(engine_reports())
    return {
        "name": _name([device.name for device in devices]),
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
        "backends": sorted(gpu_backends()) or ["cpu"],
        "features": _features(),
    }


def _features() -> str:
    from localspec.engine.llama.binding import engine_features  # noqa: PLC0415 - loads libllama

    return engine_features()


def _name(names: Sequence[str]) -> str:
    """The graphics and the processor, as a person would call the machine."""
    return " + ".join(dict.fromkeys(names))
