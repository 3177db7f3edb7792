"""Which engine build is installed, told without loading it, so that verdicts on it can be kept."""

import hashlib
import importlib.util
from importlib import metadata
from pathlib import Path

from localspec.errors import EngineError
from localspec.hardware.detect import processor_features, processor_name

_DISTRIBUTION = "llama-cpp-python"


def engine_version() -> str:
    """The installed llama-cpp-python's version. Raises EngineError where there is none."""
    try:
        return metadata.version(_DISTRIBUTION)
    except metadata.PackageNotFoundError as error:
        raise EngineError(
            "the engine is not installed: run scripts/setup, or `pip install llama-cpp-python`"
        ) from error


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
        raise EngineError("llama-cpp-python is installed but cannot be found: reinstall it")
    return Path(spec.origin).parent / "lib"
