"""The memory of this machine's processor.

Before a model loads this is imported, so nothing of what predicts is in it.
"""

from localspec.engine.graphics import graphics
from localspec.hardware.detect import processor_features
from localspec.prediction.memory import Host
from localspec.settings import Settings


def host_of(settings: Settings) -> Host | None:
    """How weights lie in this processor's memory; None where a GPU holds them."""
    if settings.gpu_layers and graphics(settings.device):
        return None
    return Host(processor_features(), settings.mmap, settings.repack)
