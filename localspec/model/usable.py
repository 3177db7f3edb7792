"""Whether libllama can be given this model without dying of it.

libllama reports most of what is wrong with a file, but it asserts some (the process aborts) and
trusts the rest (it divides by zero, reads out of bounds, fills the memory). The rules here and in
`kind` and `vocabulary` refuse the latter two before the engine sees the file. They are what
`load_hparams`, `create_tensor`, `create_memory` and the graphs of src/models/*.cpp in llama.cpp
take for granted; flipping bytes of real headers showed which of these matter. An architecture that
is unknown here passes: only what holds for all is asked.
"""

from math import isfinite, isnan

from localspec.errors import ModelError
from localspec.model.architectures import WINDOWS
from localspec.model.header import Header, Tensor
from localspec.model.kind import check_kind
from localspec.model.layers import Layer, layers_of, per_layer
from localspec.model.values import shown
from localspec.model.vocabulary import check_vocabulary

AGAIN = "download or convert it again"
MAX_EXPERTS = 1024  # LLAMA_MAX_EXPERTS
MAX_SIZE = 1 << 24  # far above any embedding, head or feed-forward length
NO_SINGLE_EXPERT = ("hunyuan-dense", "hunyuan_vl")  # one expert is read as none
MAX_TOKENS = (1 << 31) - 1
ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
# Types that no kernel multiplies with, and the tables of numbers that may have them.
NOT_WEIGHTS = frozenset({"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"})
MAPPED_ALIGNMENT_BYTES = 32  # TENSOR_ALIGNMENT of ggml, asserted for a mapped file
NUMBER_TABLES = ("tid2eid", "d2t")
ADDED_AS_F32 = ("_norm.weight", ".ssm_a", ".ssm_d", ".ssm_conv1d.weight")


def check_usable(header: Header) -> None:
    """ModelError, in one sentence, for a model that libllama would not load or not survive."""
    check_kind(header)
    _check_sizes(header)
    _check_layers(header, layers_of(header))
    _check_experts(header)
    _check_numbers(header)
    _check_blocks(header)
    for tensor in header.tensors:
        _check_tensor(header, tensor)
    check_vocabulary(header)


def _contradiction(header: Header, what: str) -> ModelError:
    return header.fail(f"{what}; {AGAIN}")


def _check_sizes(header: Header) -> None:
    for name, most in (("context_length", MAX_TOKENS), ("embedding_length", MAX_SIZE)):
        number = header.integer(header.own_key(name))
        if number is None or not 1 <= number <= most:
            raise _contradiction(header, f"has {number} for {shown(header.own_key(name))}")
    n_embd = header.integer(header.own_key("embedding_length"))
    table = next((t for t in header.tensors if t.name == "token_embd.weight"), None)
    if table and table.shape[:1] != (n_embd,):
        raise _contradiction(
            header,
            f"has embeddings of shape {table.shape} but says that they have {n_embd} numbers",
        )


def _check_layers(header: Header, layers: tuple[Layer, ...]) -> None:
    if not layers[0].n_heads and any(t.name.startswith("blk.0.attn_q") for t in header.tensors):
        raise _contradiction(header, "has weights for attention and no attention heads")
    for layer in set(layers):
        _check_heads(header, layer)
    _check_rotation(header, layers)
    if header.architecture in WINDOWS and not any(layer.window_tokens for layer in layers):
        key = header.own_key("attention.sliding_window")
        if header.integer(key):
            raise _contradiction(header, f"has {shown(key)} and no layer to use it")


def _check_heads(header: Header, layer: Layer) -> None:
    n, n_kv = layer.n_heads, layer.n_kv_heads
    if not (0 <= n_kv <= n <= MAX_SIZE and (not n_kv or n % n_kv == 0)):
        raise _contradiction(header, f"has {n} attention heads for {n_kv} heads of keys and values")
    sizes = (layer.key_size, layer.value_size)
    if n_kv and not (1 <= sizes[0] <= MAX_SIZE and 0 <= sizes[1] <= MAX_SIZE):
        raise _contradiction(header, f"has keys of {sizes[0]} and values of {sizes[1]} numbers")
    window = layer.window_tokens
    if window is not None and not 1 <= window <= MAX_TOKENS:
        raise _contradiction(header, f"has a sliding window of {window} tokens")


