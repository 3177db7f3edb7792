"""How weights lie in this processor's memory under an engine's settings."""

from localspec.engine.graphics import graphics
from localspec.hardware.detect import processor_features
from localspec.prediction.host_memory import Host
from localspec.settings import Settings


def host_of(settings: Settings) -> Host | None:
    """None where a GPU holds the weights."""
    if settings.gpu_layers and graphics(settings.device):
        return None
    return Host(processor_features(), settings.mmap, settings.repack)
