"""Which engine build is installed, told without loading it, so that verdicts on it can be kept."""

import hashlib
import importlib.util
from importlib import metadata
from pathlib import Path

from localspec.errors import EngineError
from localspec.hardware.detect import processor_features, processor_name

_DISTRIBUTION = "llama-cpp-python"
NOT_INSTALLED = "the engine is not installed: run scripts/setup, or `pip install llama-cpp-python`"
GPU_BACKENDS = frozenset({"cuda", "hip", "metal", "musa", "opencl", "sycl", "vulkan"})
UNIFIED = frozenset({"metal"})
"""Backends whose devices share the machine's memory."""


def engine_version() -> str:
    """The installed llama-cpp-python's version. Raises EngineError where there is none."""
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise EngineError(NOT_INSTALLED) from error


def engine_fingerprint() -> str:
    """A short hash of the version, the library files (name, size, time) and the processor."""
    digest = hashlib.sha256(engine_version().encode())
    for path in sorted(library_folder().glob("*")):
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


def gpu_backends() -> frozenset[str]:
    """The GPU backends that this build has libraries of, e.g. `cuda`."""
    files = [path.name for path in library_folder().glob("*ggml-*")]
    return frozenset(name for name in GPU_BACKENDS if any(f"ggml-{name}" in file for file in files))
