"""What makes two engines' saved states interchangeable, as a short key for a file's name.

A state fits where the weights, the cache types, the kernels' layout and the engine build are the
same. How large the context is and how many threads there are does not matter. A quantized cache is
rotated or not by LLAMA_ATTN_ROT_DISABLE, which no state file records (llama.cpp PR 21038).
"""

import os
from hashlib import sha256
from pathlib import Path

from localspec.engine.base import EngineConfig
from localspec.engine.build import engine_fingerprint
from localspec.model.gguf import PART_NAME

_SAMPLE_BYTES = 1 << 20


def state_key(config: EngineConfig) -> str:
    """Equal for engines that can go on from each other's saved sequences. OSError without files."""
    parts = (
        model_identity(config.model),
        config.kv_k,
        config.kv_v,
        config.flash_attn,
        config.n_gpu_layers,
        config.use_extra_buffers,
        engine_fingerprint(),
        os.environ.get("LLAMA_ATTN_ROT_DISABLE", ""),
    )
    return sha256(repr(parts).encode()).hexdigest()[:16]


def model_identity(model: Path) -> str:
    """A digest of a model's files by size, time, beginning and end: hashing them whole is slow."""
    match = PART_NAME.fullmatch(model.name)
    files = sorted(model.parent.glob(f"{match[1]}-*-of-{match[3]}.gguf")) if match else [model]
    digest = sha256()
    for path in files:
        status = path.stat()
        digest.update(f"{status.st_size} {status.st_mtime_ns}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE_BYTES))
            file.seek(max(0, status.st_size - _SAMPLE_BYTES))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()
