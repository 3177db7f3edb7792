"""A configuration to libllama's own parameter structures, a model and a context.

`cpu_moe` keeps the experts of a layer on the processor and the rest of it on the GPU. Experts are
most of a mixture's bytes and each token uses few of them, so they go first where memory is short;
llama.cpp's `--n-cpu-moe` does the same with the same pattern.
"""

import ctypes
import os
import sys
import threading
from time import perf_counter
from typing import Any

from localspec.engine.base import EngineConfig
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.llama.binding import (
    C,
    Handle,
    disband,
    engine_log,
    initialise,
    libggml,
    quietly,
)
from localspec.engine.llama.devices import device_list, split
from localspec.engine.llama.pages import LargePages, large_caches
from localspec.engine.llama.worker import add_workers
from localspec.engine.workers import addresses_of
from localspec.errors import EngineError, ModelError
from localspec.model.kv import cache_type
from localspec.notify import Progress

PATTERN = r"blk\.{}\.ffn_(up|down|gate|gate_up)_(ch|)exps"
"""LLM_FFN_EXPS_REGEX of llama.cpp's common/common.h, in one layer."""


class _Override(ctypes.Structure):
    """struct llama_model_tensor_buft_override."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def experts_on_cpu(n_layers: int) -> Any:
    """The engine's list of overrides for the first `n_layers`, to be kept alive; None for none."""
    if n_layers <= 0:
        return None
    cpu = libggml.ggml_backend_cpu_buffer_type()
    overrides = (_Override * (n_layers + 1))()
    for layer in range(n_layers):
        overrides[layer] = _Override(PATTERN.format(layer).encode(), cpu)
    return overrides


NO_ABORT = C.ggml_abort_callback()
"""The empty callback, which removes one."""

_FLASH_ATTENTION = {
    "auto": C.LLAMA_FLASH_ATTN_TYPE_AUTO,
    "on": C.LLAMA_FLASH_ATTN_TYPE_ENABLED,
    "off": C.LLAMA_FLASH_ATTN_TYPE_DISABLED,
}


def load_model(config: EngineConfig, interrupt: Interrupt, on_progress: Progress | None) -> Handle:
    """Map or read the weights; raises ModelError with the engine's reason, or Interrupted."""

    pages, is_filling = LargePages(), False

    def report(fraction: float, _: int | None) -> bool:
        nonlocal is_filling
        if not is_filling:
            is_filling = True
            pages.ask()
        if on_progress:
            on_progress(fraction)
        return not interrupt.requested

    params, settings = C.llama_model_default_params(), config.settings
    params.n_gpu_layers = settings.gpu_layers
    add_workers(addresses_of(settings.workers))
    devices, shares = device_list(settings), split(settings)
    params.devices = devices and ctypes.addressof(devices)
    params.tensor_split = shares and ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
    params.load_mode = C.LLAMA_LOAD_MODE_MMAP if settings.mmap else C.LLAMA_LOAD_MODE_NONE
    params.use_extra_bufts = settings.repack
    # Layers of the processor beside a GPU: in the GPU's host memory no repacked kernel reads them.
    # `repack` off leaves them there, for a GPU that computes wide batches with them.
    params.no_host = settings.repack and settings.gpu_layers > 0
    params.load_mtp = settings.load_mtp
    on_cpu = experts_on_cpu(settings.cpu_moe)
    params.tensor_buft_overrides = on_cpu and ctypes.addressof(on_cpu)
    callback = C.llama_progress_callback(report)
    params.progress_callback = callback
    path = os.fsencode(config.model)
    with quietly():
        model = C.llama_model_load_from_file(path, params)
    if not model and not interrupt.requested:
        engine_log.clear()
        model = C.llama_model_load_from_file(path, params)
    del callback, on_cpu, devices, shares
    if interrupt.requested:
        if model:
            free(model=model)
        raise Interrupted
    if not model:
        raise ModelError(
            f"{config.model.name} does not load: {engine_log.reason()}{_advice(config)}"
        )
    plan_anew()
    return model


