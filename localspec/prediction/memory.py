"""What a model takes of a device's memory, and what it would take in another quantization.

Compute buffers hold the activations of one micro-batch, the attention mask and the logits asked
for; their formula is fitted to what libllama reports.

A quantization by name is a mixture: most matrices in one type, some in a better one, and the output
matrix or tied embedding in another. The shares reproduce the bits per weight that llama.cpp's
tools/quantize/README.md gives for Llama-3.1-8B within 2 %. Quality is published for LLaMA-3-8B on
wikitext-2 (tools/perplexity/README.md): Kullback-Leibler divergence in nats a token against F16;
smaller models lose more, larger ones less.
"""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Self

from localspec.gguf.types import BY_NAME, GgmlType
from localspec.model.facts import ModelFacts, WeightGroup
from localspec.model.kv import types_of
from localspec.prediction.host_memory import Host
from localspec.settings import Attention

FLOAT_BYTES = 4
ACTIVATIONS = 12
"""Rows of the embedding's length that are alive at once in a micro-batch: of the feed-forward."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes; `cache` None where the architecture keeps one that is not known here.

    `repacked_bytes`: a second copy of weights in the order of the processor's kernels;
    `program_bytes`: interpreter, engine and vocabulary. Both are 0 on a GPU.
    """

    weights_bytes: int
    cache_bytes: int | None
    state_bytes: int
    buffers_bytes: int
    draft_bytes: int = 0
    repacked_bytes: int = 0
    program_bytes: int = 0

    @property
    def own_bytes(self) -> int:
        """Without weights and draft: what cannot be dropped and read again from the file."""
        cache = (self.cache_bytes or 0) + self.state_bytes
        return cache + self.buffers_bytes + self.repacked_bytes + self.program_bytes

    @property
    def total_bytes(self) -> int:
        """All that is resident where memory is not short."""
        return self.weights_bytes + self.own_bytes + self.draft_bytes

    @property
    def beside_bytes(self) -> int:
        """Of a draft in the same program."""
        return self.total_bytes - self.program_bytes

    @property
    def used_bytes(self) -> int:
        """What is read again and again: of repacked weights the copy alone."""
        return self.total_bytes - min(self.repacked_bytes, self.weights_bytes)

    def with_draft(self, draft_bytes: int) -> Self:
        return replace(self, draft_bytes=draft_bytes)


def memory_of(
    facts: ModelFacts,
    cache: Attention,
    n_ctx: int,
    host: Host | None = None,
    *,
    n_sequences: int = 1,
    n_batch: int = 512,
) -> Memory:
    """What `n_sequences` contexts of `n_ctx` tokens take, without a draft; `host` None: a GPU."""
    n_windowed = None if facts.window_tokens is None else facts.window_tokens + n_batch
    one = facts.kv_bytes(n_ctx, *types_of(cache), n_windowed=n_windowed)
    return Memory(
        weights_bytes=facts.weight_bytes,
        cache_bytes=None if one is None else n_sequences * one,
        state_bytes=n_sequences * (facts.state_bytes or 0),
        buffers_bytes=_buffers_bytes(facts, cache, n_ctx * n_sequences, n_batch),
        repacked_bytes=host.second_copy_bytes(facts) if host else 0,
        program_bytes=host.program_bytes(facts) if host else 0,
    )


def _buffers_bytes(facts: ModelFacts, cache: Attention, n_cells: int, n_batch: int) -> int:
    most_heads = max((layer.n_heads for layer in facts.layers), default=0)
    scores = 0 if cache.is_flash else most_heads * n_cells
    row = ACTIVATIONS * facts.n_embd + n_cells + scores
    return FLOAT_BYTES * (n_batch * row + (facts.n_vocab or 0))


@dataclass(frozen=True, slots=True)
class Quant:
    """A mixture of types; `better_share` of the elements of matrices are of type `better`.

    `kld` None: not published for that model.
    """

    name: str
    main: str
    better: str
    better_share: float
    output: str
    kld: float | None

    @property
    def bits_per_weight(self) -> float:
        """Of its matrices on average, the output's not counted."""
        main, better = (BY_NAME[name].bits_per_element for name in (self.main, self.better))
        return main + self.better_share * (better - main)

    def applied(self, facts: ModelFacts) -> ModelFacts:
        """The same model with its matrices in this mixture."""
        groups = [part for group in facts.weights for part in self._converted(group)]
        size = sum(group.n_bytes for group in groups)
        return replace(facts, weights=tuple(groups), weight_bytes=size, file_type=self.name)

    def _converted(self, group: WeightGroup) -> list[WeightGroup]:
        if group.type.name == "F32" or group.role == "norm":
            return [group]
        if group.role == "output" or (group.role == "embedding" and group.is_streamed):
            return [_as(group, BY_NAME[self.output], group.n_elements)]
        n_better = round(self.better_share * group.n_elements)
        parts = Counter({self.main: group.n_elements - n_better})
        parts[self.better] += n_better
        return [_as(group, BY_NAME[name], n) for name, n in parts.items() if n]

    def for_rows_of(self, n_elements: int) -> "Quant":
        """The same with what llama.cpp falls back to where blocks of 256 do not fill a row."""
        if n_elements % 256 == 0:
            return self
        main, better, output = (
            FALLBACKS.get(name, name) for name in (self.main, self.better, self.output)
        )
        return replace(self, main=main, better=better, output=output)


def _as(group: WeightGroup, kind: GgmlType, n_elements: int) -> WeightGroup:
    n_bytes = round(n_elements * kind.bits_per_element / 8)
    return replace(group, type=kind, n_elements=n_elements, n_bytes=n_bytes)


FALLBACKS = {
    "IQ4_XS": "IQ4_NL",
    "Q2_K": "IQ4_NL",
    "Q3_K": "IQ4_NL",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
"""From src/llama-quant.cpp of llama.cpp."""

QUANTS = (
    Quant("F16", "F16", "F16", 0.0, "F16", 0.00055),
    Quant("Q8_0", "Q8_0", "Q8_0", 0.0, "Q8_0", 0.00136),
    Quant("Q6_K", "Q6_K", "Q6_K", 0.0, "Q6_K", 0.00545),
    Quant("Q5_K_M", "Q5_K", "Q6_K", 0.12, "Q6_K", 0.01076),
    Quant("Q5_K_S", "Q5_K", "Q5_K", 0.0, "Q6_K", 0.01660),
    Quant("Q4_K_M", "Q4_K", "Q6_K", 0.14, "Q6_K", 0.03127),
    Quant("Q4_K_S", "Q4_K", "Q5_K", 0.05, "Q6_K", 0.04314),
    Quant("IQ4_XS", "IQ4_XS", "Q5_K", 0.03, "Q6_K", 0.03633),
    Quant("Q4_1", "Q4_1", "Q4_1", 0.0, "Q6_K", 0.07168),
    Quant("Q4_0", "Q4_0", "Q4_0", 0.0, "Q6_K", 0.07194),
    Quant("Q3_K_M", "Q3_K", "Q4_K", 0.30, "Q6_K", 0.10191),
    Quant("Q2_K", "Q2_K", "Q3_K", 0.37, "Q6_K", 0.44513),
)


def variants_of(facts: ModelFacts) -> tuple[ModelFacts, ...]:
    """The model in every quantization of the table."""
    return tuple(quant.for_rows_of(facts.n_embd).applied(facts) for quant in QUANTS)
