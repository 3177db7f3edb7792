"""The child process of `session.trial`: load one file as carefully as it goes, and perhaps die.

    python -m localspec.engine.llama.trial FILE [evaluate]

It maps the file on the processor, reads its vocabulary and builds the graphs of a small context,
which is where libllama asserts; with `evaluate` one token passes through the weights. An error that
libllama reports is no death: whoever loads the model next hears it.
"""

import sys
from pathlib import Path

from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine
from localspec.errors import LocalspecError
from localspec.hardware.detect import usable_cores


def main() -> int:
    model, evaluate = Path(sys.argv[1]), "evaluate" in sys.argv[2:]
    config = EngineConfig.of(
        model, ctx=256, ubatch=32, threads=usable_cores(), gpu_layers=0,
        op_offload=False, repack=False,
    )  # fmt: skip
    try:
        engine = LlamaEngine(config)
        if evaluate:
            engine.context().eval([0], 1).row(0)
        engine.close()
    except LocalspecError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
