"""The child process of `engine.quantize`: one call of libllama's quantizer, its log on stdout.

python -m localspec.engine.llama.quantizer SOURCE TARGET FTYPE N_THREADS
"""

import ctypes
import os
import sys

from localspec.engine.llama.binding import C, initialise

FTYPES: dict[str, int] = {
    name.removeprefix("LLAMA_FTYPE_MOSTLY_").removeprefix("LLAMA_FTYPE_ALL_"): getattr(C, name)
    for name in dir(C)
    if name.startswith(("LLAMA_FTYPE_MOSTLY_", "LLAMA_FTYPE_ALL_"))
}


def main() -> int:
    source, target, kind, n_threads = sys.argv[1:]
    initialise(echo=sys.stdout)
    params = C.llama_model_quantize_default_params()
    params.ftype = FTYPES[kind]
    params.nthread = int(n_threads)
    params.allow_requantize = True
    return C.llama_model_quantize(os.fsencode(source), os.fsencode(target), ctypes.byref(params))


if __name__ == "__main__":
    sys.exit(main())
