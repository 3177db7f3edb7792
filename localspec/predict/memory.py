"""What a model takes of a device's memory: weights, cache, state and compute buffers.

Buffers hold the activations of one micro-batch, the attention mask and the logits asked for; the
formula is an estimate fitted to what libllama reports, not its allocator.
"""

from dataclasses import dataclass, replace
from typing import Self

from localspec.model.facts import ModelFacts
from localspec.predict.roofline import CacheSetting

FLOAT_BYTES = 4
ACTIVATIONS = 12
"""Rows of the embedding's length that are alive at once in a micro-batch: of the feed-forward."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes; `cache` None where the architecture keeps one that is not known here."""

    weights_bytes: int
    cache_bytes: int | None
    state_bytes: int
    buffers_bytes: int
    draft_bytes: int = 0

    @property
    def total_bytes(self) -> int:
        known = self.cache_bytes or 0
        return self.weights_bytes + known + self.state_bytes + self.buffers_bytes + self.draft_bytes

    def with_draft(self, draft_bytes: int) -> Self:
        return replace(self, draft_bytes=draft_bytes)


def memory_of(
    facts: ModelFacts, cache: CacheSetting, n_ctx: int, *, n_sequences: int = 1, n_batch: int = 512
) -> Memory:
    """What `n_sequences` contexts of `n_ctx` tokens take, without a draft."""
    n_windowed = None if facts.window_tokens is None else facts.window_tokens + n_batch
    one = facts.kv_bytes(n_ctx, cache.type_k, cache.type_v, n_windowed=n_windowed)
    return Memory(
        weights_bytes=facts.weight_bytes,
        cache_bytes=None if one is None else n_sequences * one,
        state_bytes=n_sequences * (facts.state_bytes or 0),
        buffers_bytes=_buffers_bytes(facts, cache, n_ctx * n_sequences, n_batch),
    )


def _buffers_bytes(facts: ModelFacts, cache: CacheSetting, n_cells: int, n_batch: int) -> int:
    most_heads = max((layer.n_heads for layer in facts.layers), default=0)
    scores = 0 if cache.flash else most_heads * n_cells
    row = ACTIVATIONS * facts.n_embd + n_cells + scores
    return FLOAT_BYTES * (n_batch * row + (facts.n_vocab or 0))
