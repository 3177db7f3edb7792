"""Which engines can go on from each other's saved sequences."""

import os
from hashlib import sha256

from localspec.engine.base import EngineConfig
from localspec.engine.device_health import devices_text
from localspec.engine.graphics import graphics
from localspec.engine.health import engine_fingerprint
from localspec.model.identity import fingerprint
from localspec.settings import ROWS


def state_key(config: EngineConfig) -> str:
    """Equal for engines that can go on from each other's saved sequences. OSError without files.

    Weights, cache types, the kernels' layout, the devices and the engine build count; the size of
    the context and the number of threads do not. LLAMA_ATTN_ROT_DISABLE decides whether a quantized
    cache is rotated, which no state file records (llama.cpp PR 21038).
    """
    settings = config.settings
    parts = (
        fingerprint(config.model),
        *(getattr(settings, name) for name, row in ROWS.items() if not row.is_exact),
        engine_fingerprint(),
        devices_text(graphics(settings.device, settings.workers) if settings.gpu_layers else []),
        os.environ.get("LLAMA_ATTN_ROT_DISABLE", ""),
    )
    return sha256(repr(parts).encode()).hexdigest()[:16]
