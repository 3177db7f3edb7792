"""The KV cache: what it takes, and which types it can have.

It holds keys and values of every token of the context, by layer:

    bytes = sum over layers of cells * (row(type_k, n_keys) + row(type_v, n_values))

with cells the context padded to 256, or the window's if windowed layers keep no more than they
need. Source: src/llama-kv-cache.cpp and -iswa.cpp of llama.cpp. Flash attention is assumed:
without it values of layers of different size are padded to the largest.
"""

from localspec.errors import UserError
from localspec.model.ggml_types import BY_NAME, GgmlType
from localspec.model.layers import Layer

CACHE_TYPES: dict[str, GgmlType] = {
    name: BY_NAME[name.upper()]
    for name in ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")
}
CELLS_STEP = 256


def cache_type(name: str) -> GgmlType:
    """The type of a KV cache by its name on the command line; UserError if there is none of it."""
    kind = CACHE_TYPES.get(name.lower())
    if kind is None:
        raise UserError(f"KV type {name!r} does not exist; choose one of {', '.join(CACHE_TYPES)}")
    return kind


def token_bytes(layer: Layer, type_k: GgmlType, type_v: GgmlType) -> int:
    """What one token adds to the cache of a layer."""
    return type_k.n_bytes(layer.n_keys) + type_v.n_bytes(layer.n_values)


def cache_bytes(
    layers: tuple[Layer, ...],
    types: tuple[GgmlType, GgmlType],
    n_ctx: int,
    n_windowed: int | None,
) -> int:
    """Of `n_ctx` tokens, of which windowed layers keep `n_windowed`; None: all."""
    n_cells = _padded(n_ctx)
    n_window_cells = n_cells if n_windowed is None else _padded(min(n_cells, n_windowed))
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


def _padded(n_tokens: int) -> int:
    return -(-n_tokens // CELLS_STEP) * CELLS_STEP
