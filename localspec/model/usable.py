"""Whether libllama can be given this model without dying of it.

libllama reports most faults of a file. It asserts the absence of some (the process aborts) and does
not look for the rest (it divides by zero, reads out of bounds, fills the memory). The rules here
and in `tokenizer` refuse these before the engine sees the file. They restate what llama.cpp takes
for granted: `load_hparams` and `create_memory` in src/llama-model.cpp, the constructors of caches,
the graphs of src/models/*.cpp, and the tools that write files which are no models (`general.type`).
Flipping bytes of real headers showed which rules matter. An architecture that is unknown here must
only meet the rules that hold for all.
"""

from math import isfinite, isnan

from localspec.errors import ModelError
from localspec.gguf.cursor import shown
from localspec.gguf.header import Header, Tensor
from localspec.model.facts import ModelFacts
from localspec.model.kind import check_kind
from localspec.model.layers import (
    HYBRID,
    RECURRENT,
    SKIPPING,
    WINDOWS,
    Layer,
    layers_of,
    per_layer,
)
from localspec.model.tokenizer import AGAIN, check_vocabulary

MAX_EXPERTS = 1024  # LLAMA_MAX_EXPERTS
MAX_SIZE = 1 << 24  # far above any embedding, head or feed-forward length
MAX_TOKENS = (1 << 31) - 1
NO_SINGLE_EXPERT = ("hunyuan-dense", "hunyuan_vl")  # one expert is read as none
ROPE_SCALINGS = ("none", "linear", "yarn", "longrope")
# Counts that something is divided by, if they are there.
DIVISORS = (
    "experts_per_group",
    "full_attention_interval",
    "interleave_moe_layer_step",
    "ssm.group_count",
    "ssm.time_step_rank",
    "wkv.head_size",
)
NEVER_DIVIDES = (("llama4", "interleave_moe_layer_step"), ("plamo2", "ssm.group_count"))


def check_sizes(header: Header) -> tuple[Layer, ...]:
    """The layers. ModelError if the metadata contradict themselves, each other or the weights."""
    _check_lengths(header)
    layers = layers_of(header)
    _check_layers(header, layers)
    _check_experts(header)
    _check_numbers(header)
    return layers


def _contradiction(header: Header, what: str) -> ModelError:
    return header.fail(f"{what}; download or convert it again")


def _check_lengths(header: Header) -> None:
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
    if not layers[0].n_heads and not _is_recurrent(header):
        raise _contradiction(header, "has no attention heads")
    for layer in set(layers):
        _check_heads(header, layer)
    _check_rotation(header, layers)
    if header.architecture in WINDOWS and not any(layer.window_tokens for layer in layers):
        key = header.own_key("attention.sliding_window")
        if header.integer(key):
            raise _contradiction(header, f"has {shown(key)} and no layer to use it")


def _is_recurrent(header: Header) -> bool:
    """Also for an architecture that is not known here, by what else it says of itself."""
    states = (header.own_key("ssm."), header.own_key("wkv."))
    return header.architecture in RECURRENT | HYBRID or any(
        key.startswith(states) for key in header.metadata
    )


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
    for name in DIVISORS:
        number = header.integer(header.own_key(name))
        if number == 0 and (header.architecture, name) not in NEVER_DIVIDES:
            raise _contradiction(header, f"has 0 for {shown(header.own_key(name))}")
    scaling = header.text(header.own_key("rope.scaling.type"))
    if scaling is not None and scaling not in ROPE_SCALINGS:
        raise _contradiction(header, f"has the unknown position scaling {shown(scaling)}")


# Types that no kernel multiplies with, and the tables of numbers that may have them.
NOT_WEIGHTS = frozenset({"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"})
MAPPED_ALIGNMENT_BYTES = 32  # TENSOR_ALIGNMENT of ggml, asserted for a mapped file
NUMBER_TABLES = ("tid2eid", "d2t")
ADDED_AS_F32 = ("_norm.weight", ".ssm_a", ".ssm_d", ".ssm_conv1d.weight")


def usable_facts(header: Header) -> ModelFacts:
    """ModelError, in one sentence, for a model that libllama would not load or not survive."""
    check_kind(header)
    layers = check_sizes(header)
    _check_blocks(header)
    for tensor in header.tensors:
        _check_tensor(header, tensor)
    return ModelFacts.of(header, check_vocabulary(header), layers)


def check_usable(header: Header) -> None:
    """As `usable_facts`, without the facts."""
    usable_facts(header)


def _check_blocks(header: Header) -> None:
    """Every layer below the draft heads has weights, and none are of layers beyond the last."""
    found = {int(t.name.split(".")[1]) for t in header.tensors if _is_in_block(t)}
    n_found = max(found, default=-1) + 1
    n_blocks = header.integer(header.own_key("block_count")) or 0
    if n_found > n_blocks:
        raise header.fail(f"has weights of {n_found} layers but says {n_blocks}; {AGAIN}")
    n_layers = n_blocks - (header.integer(header.own_key("nextn_predict_layers")) or 0)
    missing = next((i for i in range(n_layers) if i not in found), None)
    if missing is not None and header.architecture not in SKIPPING:
        raise header.fail(f"has no weights for layer {missing} of {n_layers}; {AGAIN}")


def _is_in_block(tensor: Tensor) -> bool:
    start, _, rest = tensor.name.partition(".")
    return start == "blk" and rest.partition(".")[0].isdecimal()


def _check_tensor(header: Header, tensor: Tensor) -> None:
    problem = _type_problem(tensor)
    if tensor.offset_bytes % MAPPED_ALIGNMENT_BYTES:
        problem = f"at byte {tensor.offset_bytes}, no multiple of {MAPPED_ALIGNMENT_BYTES}"
    if problem:
        raise header.fail(f"has the weights {shown(tensor.name)} {problem}; {AGAIN}")


def _type_problem(tensor: Tensor) -> str | None:
    kind, name = tensor.type.name, tensor.name
    if kind in NOT_WEIGHTS:
        is_table = any(table in name for table in NUMBER_TABLES)
        return None if is_table else f"of the type {kind}, which nothing multiplies with"
    is_vector = len(tensor.shape) < 2 and "gate_inp" not in name
    if kind != "F32" and (is_vector or name.endswith(ADDED_AS_F32)):
        return f"of the type {kind}, and these can be F32 only"
    return None
