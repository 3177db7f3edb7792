"""What follows from a header for running the model: sizes, heads, cache, tokenizer.

The cache holds keys and values of every token of the context, by layer:

    bytes = sum over layers of cells * (row(type_k, n_keys) + row(type_v, n_values))

with cells the context padded to 256, or the window's if windowed layers keep no more than they
need. Source: src/llama-kv-cache.cpp and -iswa.cpp of llama.cpp. Flash attention is assumed:
without it values of layers of different size are padded to the largest. What it does not know: the
compute buffers. Weights and recurrent state: see `weights` and `state`.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from localspec.errors import UserError
from localspec.model.architectures import HYBRID, RECURRENT, UNUSUAL_CACHE
from localspec.model.ggml_types import BY_NAME, GgmlType
from localspec.model.header import Header
from localspec.model.layers import Layer, layers_of, per_layer
from localspec.model.state import state_bytes
from localspec.model.tokenizer import Tokenizer
from localspec.model.weights import Streamed, WeightGroup, streamed, weights_of

CACHE_TYPES: dict[str, GgmlType] = {
    name: BY_NAME[name.upper()]
    for name in ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
}
CELLS_STEP = 256

# Names by number, from enum llama_ftype of llama.h; a dash is a number that is not in use.
FILE_TYPES = (
    "F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M"
    " Q6_K IQ2_XXS IQ2_XS Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M IQ4_XS IQ1_M"
    " BF16 - - - TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0"
)


def cache_type(name: str) -> GgmlType:
    """The type of a KV cache by its name on the command line; UserError if there is none of it."""
    kind = CACHE_TYPES.get(name.lower())
    if kind is None:
        raise UserError(f"KV type {name!r} does not exist; choose one of {', '.join(CACHE_TYPES)}")
    return kind


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts of a language model; `of` reads them from a header and None is what it does not say."""

    path: str
    architecture: str
    name: str | None
    file_type: str
    n_params: int
    weight_bytes: int
    n_embd: int
    n_ctx_train: int | None
    n_vocab: int | None
    n_experts: int
    n_experts_used: int
    tokenizer: Tokenizer
    state_bytes: int | None
    layers: tuple[Layer, ...] = field(repr=False)
    weights: tuple[WeightGroup, ...] = field(repr=False)

    @classmethod
    def of(cls, header: Header) -> Self:
        """ModelError where the header contradicts itself; `usable.check_usable` asks for more."""

        def count(name: str) -> int | None:
            return header.integer(header.own_key(name))

        tokenizer, layers = Tokenizer.of(header), layers_of(header)
        return cls(
            path=header.name,
            architecture=header.architecture,
            name=header.text("general.name"),
            file_type=_file_type(header),
            n_params=sum(tensor.n_elements for tensor in header.tensors),
            weight_bytes=sum(tensor.n_bytes for tensor in header.tensors),
            n_embd=count("embedding_length") or 0,
            n_ctx_train=count("context_length"),
            n_vocab=count("vocab_size") if tokenizer.n_tokens is None else tokenizer.n_tokens,
            n_experts=count("expert_count") or 0,
            n_experts_used=_most(header, "expert_used_count"),
            tokenizer=tokenizer,
            state_bytes=state_bytes(header, layers),
            layers=layers,
            weights=weights_of(header, _most_blocks(header)),
        )

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    def streamed(self, n_tokens: int) -> tuple[Streamed, ...]:
        """What a pass over `n_tokens` reads of the weights, and what each token multiplies."""
        return streamed(self.weights, self.n_experts, self.n_experts_used, n_tokens)

    @property
    def streamed_bytes(self) -> float:
        """Of the weights, for one token."""
        return sum(part.n_bytes for part in self.streamed(1))

    @property
    def active_params(self) -> float:
        """Weights that one token multiplies."""
        return sum(part.n_elements for part in self.streamed(1))

    @property
    def expert_bytes(self) -> int:
        return sum(group.n_bytes for group in self.weights if group.is_expert)

    @property
    def active_expert_bytes(self) -> float:
        """Of the experts that one token uses."""
        return sum(part.n_bytes for part in self.streamed(1) if part.role == "experts")

    def flops(self, n_tokens: int, depth: int) -> float:
        """Operations of a pass: two a weight, four a head, cell and number of a head."""
        cells = sum(
            layer.n_heads
            * (layer.key_size + (layer.value_size or layer.key_size))
            * min(depth, layer.window_tokens or depth)
            for layer in self.layers
            if layer.n_kv_heads
        )
        return n_tokens * (2 * self.active_params + 2 * cells)

    def kv_bytes_per_token(self, type_k: GgmlType, type_v: GgmlType) -> tuple[int, ...]:
        """What a token adds to the cache of each layer."""
        return tuple(
            type_k.n_bytes(layer.n_keys) + type_v.n_bytes(layer.n_values) for layer in self.layers
        )

    @property
    def is_recurrent(self) -> bool:
        return self.architecture in RECURRENT

    @property
    def is_hybrid(self) -> bool:
        """Some layers attend and some are recurrent."""
        return self.architecture in HYBRID

    @property
    def window_tokens(self) -> int | None:
        """The sliding window of the layers that have one; None if none has."""
        return next((layer.window_tokens for layer in self.layers if layer.window_tokens), None)

    def kv_bytes(
        self, n_ctx: int, type_k: GgmlType, type_v: GgmlType, *, n_windowed: int | None = None
    ) -> int | None:
        """Bytes of the KV cache for `n_ctx` tokens; None where the architecture has one of its own.

        `n_windowed`: how many tokens windowed layers keep (the window and a micro-batch); None: all
        of them, as libllama does unless it is asked to save memory (`swa_full`).
        """
        if self.architecture in UNUSUAL_CACHE:
            return None
        n_cells = _padded(n_ctx)
        n_window_cells = n_cells if n_windowed is None else _padded(min(n_cells, n_windowed))
        return sum(
            (n_cells if layer.window_tokens is None else n_window_cells)
            * (type_k.n_bytes(layer.n_keys) + type_v.n_bytes(layer.n_values))
            for layer in self.layers
        )

    def kv_problem(
        self, type_k: GgmlType, type_v: GgmlType, *, flash_attention: bool = True
    ) -> str | None:
        """A sentence on why libllama would refuse these cache types for this model, or None."""
        if type_v.is_quantized and not flash_attention:
            return (
                f"a {type_v.name} value cache needs flash attention;"
                " turn that on or choose f16, bf16 or f32 for values"
            )
        if any(layer.n_keys and not layer.n_values for layer in self.layers) and type_k != type_v:
            return (
                f"{self.architecture} keeps keys and values together and cannot have {type_k.name}"
                f" keys with {type_v.name} values; choose one type for both"
            )
        return self._block_problem("key", type_k) or self._block_problem("value", type_v)

    def _block_problem(self, what: str, kind: GgmlType) -> str | None:
        for layer in self.layers:
            size = layer.key_size if what == "key" else layer.value_size
            if layer.has_cache and size % kind.block_elements:
                return (
                    f"a {kind.name} {what} cache has blocks of {kind.block_elements} numbers, which"
                    f" do not divide this model's {what}s of {size}; choose f16, bf16 or f32"
                )
        return None


def _most_blocks(header: Header) -> int:
    """Blocks that a token passes; further ones predict further tokens (NextN)."""
    n_blocks, n_extra = (
        header.integer(header.own_key(name)) or 0
        for name in ("block_count", "nextn_predict_layers")
    )
    return n_blocks - n_extra


def _padded(n_tokens: int) -> int:
    return -(-n_tokens // CELLS_STEP) * CELLS_STEP


def _most(header: Header, name: str) -> int:
    n_layers = header.integer(header.own_key("block_count")) or 0
    return max(per_layer(header, name, n_layers) or (0,))


def _file_type(header: Header) -> str:
    """What mixture of types the file says it is; if it does not, the type of most weight bytes."""
    number, names = header.integer("general.file_type"), FILE_TYPES.split()
    if number is not None and 0 <= number < len(names) and names[number] != "-":
        return names[number]
    n_bytes = Counter[str]()
    for tensor in header.tensors:
        n_bytes[tensor.type.name] += tensor.n_bytes
    return n_bytes.most_common(1)[0][0] if n_bytes else "unknown"
