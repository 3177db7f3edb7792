"""How weights lie in this processor's memory under an engine's settings."""

from localspec.engine.health import gpu_backends
from localspec.errors import EngineError
from localspec.hardware.detect import processor_features
from localspec.prediction.host_memory import Host
from localspec.settings import Settings


def host_of(settings: Settings) -> Host | None:
    """None where a GPU holds the weights.

    With a GPU's backend, libllama prefers that backend's host memory, where nothing is repacked.
    """
    try:
        has_gpu = bool(gpu_backends())
    except EngineError:
        has_gpu = False
    if has_gpu and settings.gpu_layers:
        return None
    return Host(processor_features(), settings.mmap, settings.repack and not has_gpu)
