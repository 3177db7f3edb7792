"""Facts that follow from a header for running the model: sizes, heads, cache, tokenizer, weights.

Compute buffers are not known here; caches are in `kv`.

What a header says of the use that a model is meant for, sampling and how far positions reach, is
here, too; and what an engine needs to know of a draft head before it makes a context. A head is the
last layers of a model's own file (MTP), or a small file of its own that belongs to one target.
libllama ends its process where a head does not fit, so these facts come from headers:
`model.head_fit` makes them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from localspec.gguf.header import Header, file_type
from localspec.gguf.types import GgmlType
from localspec.model.kind import is_of_encoder
from localspec.model.kv import block_problem, cache_bytes, state_bytes
from localspec.model.layers import HYBRID, RECURRENT, UNUSUAL_CACHE, Layer, layers_of, per_layer
from localspec.model.tokenizer import Tokenizer
from localspec.model.weights import (
    Streamed,
    WeightGroup,
    expert_layers,
    experts_touched,
    streamed,
    weights_of,
)

SCALINGS = ("yarn", "linear", "longrope")
MAX_FACTOR = 1024
"""Larger factors of position scaling are mistakes."""


def values_below(header: Header, prefix: str) -> dict[str, Any]:
    """Values by the ends of their keys; nobody has checked them."""
    pairs = header.metadata.items()
    return {key.removeprefix(prefix): value for key, value in pairs if key.startswith(prefix)}


def scaled_context(header: Header) -> int | None:
    """The context in tokens that position scaling reaches, which libllama applies unasked."""
    scaling = values_below(header, header.own_key("rope.scaling."))
    factor, original = scaling.get("factor"), scaling.get("original_context_length")
    if scaling.get("type") not in SCALINGS:
        return None
    if not isinstance(factor, float) or not isinstance(original, int):
        return None
    return int(factor * original) if 1 < factor < MAX_FACTOR and original > 0 else None


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts of a language model; `of` reads them from a header and None is what it does not say.

    `n_params` and `weight_bytes` are of the text model; an encoder inside has `encoder_bytes`.
    `expert_layer_bytes`: of experts by layer, empty where only their sum is known.
    """

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
    encoder_bytes: int = 0
    expert_layer_bytes: tuple[int, ...] = field(default=(), repr=False)
    n_ctx_scaled: int | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)

    @classmethod
    def of(
        cls,
        header: Header,
        tokenizer: Tokenizer | None = None,
        layers: tuple[Layer, ...] | None = None,
    ) -> Self:
        """ModelError where the header contradicts itself; `usable.usable_facts` asks for more.

        The tokenizer and the layers are read unless they are given.
        """
        count = header.own_integer
        tokenizer = tokenizer or Tokenizer.of(header)
        layers = layers_of(header) if layers is None else layers
        text = [tensor for tensor in header.tensors if not is_of_encoder(tensor)]
        return cls(
            path=header.name,
            architecture=header.architecture,
            name=header.text("general.name"),
            file_type=file_type(header),
            n_params=sum(tensor.n_elements for tensor in text),
            weight_bytes=sum(tensor.n_bytes for tensor in text),
            n_embd=count("embedding_length") or 0,
            n_ctx_train=count("context_length"),
            n_ctx_scaled=scaled_context(header),
            n_vocab=count("vocab_size") if tokenizer.n_tokens is None else tokenizer.n_tokens,
            n_experts=count("expert_count") or 0,
            n_experts_used=_most(header, "expert_used_count"),
            tokenizer=tokenizer,
            state_bytes=state_bytes(header, layers),
            sampling=values_below(header, "general.sampling."),
            layers=layers,
            weights=weights_of(header, (count("block_count") or 0) - header.n_draft_layers),
            expert_layer_bytes=expert_layers(text, len(layers)),
            encoder_bytes=sum(t.n_bytes for t in header.tensors if is_of_encoder(t)),
        )

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    def experts_touched(self, n_tokens: int) -> float:
        """How many experts of a layer some of `n_tokens` use, if routing is even; 0 without any."""
        return experts_touched(self.n_experts, self.n_experts_used, n_tokens)

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

    def expert_share(self, start: int, end: int) -> float:
        """Of the experts' bytes, what the layers from `start` to before `end` have."""
        by_layer = self.expert_layer_bytes or (1,) * self.n_layers
        return sum(by_layer[max(0, start) : max(0, end)]) / (sum(by_layer) or 1)

    def flops(self, n_tokens: int, depth: int) -> float:
        """Operations of a pass whose tokens all see `depth` cells, or their window if that is less.

        Two a weight, and for each head, cell and number of a key and of a value two more. With
        latent attention (MLA) keys are values, too.
        """
        cells = sum(
            layer.n_heads
            * (layer.key_size + (layer.value_size or layer.key_size))
            * min(depth, layer.window_tokens or depth)
            for layer in self.layers
            if layer.attends
        )
        return n_tokens * (2 * self.active_params + 2 * cells)

    @property
    def is_recurrent(self) -> bool:
        return self.architecture in RECURRENT

    @property
    def rolls_back(self) -> bool:
        """Whether its memory can take back tokens, as a draft model's must."""
        is_known_not_to = self.architecture in RECURRENT | HYBRID
        return not is_known_not_to and not any(layer.is_recurrent for layer in self.layers)

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
        return cache_bytes(self.layers, (type_k, type_v), n_ctx, n_windowed)

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
        keys = block_problem(self.layers, "key", type_k)
        return keys or block_problem(self.layers, "value", type_v)


def _most(header: Header, name: str) -> int:
    n_layers = header.own_integer("block_count") or 0
    return max(per_layer(header, name, n_layers) or (0,))


N_KEPT = 64
"""Rows of a target's hidden states that are kept for a head, and the most that it reads at once."""

HeadMethod = Literal["mtp", "gemma4-assistant", "eagle3", "dflash", "dspark"]
HEAD_METHODS: dict[str, frozenset[HeadMethod]] = {
    "mtp": frozenset({"mtp", "gemma4-assistant"}),
    "eagle3": frozenset({"eagle3"}),
    "dflash": frozenset({"dflash", "dspark"}),
}
"""The methods of heads that a --spec value means."""


@dataclass(frozen=True, slots=True)
class HeadBlock:
    """How a head that drafts a whole block at once (DFlash, DSpark) is asked.

    It reads the pending token and `mask_token` `n_tokens` - 1 times. `first`: the first of its rows
    that drafts, 1, or 0 where the pending token's own row does (DSpark). `n_lattice`: candidates a
    position in the lattice of DFlash2, 0 without one.
    """

    n_tokens: int
    mask_token: int
    first: int = 1
    is_causal: bool = False
    has_confidence: bool = False
    n_lattice: int = 0


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """One head. `path` None: it is in the target's own file, in `n_heads` layers behind the others.

    `n_draft_max`: the longest draft that it can make; None: any. `taps`: layers whose inputs it
    reads, at the target; none: the state behind the last layer. `needs_target_cache`: it attends to
    the target's cache and has none.
    """

    method: HeadMethod
    path: Path | None = None
    n_heads: int = 1
    n_draft_max: int | None = None
    taps: tuple[int, ...] = ()
    needs_target_cache: bool = False
    block: HeadBlock | None = None
