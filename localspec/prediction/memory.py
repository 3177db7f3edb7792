"""What a model takes of memory: on a device, and what loading adds to a processor's.

Compute buffers hold the activations of one micro-batch, the attention mask and the logits asked
for; their formula is fitted to what libllama reports.

On a processor, ggml copies weights of some types into the order that its matrix kernels read. The
copy is the program's own; the mapped original can be dropped and is never read again. Only what is
read instead of mapped lies there once. Tied embeddings are copied for the output matrix, and stay
for the input.

Types by instruction set: ggml/src/ggml-cpu/repack.cpp and ggml-cpu/amx of llama.cpp 0.5.0, for
matrices whose rows come in eights (AMX: 32), which all but odd vocabularies have. AMX does not
multiply experts, so theirs go to the other kernels. Not known here: KleidiAI, RISC-V and SpaceMiT.
The program's own size is fitted to two measured models (docs/measurements/memory.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from localspec.gguf.types import BY_NAME
from localspec.model.facts import N_KEPT, HeadMethod, ModelFacts
from localspec.model.kv import cache_bytes, padded_cells, types_of
from localspec.model.layers import Layer
from localspec.model.weights import WeightGroup
from localspec.settings import Attention

AMX = frozenset({"amx_int8", "avx512_vnni"})
_AMX_TYPES = frozenset({"Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_XS", "F16"})
_DOT_PRODUCT = frozenset({"Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "MXFP4", "Q8_0", "Q1_0"})
_BY_FEATURE = {
    "avx2": frozenset({"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}),
    "avx512f": frozenset({"Q2_K"}),
    "asimddp": _DOT_PRODUCT,
    "vxe": frozenset({"Q4_0"}),
}
"""By the name that Linux gives an instruction set."""
_ROWS, _AMX_ROWS = 8, 32

PROGRAM_BYTES = 62_000_000
WORD_BYTES = 155
"""Of Python and the engine's libraries; and for each token of the vocabulary."""


@dataclass(frozen=True, slots=True)
class Host:
    """A processor that holds weights, and how they are loaded.

    `features` are its instruction sets as Linux spells them; `repacks` is off where the user or a
    faulty build forbids it, and where a GPU's own host memory holds what is not offloaded.
    """

    features: frozenset[str]
    is_mapped: bool = True
    repacks: bool = True

    def second_copy_bytes(self, facts: ModelFacts) -> int:
        """Of the weights, kept beside those of the file."""
        copied = [
            group for group in facts.weights if self.repacks and self._is_copied(group, facts)
        ]
        if not self.is_mapped:
            copied = [group for group in copied if group.role == "embedding"]
        return sum(group.n_bytes for group in copied)

    def copies(self, kind: str) -> bool:
        """Whether matrices of this type are repacked."""
        return self.repacks and self._has_kernel(kind)

    def program_bytes(self, facts: ModelFacts) -> int:
        """The interpreter, the engine and the vocabulary's tables."""
        return PROGRAM_BYTES + WORD_BYTES * (facts.n_vocab or 0)

    def _is_copied(self, group: WeightGroup, facts: ModelFacts) -> bool:
        if not group.is_streamed or group.role == "norm":
            return False
        n_rows = facts.n_vocab if group.role in ("embedding", "output") else None
        return self._has_kernel(group.type.name, n_rows or 0, is_expert=group.is_expert)

    def _has_kernel(self, kind: str, n_rows: int = 0, *, is_expert: bool = False) -> bool:
        by_amx = self.features >= AMX and kind in _AMX_TYPES and not is_expert
        if by_amx and n_rows % _AMX_ROWS == 0:
            return True
        types = (kinds for name, kinds in _BY_FEATURE.items() if name in self.features)
        return n_rows % _ROWS == 0 and any(kind in kinds for kinds in types)


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


def head_bytes(
    method: HeadMethod,
    layers: Sequence[Layer],
    target: ModelFacts,
    n_ctx: int,
    n_sequences: int = 1,
) -> int:
    """What a draft head's context takes without its weights: the cache of its own `layers` in f16,
    the buffers of its passes, and the target's hidden states that are kept for it. Scores lie in
    the graph's buffer and in that which the engine gives out."""
    cells = cache_bytes(tuple(layers), (BY_NAME["F16"], BY_NAME["F16"]), n_ctx, None)
    n_outputs = N_KEPT if method in ("eagle3", "dflash", "dspark") else n_sequences
    row = ACTIVATIONS * target.n_embd + padded_cells(n_ctx * n_sequences)
    kept = n_sequences * 4 * N_KEPT * target.n_embd
    buffers = N_KEPT * row + 2 * n_outputs * (target.n_vocab or 0) + kept
    return n_sequences * cells + FLOAT_BYTES * buffers


def _buffers_bytes(facts: ModelFacts, cache: Attention, n_cells: int, n_batch: int) -> int:
    most_heads = max((layer.n_heads for layer in facts.layers), default=0)
    scores = 0 if cache.is_flash else most_heads * n_cells
    row = ACTIVATIONS * facts.n_embd + n_cells + scores
    return FLOAT_BYTES * (n_batch * row + (facts.n_vocab or 0))
