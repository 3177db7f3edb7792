"""The devices that this build can compute on, as ggml lists them, and the ones given to libllama.

ggml is asked through libllama: a wheel holds libggml under three names, and a copy that libllama
does not use has a list of its own.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

from localspec.engine.backends import marked
from localspec.engine.llama.binding import C, declare, initialise, libggml
from localspec.engine.workers import Worker, addresses_of
from localspec.errors import EngineError
from localspec.hardware.machine import DeviceKind, Reported, backend_of, computing
from localspec.settings import Settings

_KINDS: dict[int, DeviceKind] = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accel"}
"""enum ggml_backend_dev_type."""


def reported() -> list[Reported]:
    """Every device that this build can compute on, in ggml's order, with those of added workers."""
    initialise()
    return marked([_reported(handle) for handle in _handles()])


def device_list(settings: Settings) -> Any:
    """What llama_model_params.devices points at; None: libllama takes all GPUs.

    Without layers for a GPU the list is empty. A GPU that libllama knows of gets the processor's
    weights into its own host memory, which no repacked kernel reads, and every wide batch.
    Keep the array alive until the model is loaded.
    """
    if settings.gpu_layers == 0:
        return _array([])
    known = reported()
    is_libllamas = not any(device.backend == "rpc" or device.is_twin for device in known)
    if not settings.device and is_libllamas:
        return None
    handles = dict(zip((device.name for device in known), _handles(), strict=True))
    return _array([handles[device.name] for device in _chosen(known, settings)])


def has_layers_elsewhere(settings: Settings) -> bool:
    """Whether any device but the processor may compute layers."""
    return settings.gpu_layers != 0 and bool(_chosen(reported(), settings))


def split(settings: Settings) -> Any:
    """What llama_model_params.tensor_split points at: the shares that are set, or by memory where a
    worker may not use all of its own; None: libllama shares layers out by what is free."""
    if settings.shares:
        return _floats([float(share) for share in settings.shares])
    limits = {w.address: w for w in map(Worker.of, settings.workers) if w.limit_bytes is not None}
    if not limits:
        return None
    shares: list[float] = []
    for device in _chosen(reported(), settings):
        free = device.free_bytes or 0
        limit = limits.get(device.name)
        shares.append(float(limit.limited(free) or 0) if limit else float(free))
    return _floats(shares)


def _floats(values: Sequence[float]) -> Any:
    """As many as libllama reads, the rest 0."""
    found = (ctypes.c_float * C.llama_max_devices())()
    found[: len(values)] = values
    return found


def chosen_handle(names: Sequence[str]) -> int:
    """ggml's handle of the first of the named devices, or of the first that layers go to.

    Raises EngineError where there is none.
    """
    known = reported()
    handles = dict(zip((device.name for device in known), _handles(), strict=True))
    used = names or [device.name for device in computing(known)]
    found = next((handles[name] for name in used if name in handles), None)
    if found is None:
        raise EngineError("the engine has no such device: `localspec doctor` lists them")
    return found


def _chosen(known: Sequence[Reported], settings: Settings) -> list[Reported]:
    return computing(known, settings.device, addresses_of(settings.workers))


def _array(handles: Sequence[int]) -> Any:
    """Ended by a null pointer."""
    return (ctypes.c_void_p * (len(handles) + 1))(*handles, None)


def _handles() -> list[int]:
    return [libggml.ggml_backend_dev_get(i) for i in range(libggml.ggml_backend_dev_count())]


def _reported(handle: int) -> Reported:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    libggml.ggml_backend_dev_memory(handle, ctypes.byref(free), ctypes.byref(total))
    registry = libggml.ggml_backend_dev_backend_reg(handle)
    backend = backend_of(_text(libggml.ggml_backend_reg_name(registry)))
    name = _text(libggml.ggml_backend_dev_name(handle))
    description = _text(libggml.ggml_backend_dev_description(handle))
    return Reported(
        # ggml counts workers as RPC0, RPC1 in the order of a process; their address stays.
        name=description if backend == "rpc" else name,
        description=description,
        total_bytes=total.value or None,
        free_bytes=free.value or None,
        kind=_KINDS.get(libggml.ggml_backend_dev_type(handle), "accel"),
        backend=backend,
        card=_card(handle),
    )


class _Properties(ctypes.Structure):
    """struct ggml_backend_dev_props, without its capabilities, which come last."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("description", ctypes.c_char_p), ("free", ctypes.c_size_t),
        ("total", ctypes.c_size_t), ("kind", ctypes.c_int), ("id", ctypes.c_char_p),
        ("capabilities", ctypes.c_byte * 64),
    )  # fmt: skip


def _card(handle: int) -> str | None:
    """The PCI address where the backend tells it."""
    found = _Properties()
    libggml.ggml_backend_dev_get_props(handle, ctypes.byref(found))
    return _text(found.id).lower() or None


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", "replace")


_POINTER, _TEXT, _SIZE = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
declare(
    ("ggml_backend_dev_count", _SIZE),
    ("ggml_backend_dev_get", _POINTER, _SIZE),
    ("ggml_backend_dev_name", _TEXT, _POINTER),
    ("ggml_backend_dev_description", _TEXT, _POINTER),
    ("ggml_backend_dev_memory", None, _POINTER, *[ctypes.POINTER(_SIZE)] * 2),
    ("ggml_backend_dev_type", ctypes.c_int, _POINTER),
    ("ggml_backend_dev_get_props", None, _POINTER, _POINTER),
    ("ggml_backend_dev_backend_reg", _POINTER, _POINTER),
    ("ggml_backend_reg_name", _TEXT, _POINTER),
    ("ggml_backend_reg_by_name", _POINTER, _TEXT),
    ("ggml_backend_reg_get_proc_address", _POINTER, _POINTER, _TEXT),
    ("ggml_backend_register", None, _POINTER),
    ("ggml_backend_dev_by_name", _POINTER, _TEXT),
    ("ggml_backend_cpu_buffer_type", _POINTER),
)
