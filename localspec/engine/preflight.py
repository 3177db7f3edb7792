"""Look before the load: what would fail in the engine, said in a sentence while it costs nothing.

The engine answers a bad combination with "failed to create context", some damaged files with an
abort, and memory that is not there with swapping.
"""

from collections.abc import Sequence
from pathlib import Path

from localspec.engine.base import EngineConfig
from localspec.engine.build import UNIFIED, gpu_backends
from localspec.errors import UserError
from localspec.hardware.detect import available_memory_bytes
from localspec.model.facts import ModelFacts, cache_type
from localspec.model.gguf import read_header
from localspec.model.usable import check_usable

_BUFFERS_BYTES = 200_000_000
"""Compute buffers and the process itself; the engine needs about this much for small models."""


def checked_facts(model: Path) -> ModelFacts:
    """A file's facts. Raises ModelError where it is damaged or not a model that answers."""
    header = read_header(model)
    check_usable(header)
    return ModelFacts.of(header)


def check_cache_types(config: EngineConfig, facts: ModelFacts) -> None:
    """Raise UserError where the cache types do not fit the model or each other."""
    type_k, type_v = cache_type(config.kv_k), cache_type(config.kv_v)
    problem = facts.kv_problem(type_k, type_v, flash_attention=config.flash_attn != "off")
    if problem:
        raise UserError(problem)


def check_memory(caches: Sequence[tuple[EngineConfig, ModelFacts]]) -> None:
    """Raise UserError where the caches together do not fit into the memory that is free now.

    Weights are mapped and can be dropped and read again, so they do not count; caches on a GPU with
    memory of its own do not either: the engine itself asks the device.
    """
    on_host = [pair for pair in caches if not (pair[0].n_gpu_layers and gpu_backends() - UNIFIED)]
    needed = sum(_cache_bytes(config, facts) for config, facts in on_host)
    free = max(0, available_memory_bytes() - _BUFFERS_BYTES)
    if needed <= free:
        return
    n_ctx = on_host[0][0].n_ctx
    fitting = int(n_ctx * free / needed) // 256 * 256
    advice = f"--ctx {fitting} would fit" if fitting else "close other programs"
    raise UserError(
        f"a context of {n_ctx:,} tokens needs {needed / 1e9:.1f} GB "
        f"and {free / 1e9:.1f} GB are free: {advice}"
    )


def _cache_bytes(config: EngineConfig, facts: ModelFacts) -> int:
    """Bytes of the K and V caches; 0 where the architecture has one of its own."""
    n_windowed = (facts.window_tokens or 0) + config.n_batch
    types = cache_type(config.kv_k), cache_type(config.kv_v)
    return facts.kv_bytes(config.n_ctx * config.n_sequences, *types, n_windowed=n_windowed) or 0
