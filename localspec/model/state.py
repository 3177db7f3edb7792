"""The state that recurrent layers keep instead of a cache: its size does not grow with the context.

    Mamba: (d_conv - 1) (d_inner + 2 n_groups d_state) + d_state d_inner numbers a layer
    RWKV:  n_shifts n_embd + n_embd head_size

all in F32. Source: `n_embd_r` and `n_embd_s` in src/llama-hparams.cpp of llama.cpp.
"""

from localspec.model.header import Header
from localspec.model.layers import Layer

FLOAT_BYTES = 4
RWKV_SHIFTS = 2


def state_bytes(header: Header, layers: tuple[Layer, ...]) -> int | None:
    """Bytes of one sequence; 0 without recurrent layers, None where the header does not say."""
    n_layers = sum(layer.is_recurrent for layer in layers)
    numbers = _numbers(header) if n_layers else 0
    return None if numbers is None else FLOAT_BYTES * n_layers * numbers


def _numbers(header: Header) -> int | None:
    def size(name: str) -> int:
        return header.integer(header.own_key(name)) or 0

    head_size, n_embd = size("wkv.head_size"), size("embedding_length")
    if head_size:
        return (size("token_shift_count") or RWKV_SHIFTS) * n_embd + n_embd * head_size
    inner, n_state, n_conv = size("ssm.inner_size"), size("ssm.state_size"), size("ssm.conv_kernel")
    if inner:
        channels = inner + 2 * size("ssm.group_count") * n_state
        return max(0, n_conv - 1) * channels + n_state * inner
    short = size("shortconv.l_cache")
    return n_embd * (short - 1) if short else None
