"""What the engine says of itself: devices and features, for `doctor`."""

import ctypes
from dataclasses import dataclass

from localspec.engine.llama.binding import C, initialise, libggml


@dataclass(frozen=True, slots=True)
class EngineDevice:
    """A device of ggml's list; memory in bytes, None where the backend does not tell."""

    name: str
    description: str
    free_bytes: int | None
    total_bytes: int | None


def engine_devices() -> list[EngineDevice]:
    """Every device that this build can compute on."""
    initialise()
    _declare()
    return [
        _device(libggml.ggml_backend_dev_get(i)) for i in range(libggml.ggml_backend_dev_count())
    ]


def engine_features() -> str:
    """The build's instruction sets and options, in the engine's own words."""
    initialise()
    return C.llama_print_system_info().decode("utf-8", "replace").strip(" |")


def _device(device: int) -> EngineDevice:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    libggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    return EngineDevice(
        name=libggml.ggml_backend_dev_name(device).decode(),
        description=libggml.ggml_backend_dev_description(device).decode(),
        free_bytes=free.value or None,
        total_bytes=total.value or None,
    )


def _declare() -> None:
    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    libggml.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    libggml.ggml_backend_dev_get.restype = ctypes.c_void_p
    libggml.ggml_backend_dev_memory.argtypes = [ctypes.c_void_p] + [
        ctypes.POINTER(ctypes.c_size_t)
    ] * 2
    for name in ("ggml_backend_dev_name", "ggml_backend_dev_description"):
        function = getattr(libggml, name)
        function.argtypes = [ctypes.c_void_p]
        function.restype = ctypes.c_char_p
