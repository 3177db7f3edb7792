"""What a pass takes besides its arithmetic: of thin random models of two depths the intercept and
the slope, and the way to a device's memory and back.

`measured_way` says how far a device is: the round trip of a few bytes to its memory, and the bytes
a second of many. A hidden row travels this way where the next layer is on another device, through
the processor's memory. A worker answers a read only after what was written before it has arrived.
"""

import ctypes
import os
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from localspec.engine.base import EngineConfig
from localspec.engine.llama.binding import declare, initialise, libggml
from localspec.engine.llama.devices import chosen_handle
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.probe import ProbeSetting
from localspec.engine.timing import Timer, shortest
from localspec.errors import EngineError
from localspec.hardware.probe_results import Curve, Link
from localspec.model.synthetic import Shape, write_random_model

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


_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_size_t
declare(
    ("ggml_init", _POINTER, _InitParams),
    ("ggml_free", None, _POINTER),
    ("ggml_new_tensor_1d", _POINTER, _POINTER, ctypes.c_int, ctypes.c_int64),
    ("ggml_backend_dev_buffer_type", _POINTER, _POINTER),
    ("ggml_backend_alloc_ctx_tensors_from_buft", _POINTER, _POINTER, _POINTER),
    ("ggml_backend_buffer_free", None, _POINTER),
    ("ggml_backend_tensor_set", None, _POINTER, _POINTER, _SIZE, _SIZE),
    ("ggml_backend_tensor_get", None, _POINTER, _POINTER, _SIZE, _SIZE),
)


OVERHEAD_WIDTHS = (1, 2, 4, 8, 16, 32, 128)
OVERHEAD_ROUNDS = 2
THIN = Shape(n_embd=128, n_heads=2, n_kv_heads=2, n_ff=128)
THIN_LAYERS = (4, 36)
HOP_ROUNDS = 5
_PIECE_BYTES = 1 << 17


def overhead(setting: ProbeSetting) -> tuple[Curve, Curve]:
    """Seconds of a pass without layers, and of a layer without weights, by width."""
    n_few, n_many = THIN_LAYERS
    with loaded(setting, THIN, n_few) as few, loaded(setting, THIN, n_many) as many:
        for timer in (few, many):
            compile_passes(timer, [(width, 0) for width in OVERHEAD_WIDTHS])
        places = [(timer, width) for width in OVERHEAD_WIDTHS for timer in (few, many)]
        times = shortest(places, lambda each: each[0].median(each[1], 0), OVERHEAD_ROUNDS)
        short, long = (
            undisturbed({width: times[timer, width] for width in OVERHEAD_WIDTHS})
            for timer in (few, many)
        )
    layers = {w: max(0.0, (long[w] - short[w]) / (n_many - n_few)) for w in OVERHEAD_WIDTHS}
    passes = {w: max(0.0, short[w] - n_few * layers[w]) for w in OVERHEAD_WIDTHS}
    return Curve(passes.items()), Curve(layers.items())


def undisturbed(times: dict[int, float]) -> dict[int, float]:
    """A wider pass does more: what a narrower one took longer, other programs took."""
    widths = sorted(times, reverse=True)
    return dict(zip(widths, accumulate((times[width] for width in widths), min), strict=True))


def least(one: tuple[Curve, Curve], other: tuple[Curve, Curve]) -> tuple[Curve, Curve]:
    """Passes and layers, each of the measurement in which a layer took less at that width."""
    points = [
        (width, min((a[1].at(width), a[0].at(width)) for a in (one, other)))
        for width in OVERHEAD_WIDTHS
    ]
    return Curve((w, each[1]) for w, each in points), Curve((w, each[0]) for w, each in points)


def way_to(setting: ProbeSetting, fixed: tuple[Curve, Curve]) -> Link:
    """The way to a device, and what a pass with layers on both sides takes longer.

    The deeper thin model's layers are too short to hide anything; its output matrix is on the
    device. It is compared with itself with all layers there, in turns. What the layers and passes
    of this side take is taken off.
    """
    n_half = max(THIN_LAYERS) // 2
    here, there = overhead(replace(setting, n_gpu_layers=0)), fixed
    mixed = replace(setting, n_gpu_layers=n_half + 1)
    with loaded(setting, THIN, 2 * n_half) as whole, loaded(mixed, THIN, 2 * n_half) as half:
        for timer in (whole, half):
            compile_passes(timer, [(1, 0)])
        # The least, as of all overheads: a processor that fell asleep while the other side
        # computed wakes late, which doubles some medians of a thin model and no others.
        times = shortest((whole, half), lambda each: each.median(1, 0), 2 * HOP_ROUNDS)
    elsewhere_s = here[0].at(1) + n_half * (here[1].at(1) - there[1].at(1))
    hop_s = max(0.0, times[half] - times[whole] - elsewhere_s)
    return Link(*measured_way((*setting.device, *setting.workers)), hop_s)


def compile_passes(timer: Timer, places: list[tuple[int, int]]) -> None:
    """Each pass once untimed on a GPU: its driver compiles a program at its first use."""
    if timer.context.engine.config.settings.gpu_layers:
        for place in places:
            timer.seconds(*place)


@contextmanager
def loaded(
    setting: ProbeSetting,
    shape: Shape,
    n_layers: int,
    weight_type: str = "F16",
    kv: tuple[str, str] = ("f16", "f16"),
    flash: bool | None = None,
) -> Generator[Timer]:
    """A random model on disk and in the engine, until the end of the block."""
    attention = {"kv_k": kv[0], "kv_v": kv[1], "flash_attn": switch(flash)}
    with written(shape, n_layers, weight_type) as path, opened(path, setting, **attention) as timer:
        yield timer


def switch(flash: bool | None) -> str:
    """The setting of a kernel."""
    return "auto" if flash is None else "on" if flash else "off"


@contextmanager
def written(shape: Shape, n_layers: int, weight_type: str = "F16") -> Generator[Path]:
    """A random model on disk, until the end of the block."""
    with TemporaryDirectory(prefix="localspec-") as folder:
        path = Path(folder) / "probe.gguf"
        write_random_model(path, replace(shape, n_layers=n_layers), weight_type)
        yield path


@contextmanager
def opened(path: Path, setting: ProbeSetting, **settings: Any) -> Generator[Timer]:
    """A model's file in the engine, until the end of the block."""
    if setting.is_mapped:
        _read_again(path)
    config = EngineConfig.of(
        path,
        ctx=2048,
        threads=setting.n_threads,
        gpu_layers=setting.n_gpu_layers,
        repack=setting.repack,
        mmap=setting.is_mapped,
        device=setting.device or setting.workers,
        workers=setting.workers,
        **settings,
    )
    engine = LlamaEngine(config)
    try:
        yield Timer(engine.context())
    finally:
        engine.close()


def _read_again(path: Path) -> None:
    """In small pages, as most systems cache a user's file: Linux caches what is written at once in
    large ones since 6.16, whose mapping is as fast as memory that was filled."""
    if not hasattr(os, "posix_fadvise"):
        return
    with path.open("r+b", buffering=0) as file:
        os.fsync(file)
        for advice in (os.POSIX_FADV_DONTNEED, os.POSIX_FADV_RANDOM):
            os.posix_fadvise(file.fileno(), 0, 0, advice)
        while file.read(_PIECE_BYTES):
            pass
