"""Keep the experts of a layer on the processor while the rest of the layer is on the GPU.

Experts are most of a mixture's bytes and few of them are used by a token, so they are what to leave
out where not everything fits; llama.cpp's own `--n-cpu-moe` does the same with the same pattern.
"""

import ctypes
from typing import Any

from localspec.engine.llama.binding import libggml

PATTERN = r"blk\.{}\.ffn_(up|down|gate|gate_up)_(ch|)exps"
"""LLM_FFN_EXPS_REGEX of llama.cpp's common/common.h, in one layer."""


class _Override(ctypes.Structure):
    """struct llama_model_tensor_buft_override."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def experts_on_cpu(n_layers: int) -> Any:
    """The engine's list of overrides for the first `n_layers`, to be kept alive; None for none."""
    if n_layers <= 0:
        return None
    libggml.ggml_backend_cpu_buffer_type.restype = ctypes.c_void_p
    cpu = libggml.ggml_backend_cpu_buffer_type()
    overrides = (_Override * (n_layers + 1))()
    for layer in range(n_layers):
        overrides[layer] = _Override(PATTERN.format(layer).encode(), cpu)
    return overrides
