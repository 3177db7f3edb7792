"""The child process of `session.trial`: load one file as carefully as it goes, and perhaps die.

    python -m localspec.engine.llama.trial FILE [evaluate]

It maps the file on the processor, reads its vocabulary and builds the graphs of a small context,
which is where libllama asserts; with `evaluate` one token passes through the weights. An error that
libllama reports is no death: whoever loads the model next hears it. It says that it has begun, so
that its parent can import the engine at the same time.
"""

import sys
from pathlib import Path


def main() -> int:
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    return _try()


def _try() -> int:
    from localspec.engine.base import EngineConfig  # noqa: PLC0415 - after "begun"
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415
    from localspec.errors import LocalspecError  # noqa: PLC0415
    from localspec.hardware.detect import usable_cores  # noqa: PLC0415

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
