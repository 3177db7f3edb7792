"""Load libllama once, quietly, and turn its two loud failures into sentences.

Its log stays in memory: an error message can quote the engine's reason, and nothing is printed
unless asked for. Before it aborts the process on a broken assumption, one sentence goes to stderr.
`doctor` reads the features that the engine reports.
"""

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from typing import Any, NewType, TextIO

from localspec.display import note
from localspec.engine.child import STOPPED
from localspec.engine.health import NOT_INSTALLED, module_files
from localspec.errors import EngineError


@contextmanager
def bare_package(name: str) -> Generator[None]:
    """Modules of a package without what the package itself imports: llama_cpp's own brings Jinja, a
    cache on disk and more, which takes longer than the library. Who imports it later has it whole.
    """
    spec = None if name in sys.modules else find_spec(name)
    if spec is None:
        yield
        return
    sys.modules[name] = module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[name]


try:
    with bare_package("llama_cpp"):
        import llama_cpp.llama_cpp as bindings
        from llama_cpp._ggml import libggml as ggml
except ImportError as error:
    raise EngineError(NOT_INSTALLED) from error
except (OSError, RuntimeError) as error:
    raise EngineError(
        f"the engine's library does not load ({error}): rebuild it with scripts/setup --rebuild"
    ) from error


C: Any = bindings
"""llama.h, function by function; ctypes has no types worth checking."""

_libllama: Any = bindings._lib  # pyright: ignore[reportPrivateUsage]
libggml: Any = _libllama if hasattr(_libllama, "ggml_backend_dev_count") else ggml
"""ggml's own functions, through libllama: the wheel's other copies of libggml know none of its
devices. Windows finds only a library's own names in it, and loads each library once. The caller
declares the types."""


def declare(*functions: tuple[Any, ...]) -> None:
    """The types of ggml's functions: of each its name, its result and its arguments."""
    for name, result, *arguments in functions:
        function = getattr(libggml, name)
        function.restype, function.argtypes = result, arguments


declare(("ggml_backend_load", ctypes.c_void_p, ctypes.c_char_p))

output_address: Any = _libllama["llama_get_logits"]
"""llama_get_logits as a plain address: the binding's pointer costs as much as the call."""
output_address.argtypes = [ctypes.c_void_p]
output_address.restype = ctypes.c_void_p

_OMP_PAUSE_SOFT = 1
Handle = NewType("Handle", int)
"""A pointer to something of the engine's."""

_LOG_LINES = 400
_LEVEL_DEBUG, _LEVEL_ERROR, _LEVEL_CONTINUED = 1, 4, 5


class EngineLog:
    """The engine's newest log lines but for debugging; also written to `echo` as they come.

    `on_line` hears them, too, until it returns False; then only `echo` does.
    """

    def __init__(self) -> None:
        self.echo: TextIO | None = None
        self.on_line: Callable[[bytes], bool] | None = None
        self._lines: deque[tuple[int, str]] = deque(maxlen=_LOG_LINES)

    def write(self, level: int, message: bytes, _: int | None = None) -> None:
        """Take one call of the engine's log callback; level 5 continues the line before."""
        text = message.decode("utf-8", "replace")
        if self.echo:
            self.echo.write(text)
        if self.on_line and not self.on_line(message):
            self.on_line = None
            if not self.echo:
                C.llama_log_set(_nobody, ctypes.c_void_p(0))
        if level == _LEVEL_DEBUG:
            return
        if level == _LEVEL_CONTINUED and self._lines:
            last, start = self._lines.pop()
            self._lines.append((last, start + text))
        else:
            self._lines.append((level, text))

    def clear(self) -> None:
        self._lines.clear()

    def reason(self) -> str:
        """The first error since `clear`, without the name of the function that logged it."""
        errors = [text.strip() for level, text in self._lines if level == _LEVEL_ERROR]
        return errors[0].split(": ", 1)[-1] if errors else "no reason given"


engine_log = EngineLog()


def _on_abort(message: bytes) -> None:
    # libllama calls abort() after this; leaving first spares the user a core dump and a backtrace.
    reason = message.decode("utf-8", "replace").rsplit("/", 1)[-1]
    # Who reads the last line must find all of it there.
    words = " ".join(note(reason).split())
    sys.stderr.write(f"localspec: {STOPPED} ({words}); `localspec doctor` checks it\n")
    sys.stderr.flush()
    os._exit(1)


_log_callback = C.llama_log_callback(engine_log.write)
_abort_callback = ctypes.CFUNCTYPE(None, ctypes.c_char_p)(_on_abort)
_nobody = C.llama_log_callback(
    ctypes.cast(bindings._lib.llama_supports_mmap, ctypes.c_void_p).value  # pyright: ignore[reportPrivateUsage]
)
"""A function of the library that looks at no argument, as a log that is none."""
_ready = False


@contextmanager
def quietly(on_line: Callable[[bytes], bool] | None = None) -> Generator[None]:
    """Nothing is logged meanwhile. Loading tells two thousand lines, of each tensor and each node,
    and each takes Python's lock: whoever fails tries again aloud, for the reason.

    `on_line` hears lines until it returns False.
    """
    engine_log.on_line = on_line
    if not (on_line or engine_log.echo):
        C.llama_log_set(_nobody, ctypes.c_void_p(0))
    try:
        yield
    finally:
        engine_log.on_line = None
        C.llama_log_set(_log_callback, ctypes.c_void_p(0))


def initialise() -> None:
    """Start the backends and take over log and abort; any number of calls."""
    global _ready
    wants_all = os.environ.get("LOCALSPEC_DEBUG") == "1"
    engine_log.echo = engine_log.echo or (sys.stderr if wants_all else None)
    if _ready:
        return
    C.llama_log_set(_log_callback, ctypes.c_void_p(0))
    libggml.ggml_set_abort_callback(_abort_callback)
    C.llama_backend_init()
    _load_modules()
    _ready = True


def disband() -> None:
    """The calling thread computes no more.

    OpenMP keeps workers for each thread that has computed. With more of them all together than
    cores, libgomp lets threads sleep at each barrier instead of spinning: where one thread had
    loaded a model and another one decoded, SmolLM2's pass took 11.2 ms instead of 8.3 on 2 cores.
    """
    pause = getattr(bindings._lib, "omp_pause_resource_all", None)  # pyright: ignore[reportPrivateUsage]
    if pause is not None:
        pause(_OMP_PAUSE_SOFT)


def _load_modules() -> None:
    """Backends that scripts/setup put beside the engine; they bring a log of their own."""
    for path in module_files():
        for base in path.parent.glob("*ggml-base*"):
            ctypes.CDLL(str(base)).ggml_log_set(_log_callback, ctypes.c_void_p(0))
        libggml.ggml_backend_load(os.fsencode(path))


def engine_features() -> str:
    """The build's instruction sets and options, in the engine's own words."""
    initialise()
    return C.llama_print_system_info().decode("utf-8", "replace").strip(" |")
