"""The state that recurrent layers keep instead of a cache: its size does not grow with the context.

    Mamba: (d_conv - 1) (d_inner + 2 n_groups d_state) + d_state d_inner numbers a layer
    RWKV:  n_shifts n_embd + n_embd head_size
    KDA:   3 (d_conv - 1) n_heads head_size + n_heads head_size^2
    LFM2:  (l_cache - 1) n_embd

all in F32. Source: `n_embd_r` and `n_embd_s` in src/llama-hparams.cpp of llama.cpp. Qwen3-Next and
its like store theirs as Mamba does.
"""

from localspec.model.architectures import HYBRID, UNUSUAL_CACHE
from localspec.model.header import Header
from localspec.model.layers import Layer

FLOAT_BYTES = 4
RWKV_SHIFTS = 2
KDA_CONVOLUTIONS, KDA_KERNEL = 3, 4


def state_bytes(header: Header, layers: tuple[Layer, ...]) -> int | None:
    """Bytes of one sequence; 0 without recurrent layers, None where the header does not say."""
    n_layers = sum(layer.is_recurrent for layer in layers)
    if not n_layers:
        return None if _may_be_recurrent(header) else 0
    if header.architecture in UNUSUAL_CACHE:
        return None
    numbers = _numbers(header, layers[0].n_heads)
    return None if numbers is None else FLOAT_BYTES * n_layers * numbers


def _may_be_recurrent(header: Header) -> bool:
    """It is known to be, or says what only such models say, and not in which layers."""
    states = (header.own_key("ssm."), header.own_key("wkv."))
    return header.architecture in HYBRID or any(key.startswith(states) for key in header.metadata)


def _numbers(header: Header, n_heads: int) -> int | None:
    def size(name: str) -> int:
        return max(0, header.integer(header.own_key(name)) or 0)

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
