"""How far a device is: the round trip of a few bytes to its memory, and the bytes a second of many.

A hidden row travels this way where the next layer is on another device, through the processor's
memory. A worker answers a read only after what was written before it has arrived.
"""

import ctypes
from collections.abc import Sequence
from statistics import median
from time import perf_counter

from localspec.engine.llama.binding import initialise, libggml
from localspec.engine.llama.devices import chosen_handle
from localspec.errors import EngineError

SMALL_BYTES, LARGE_BYTES = 64, 4 << 20
N_SMALL, N_LARGE = 51, 5
_F32 = 0


class _InitParams(ctypes.Structure):
    """struct ggml_init_params."""

    _fields_ = (("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


def measured_way(names: Sequence[str]) -> tuple[float, float]:
    """Seconds of a round trip, and bytes a second one way, to the first of these devices.

    Raises EngineError where it gives no memory.
    """
    initialise()
    context = libggml.ggml_init(_InitParams(1 << 16, None, no_alloc=True))
    tensor = libggml.ggml_new_tensor_1d(context, _F32, LARGE_BYTES // 4)
    kind = libggml.ggml_backend_dev_buffer_type(chosen_handle(names))
    buffer = libggml.ggml_backend_alloc_ctx_tensors_from_buft(context, kind)
    if not buffer:
        libggml.ggml_free(context)
        raise EngineError(f"{names[0] if names else 'the GPU'} gives no memory to be measured with")
    try:
        trip_s = median(_there_and_back_s(tensor, SMALL_BYTES) for _ in range(N_SMALL))
        whole_s = min(_there_and_back_s(tensor, LARGE_BYTES) for _ in range(N_LARGE))
    finally:
        libggml.ggml_backend_buffer_free(buffer)
        libggml.ggml_free(context)
    return trip_s, 2 * LARGE_BYTES / max(1e-9, whole_s - trip_s)


def _there_and_back_s(tensor: int, n_bytes: int) -> float:
    data = ctypes.create_string_buffer(n_bytes)
    started = perf_counter()
    libggml.ggml_backend_tensor_set(tensor, data, 0, n_bytes)
    libggml.ggml_backend_tensor_get(tensor, data, 0, n_bytes)
    return perf_counter() - started


def _declare() -> None:
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name, result, *arguments in (
        ("ggml_init", pointer, _InitParams),
        ("ggml_free", None, pointer),
        ("ggml_new_tensor_1d", pointer, pointer, ctypes.c_int, ctypes.c_int64),
        ("ggml_backend_dev_buffer_type", pointer, pointer),
        ("ggml_backend_alloc_ctx_tensors_from_buft", pointer, pointer, pointer),
        ("ggml_backend_buffer_free", None, pointer),
        ("ggml_backend_tensor_set", None, pointer, pointer, size, size),
        ("ggml_backend_tensor_get", None, pointer, pointer, size, size),
    ):
        function = getattr(libggml, name)
        function.restype, function.argtypes = result, arguments


_declare()
