"""The two ends of llama.cpp's RPC, which make another machine's device one of this engine's."""

import ctypes
import os
import threading
from pathlib import Path

from localspec.engine.child import Say
from localspec.engine.llama.binding import initialise, libggml
from localspec.engine.llama.devices import reported
from localspec.engine.workers import LATE
from localspec.errors import EngineError
from localspec.hardware.machine import Reported

_START = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p
)
_ADD = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_char_p)


def serve(address: str, n_threads: int, device: str, cache: Path) -> None:
    """Compute for others on `device`, one client after the other; returns only where it fails.

    `cache` keeps weights, so that they cross the network once. Raises EngineError for a device that
    this engine does not have.
    """
    initialise()
    handle = libggml.ggml_backend_dev_by_name(device.encode())
    if not handle:
        raise EngineError(f"the engine has no device {device!r}: `localspec doctor` lists them")
    start = _START(_function(b"ggml_backend_rpc_start_server"))
    start(address.encode(), os.fsencode(cache), n_threads, 1, ctypes.byref(ctypes.c_void_p(handle)))


def add_workers(addresses: tuple[str, ...]) -> None:
    """Make their devices this engine's. Any number of calls; a worker that is gone ends the
    process, so ask it in a child first."""
    if not addresses:
        return
    initialise()
    add = _ADD(_function(b"ggml_backend_rpc_add_server"))
    for address in addresses:
        if address not in _added:
            registry = add(address.encode())
            if not registry:
                raise EngineError(f"the worker at {address} offers no device")
            libggml.ggml_backend_register(registry)
            _added.add(address)


_added: set[str] = set()


def _function(name: bytes) -> int:
    registry = libggml.ggml_backend_reg_by_name(b"RPC")
    address = registry and libggml.ggml_backend_reg_get_proc_address(registry, name)
    if not address:
        raise EngineError("this engine was built without RPC: rebuild it with scripts/setup")
    return address


def devices(address: str, limit_s: float, say: Say) -> list[Reported]:
    """Of a worker, asked in a child process: libllama ends the process where the other side is no
    worker, or of another version."""
    initialise()
    # Nothing else ends a call into libllama that waits for the other side.
    late = threading.Timer(limit_s, lambda: os._exit(LATE))
    late.daemon = True
    late.start()
    add_workers((address,))
    return [device for device in reported() if device.backend == "rpc"]