def _check_rotation(header: Header, layers: tuple[Layer, ...]) -> None:
    longest = max(layer.key_size for layer in layers)
    for key in ("rope.dimension_count", "rope.dimension_count_swa"):
        n_rotated = header.integer(header.own_key(key)) or 0
        if longest and (n_rotated % 2 or not 0 <= n_rotated <= longest):
            raise _contradiction(header, f"rotates {n_rotated} numbers of keys of {longest}")


def _check_experts(header: Header) -> None:
    def count(name: str) -> int:
        return header.integer(header.own_key(name)) or 0

    if header.architecture in NO_SINGLE_EXPERT and count("expert_count") <= 1:
        return
    n_blocks = header.integer(header.own_key("block_count")) or 0
    n, n_groups = count("expert_count"), count("expert_group_count")
    n_used = max(per_layer(header, "expert_used_count", n_blocks) or (0,))
    n_groups_used = count("expert_group_used_count")
    groups_fit = n_groups <= 1 or (n % n_groups == 0 and 0 < n_groups_used < n_groups)
    if not (
        0 <= n <= MAX_EXPERTS
        and (0 < n_used <= n if n else n_used == 0)
        and (0 <= n_groups < n if n else n_groups == 0)
        and groups_fit
    ):
        raise _contradiction(
            header,
            f"has {n} experts of which {n_used} are used, in {n_groups} groups of which"
            f" {n_groups_used} are used",
        )


def _check_numbers(header: Header) -> None:
    for key, value in header.metadata.items():
        if key.startswith(f"{header.architecture}.") and isinstance(value, float):
            is_small = key.endswith("epsilon")
            if isnan(value) or (is_small and not (isfinite(value) and value >= 0)):
                raise _contradiction(header, f"has {value} for {shown(key)}")
    scaling = header.text(header.own_key("rope.scaling.type"))
    if scaling is not None and scaling not in ROPE_SCALINGS:
        raise _contradiction(header, f"has the unknown position scaling {shown(scaling)}")


def _check_blocks(header: Header) -> None:
    """No weights are of layers beyond the last; some models pass a layer more than once."""
    numbers = (int(t.name.split(".")[1]) for t in header.tensors if _is_in_block(t))
    n_found = max(numbers, default=-1) + 1
    n_blocks = header.integer(header.own_key("block_count")) or 0
    if n_found > n_blocks:
        raise _contradiction(header, f"has weights of {n_found} layers but says {n_blocks}")


def _is_in_block(tensor: Tensor) -> bool:
    start, _, rest = tensor.name.partition(".")
    return start == "blk" and rest.partition(".")[0].isdecimal()


def _check_tensor(header: Header, tensor: Tensor) -> None:
    kind, name = tensor.type.name, tensor.name
    if kind in NOT_WEIGHTS and not any(table in name for table in NUMBER_TABLES):
        raise _contradiction(
            header, f"has weights {shown(name)} of the type {kind}, which are none"
        )
    if tensor.offset_bytes % MAPPED_ALIGNMENT_BYTES:
        raise _contradiction(
            header,
            f"has {shown(name)} at byte {tensor.offset_bytes}, no multiple of the"
            f" {MAPPED_ALIGNMENT_BYTES} that engines need",
        )
    is_vector = len(tensor.shape) < 2 and "gate_inp" not in name
    if kind not in ("F32", *NOT_WEIGHTS) and (is_vector or name.endswith(ADDED_AS_F32)):
        raise _contradiction(
            header, f"has {shown(name)} as {kind}, which engines can use as F32 only"
        )
