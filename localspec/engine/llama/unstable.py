"""What a draft head needs of llama-ext.h, which llama.cpp calls unstable, by its names in C++.

Each has its name in C, that of Itanium's ABI (Linux, macOS) and Microsoft's. A build that lacks one
runs everything but what needs it, and says so in a sentence.
"""

import ctypes
from contextlib import suppress
from typing import Any

from localspec.engine.llama.binding import C
from localspec.errors import EngineError

_CONTEXT = ctypes.c_void_p


def _found(name: str, arguments: str, microsoft: str, result: Any, *types: Any) -> Any:
    """A function of libllama; None where this build does not have it."""
    names = (name, f"_Z{len(name)}{name}P13llama_context{arguments}", f"?{name}@@YA{microsoft}@Z")
    for each in names:
        with suppress(AttributeError):
            function = C._lib[each]  # pyright: ignore[reportPrivateUsage]
            function.restype, function.argtypes = result, [_CONTEXT, *types]
            return function
    return None


_FUNCTIONS: dict[str, Any] = {
    "llama_set_embeddings_nextn": _found(
        "llama_set_embeddings_nextn", "bb", "XPEAUllama_context@@_N1", None,
        ctypes.c_bool, ctypes.c_bool,
    ),
    "llama_get_embeddings_nextn": _found(
        "llama_get_embeddings_nextn", "", "PEAMPEAUllama_context@@", ctypes.c_void_p
    ),
    "llama_set_nextn_layer_offset": _found(
        "llama_set_nextn_layer_offset", "i", "XPEAUllama_context@@H", None, ctypes.c_int32
    ),
    "llama_set_embeddings_layer_inp": _found(
        "llama_set_embeddings_layer_inp", "jb", "XPEAUllama_context@@I_N", None,
        ctypes.c_uint32, ctypes.c_bool,
    ),
    "llama_get_embeddings_layer_inp": _found(
        "llama_get_embeddings_layer_inp", "j", "PEAMPEAUllama_context@@I", ctypes.c_void_p,
        ctypes.c_uint32,
    ),
}  # fmt: skip


def unstable(name: str) -> Any:
    """The function. EngineError where this build of the engine does not have it."""
    function = _FUNCTIONS[name]
    if function is None:
        raise EngineError(f"this build of the engine has no {name}, which draft heads need")
    return function