def create_context(config: EngineConfig, model: Handle, **changes: Any) -> Handle:
    """Allocate the cache and the compute buffers; raises EngineError with the engine's reason.

    `changes` are parameters of libllama's own.
    """
    params, settings = C.llama_context_default_params(), config.settings
    params.n_ctx = config.n_ctx * settings.n_sequences
    params.n_batch = params.n_ubatch = min(settings.ubatch, config.n_ctx)
    params.n_seq_max = settings.n_sequences
    params.kv_unified = settings.kv_unified
    params.n_rs_seq = settings.n_rs_seq
    # Output buffers take n_vocab floats a row: ask for the rows that are used, not for n_batch of
    # them.
    params.n_outputs_max = config.n_outputs
    params.n_threads = config.n_threads
    params.n_threads_batch = config.n_threads_batch
    params.type_k = cache_type(settings.kv_k).id
    params.type_v = cache_type(settings.kv_v).id
    params.flash_attn_type = _FLASH_ATTENTION[settings.flash_attn]
    params.op_offload = settings.op_offload
    params.swa_full = False
    for name, value in changes.items():
        setattr(params, name, value)
    with large_caches():
        context = C.llama_init_from_model(model, params)
    if not context:
        engine_log.clear()
        context = C.llama_init_from_model(model, params)
    if not context:
        raise EngineError(
            f"no context of {config.n_ctx:,} tokens: {engine_log.reason()}{_advice(config)}"
        )
    if settings.workers:
        plan_anew()
        _contexts.add(context)
    return context


def _advice(config: EngineConfig) -> str:
    return "; try fewer --gpu-layers" if config.settings.gpu_layers else ""


# Contexts with layers on workers plan anew when memory of another one comes or goes. A worker
# forgets the graph that it computed last as soon as any buffer on it is freed
# (`rpc_server::free_buffer` of ggml-rpc.cpp in 0.5.0). The client does not know: it asks for the
# same graph again, the worker hangs up, and libllama ends the process. A context that plans anew
# sends the whole graph.
_contexts: set[Handle] = set()


def free(context: Handle | None = None, model: Handle | None = None) -> None:
    """A context and weights, wherever they are."""
    if context:
        _contexts.discard(context)
        C.llama_free(context)
    if model:
        C.llama_model_free(model)
    plan_anew()


def plan_anew() -> None:
    """Let no context ask for the graph of its last pass again.

    No control vector is what each has; to say so makes libllama plan before the next pass, which
    takes milliseconds.
    """
    for context in _contexts:
        C.llama_set_adapter_cvec(context, None, 0, 0, 0, 0)


_SWITCH_S = 1e-4
"""After which Python hands its lock over, meanwhile."""


class EarlyWeights:
    """A model and its context, loaded by a thread while this one imports what will use them:
    `taken` hands them over, `drop` frees them unless they were taken.

    libllama lets go of Python's lock while it loads, so that both take the time of one. What tells
    of progress asks for the lock at each tensor, and Python hands it over after five milliseconds:
    a quarter of a second of small files, of which nobody is told.
    """

    def __init__(
        self, config: EngineConfig, interrupt: Interrupt, on_progress: Progress | None
    ) -> None:
        self.config = config
        self.load_s = 0.0
        self._interrupt, self._on_progress = interrupt, on_progress
        self._model: Handle | None = None
        self._context: Handle | None = None
        self._error: BaseException | None = None
        self._usual_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._thread = threading.Thread(target=self._load, name="loading")
        self._thread.start()

    def taken(self) -> tuple[Handle, Handle]:
        """The model and its context, once they are there. Raises what loading raised."""
        self._join()
        model, context, self._model, self._context = self._model, self._context, None, None
        if self._error or not model or not context:
            free(context, model)
            raise self._error or AssertionError("loading ended without a word")
        return model, context

    def drop(self) -> None:
        """End the loading, and free what there is; nothing if it was taken."""
        if self._thread.is_alive():
            self._interrupt.request()
        self._join()
        model, context, self._model, self._context = self._model, self._context, None, None
        free(context, model)

    def _join(self) -> None:
        self._thread.join()
        sys.setswitchinterval(self._usual_s)

    def _load(self) -> None:
        started = perf_counter()
        try:
            initialise()
            self._model = load_model(self.config, self._interrupt, self._on_progress)
            self.load_s = perf_counter() - started
            self._context = create_context(self.config, self._model)
        except BaseException as error:  # noqa: BLE001 - the other thread raises it
            self._error = error
        finally:
            disband()
