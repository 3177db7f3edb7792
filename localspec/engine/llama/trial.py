"""The child process of `session.trial`: load one file as carefully as it goes, and perhaps die.

    python -m localspec.engine.llama.trial FILE [evaluate]

It reads the file's metadata and vocabulary and builds the graphs of a small context, which is where
libllama asserts: without any weights, as libllama does to fit a model into memory. With `evaluate`
it maps them on the processor, and one token passes through them. An error that libllama reports is
no death: whoever loads the model next hears it. It says that it has begun, so that its parent can
import the engine at the same time.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from localspec.engine.base import EngineConfig


def main() -> int:
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    return _try()


def _try() -> int:
    from localspec.engine.base import EngineConfig  # noqa: PLC0415 - after "begun"
    from localspec.errors import LocalspecError  # noqa: PLC0415
    from localspec.hardware.detect import usable_cores  # noqa: PLC0415

    config = EngineConfig.of(
        Path(sys.argv[1]), ctx=256, ubatch=32, threads=usable_cores(), gpu_layers=0,
        op_offload=False, repack=False,
    )  # fmt: skip
    try:
        (_evaluate if "evaluate" in sys.argv[2:] else _build)(config)
    except LocalspecError:
        return 0
    return 0


def _evaluate(config: "EngineConfig") -> None:
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415

    engine = LlamaEngine(config)
    engine.context().eval([0], 1).row(0)
    engine.close()


def _build(config: "EngineConfig") -> None:
    from localspec.engine.llama.binding import C, initialise  # noqa: PLC0415
    from localspec.engine.llama.parameters import create_context  # noqa: PLC0415

    initialise()
    params = C.llama_model_default_params()
    params.n_gpu_layers, params.use_extra_bufts, params.no_alloc = 0, False, True
    params.load_mode = C.LLAMA_LOAD_MODE_NONE
    model = C.llama_model_load_from_file(os.fsencode(config.model), params)
    if model:
        C.llama_free(create_context(config, model))
        C.llama_model_free(model)


if __name__ == "__main__":
    sys.exit(main())
