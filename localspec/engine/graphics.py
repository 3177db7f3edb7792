"""The installed engine's devices. The engine is asked: a library's file tells neither whether its
driver is there nor what hangs behind it.
"""

import re
from collections.abc import Sequence

from localspec.engine.health import library_folder, module_files
from localspec.engine.workers import Worker, addresses_of, devices_of
from localspec.errors import EngineError
from localspec.hardware.machine import Reported, computing

_LIBRARY = re.compile(r"(?:lib)?ggml-([a-z0-9]+)")
_NO_GRAPHICS = frozenset({"base", "cpu", "blas", "rpc"})


def engine_reports() -> list[Reported] | None:
    """The engine's own list; None without an engine."""
    try:
        from localspec.engine.llama.devices import reported  # noqa: PLC0415 - loads libllama
    except (EngineError, ImportError, OSError):
        return None
    return reported()


def graphics(names: Sequence[str] = (), workers: Sequence[str] = ()) -> list[Reported]:
    """The graphics devices that layers go to, of those named or of all; none without an engine.

    A build without a library for graphics is not loaded to be asked. Raises UserError for a worker
    that does not answer.
    """
    own = (engine_reports() or []) if may_have_graphics() else []
    far = [device for worker in map(Worker.of, workers) for device in devices_of(worker)]
    listed = [*far, *(each for each in own if each.backend != "rpc")]
    return computing(listed, names, addresses_of(workers))


def free_bytes(devices: Sequence[Reported]) -> int | None:
    """Of all of them; None where one does not tell."""
    known = [device.free_bytes for device in devices]
    return None if not known or None in known else sum(filter(None, known))


def may_have_graphics() -> bool:
    """Whether the build has a library for graphics, or there is no build yet to be asked."""
    try:
        paths = [*library_folder().iterdir(), *module_files()]
    except (EngineError, OSError):
        return True
    files = [_LIBRARY.match(path.name) for path in paths]
    return any(file and not file[1].startswith(tuple(_NO_GRAPHICS)) for file in files)
