"""What a measurement depends on beside its case: machine, engine build, model file, versions."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from localspec import __version__
from localspec.bench.facts import facts_of
from localspec.engine.build import engine_fingerprint, engine_version, gpu_backends
from localspec.hardware.detect import usable_cores
from localspec.hardware.machine import local_devices, machine_key
from localspec.model.identity import sampled_digest
from localspec.session.machine import engine_reports

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
        "digest": sampled_digest(path),
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
    from localspec.engine.llama.report import engine_features  # noqa: PLC0415 - loads libllama

    return engine_features()


def _name(names: Sequence[str]) -> str:
    """The graphics and the processor, as a person would call the machine."""
    return " + ".join(dict.fromkeys(names))
