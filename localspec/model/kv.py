"""The KV cache: what it takes, and which types it can have.

It holds keys and values of every token of the context, by layer:

    bytes = sum over layers of cells * (row(type_k, n_keys) + row(type_v, n_values))

with cells the context padded to 256, or the window's if windowed layers keep no more than they
need. Source: src/llama-kv-cache.cpp and -iswa.cpp of llama.cpp. Flash attention is assumed:
without it values of layers of different size are padded to the largest.

Recurrent layers keep a state instead, whose size does not grow with the context, in F32 numbers:

    Mamba: (d_conv - 1) (d_inner + 2 n_groups d_state) + d_state d_inner a layer
    RWKV:  n_shifts n_embd + n_embd head_size
    KDA:   3 (d_conv - 1) n_heads head_size + n_heads head_size^2
    LFM2:  (l_cache - 1) n_embd

Qwen3-Next and its like store theirs as Mamba does. Source: `n_embd_r` and `n_embd_s` in
src/llama-hparams.cpp of llama.cpp.
"""

from localspec.errors import UserError
from localspec.gguf.header import Header
from localspec.gguf.types import BY_NAME, GgmlType
from localspec.model.layers import HYBRID, UNUSUAL_CACHE, Layer, has_state_keys
from localspec.settings import CACHE_TYPES, Attention

_TYPES = {name: BY_NAME[name.upper()] for name in CACHE_TYPES}
CELLS_STEP = 256


def cache_type(name: str) -> GgmlType:
    """The type of a KV cache by its name on the command line; UserError for an unknown one."""
    kind = _TYPES.get(name.lower())
    if kind is None:
        raise UserError(f"KV type {name!r} does not exist; choose one of {', '.join(CACHE_TYPES)}")
    return kind


def types_of(attention: Attention) -> tuple[GgmlType, GgmlType]:
    """The types of keys and of values; UserError for an unknown one."""
    return cache_type(attention.kv_k), cache_type(attention.kv_v)


def token_bytes(layer: Layer, type_k: GgmlType, type_v: GgmlType) -> int:
    """What one token adds to the cache of a layer."""
    return type_k.n_bytes(layer.n_keys) + type_v.n_bytes(layer.n_values)


def cache_bytes(
    layers: tuple[Layer, ...], types: tuple[GgmlType, GgmlType], n_ctx: int, n_windowed: int | None
) -> int:
    """Of `n_ctx` tokens, of which windowed layers keep `n_windowed`; None: all."""
    n_cells = padded_cells(n_ctx)
    n_window_cells = n_cells if n_windowed is None else padded_cells(min(n_cells, n_windowed))
    return sum(
        (n_cells if layer.window_tokens is None else n_window_cells) * token_bytes(layer, *types)
        for layer in layers
    )


def block_problem(layers: tuple[Layer, ...], what: str, kind: GgmlType) -> str | None:
    """Why the keys (or values) of a model cannot be of this type, or None."""
    for layer in layers:
        size = layer.key_size if what == "key" else layer.value_size
        if layer.has_cache and size % kind.block_elements:
            return (
                f"a {kind.name} {what} cache has blocks of {kind.block_elements} numbers, which"
                f" do not divide this model's {what}s of {size}; choose f16, bf16 or f32"
            )
    return None


def padded_cells(n_tokens: int) -> int:
    """Cells that llama.cpp gives a context of `n_tokens`: whole blocks."""
    return -(-n_tokens // CELLS_STEP) * CELLS_STEP


FLOAT_BYTES = 4
RWKV_SHIFTS = 2
KDA_CONVOLUTIONS, KDA_KERNEL = 3, 4


def state_bytes(header: Header, layers: tuple[Layer, ...]) -> int | None:
    """Bytes of one sequence; 0 without recurrent layers, None where the header does not say."""
    n_layers = sum(layer.is_recurrent for layer in layers)
    if not n_layers:
        # It is known to be, or says what only such models say, and not in which layers.
        return None if header.architecture in HYBRID or has_state_keys(header) else 0
    if header.architecture in UNUSUAL_CACHE:
        return None
    numbers = _numbers(header, max(layer.n_heads for layer in layers))
    return None if numbers is None else FLOAT_BYTES * n_layers * numbers


def _numbers(header: Header, n_heads: int) -> int | None:
    def size(name: str) -> int:
        return max(0, header.own_integer(name) or 0)

    n_embd, n_conv = size("embedding_length"), size("ssm.conv_kernel")
    if head := size("wkv.head_size"):
        return (size("token_shift_count") or RWKV_SHIFTS) * n_embd + n_embd * head
    if length := size("shortconv.l_cache"):
        return n_embd * (length - 1)
    if head := size("kda.head_dim"):
        kernel = (n_conv or KDA_KERNEL) - 1
        return n_heads * head * (KDA_CONVOLUTIONS * kernel + head)
    if inner := size("ssm.inner_size"):
        n_state = size("ssm.state_size")
        channels = inner + 2 * size("ssm.group_count") * n_state
        return max(0, n_conv - 1) * channels + n_state * inner
    return None
