"""Look before the load: what would fail in the engine, said in a sentence while it costs nothing.

The engine answers a bad combination with "failed to create context", some damaged files with an
abort, and memory that is not there with swapping.
"""

from pathlib import Path

from localspec.engine.base import EngineConfig
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


def check_config(config: EngineConfig, facts: ModelFacts) -> None:
    """Raise UserError where the cache types do not fit the model or each other, or the memory."""
    type_k, type_v = cache_type(config.kv_k), cache_type(config.kv_v)
    problem = facts.kv_problem(type_k, type_v, flash_attention=config.flash_attn != "off")
    if problem:
        raise UserError(problem)
    n_ctx = config.n_ctx * config.n_sequences
    n_windowed = (facts.window_tokens or 0) + config.n_batch
    cache_bytes = facts.kv_bytes(n_ctx, type_k, type_v, n_windowed=n_windowed)
    if cache_bytes is not None:
        _check_memory(config.n_ctx, cache_bytes)


def _check_memory(n_ctx: int, cache_bytes: int) -> None:
    free = max(0, available_memory_bytes() - _BUFFERS_BYTES)
    if cache_bytes <= free:
        return
    fitting = int(n_ctx * free / cache_bytes) // 256 * 256
    advice = f"--ctx {fitting} would fit" if fitting else "close other programs"
    raise UserError(
        f"a context of {n_ctx:,} tokens needs {cache_bytes / 1e9:.1f} GB "
        f"and {free / 1e9:.1f} GB are free: {advice}"
    )
