"""One call of libllama's quantizer, in a child process of `engine.quantize`."""

import ctypes
import os
import re

from localspec.engine.child import Say
from localspec.engine.llama.binding import C, initialise, quietly

FTYPES: dict[str, int] = {
    name.removeprefix("LLAMA_FTYPE_MOSTLY_").removeprefix("LLAMA_FTYPE_ALL_"): getattr(C, name)
    for name in dir(C)
    if name.startswith(("LLAMA_FTYPE_MOSTLY_", "LLAMA_FTYPE_ALL_"))
}
_PROGRESS = re.compile(r"\[\s*(\d+)/\s*(\d+)\]")
_FAILED = "failed to quantize: "
_WRITE_ERROR = "the file cannot be written; is the disk full, or the folder read-only?"


def write(source: str, target: str, kind: str, n_threads: int, say: Say) -> str | None:
    """`say` hears which share is done. Why it could not be written; None where it was."""
    initialise()
    params = C.llama_model_quantize_default_params()
    params.ftype, params.nthread, params.allow_requantize = FTYPES[kind], n_threads, True
    reasons: list[str] = []

    def on_line(line: bytes) -> bool:
        text = line.decode("utf-8", "replace")
        if found := _PROGRESS.search(text):
            say(int(found[1]) / int(found[2]))
        if reason := text.partition(_FAILED)[2].strip():
            reasons.append(_WRITE_ERROR if "iostream error" in reason else reason)
        return True

    with quietly(on_line):
        code = C.llama_model_quantize(
            os.fsencode(source), os.fsencode(target), ctypes.byref(params)
        )
    return (reasons or [f"it ended with code {code}"])[0] if code else None
