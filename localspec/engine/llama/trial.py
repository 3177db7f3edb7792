"""The child process of `session.trial`: load one file as carefully as it goes, and perhaps die.

    python -m localspec.engine.llama.trial FILE [evaluate] [head FACTS]

It reads the file's metadata and vocabulary and builds the graphs of a small context, which is where
libllama asserts: without any weights, as libllama does to fit a model into memory. With `evaluate`
it maps them on the processor, and one token passes through them. With a draft head's FACTS
(`model.heads`, as JSON) it does so with the head beside the file. An error that libllama reports is
no death: whoever loads the model next hears it. It says that it has begun, so that its parent can
import the engine at the same time.
"""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localspec.model.heads import HeadFacts
from localspec.store import value_of

if TYPE_CHECKING:
    from localspec.engine.base import EngineConfig

N_DRAFTED = 2


def main() -> int:
    sys.stdout.write("begun\n")
    sys.stdout.flush()
    return _try()


def _try() -> int:
    from localspec.engine.base import EngineConfig  # noqa: PLC0415 - after "begun"
    from localspec.errors import LocalspecError  # noqa: PLC0415
    from localspec.hardware.detect import usable_cores  # noqa: PLC0415

    words = sys.argv[2:]
    head = value_of(HeadFacts, json.loads(words[-1])) if "head" in words else None
    config = EngineConfig.of(
        Path(sys.argv[1]), ctx=256, ubatch=32, threads=usable_cores(), gpu_layers=0,
        op_offload=False, repack=False, load_mtp=bool(head and head.path is None),
    )  # fmt: skip
    try:
        (_evaluate if "evaluate" in words else _build)(config, head)
    except LocalspecError:
        return 0
    return 0


def _evaluate(config: "EngineConfig", head: HeadFacts | None) -> None:
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415

    engine = LlamaEngine(config)
    context = engine.context()
    drafting = engine.head(head, N_DRAFTED) if head else None
    token = context.eval([0], 1).argmax(0)
    if drafting:
        drafting.draft([(context, [token])])[0].row(0)
    engine.close()


def _build(config: "EngineConfig", head: HeadFacts | None) -> None:
    from localspec.engine.llama.binding import C, initialise  # noqa: PLC0415
    from localspec.engine.llama.head import MTP_CONTEXT  # noqa: PLC0415
    from localspec.engine.llama.parameters import create_context  # noqa: PLC0415

    initialise()
    model = _without_weights(config.model, with_heads=config.settings.load_mtp)
    context = model and create_context(config, model)
    if context and head:
        other = _without_weights(head.path, with_heads=True) if head.path else model
        kind = {} if head.taps else {"ctx_type": MTP_CONTEXT}
        if other:
            C.llama_free(create_context(config, other, ctx_other=context, **kind))
    if context:
        C.llama_free(context)


def _without_weights(file: Path, *, with_heads: bool) -> Any:
    from localspec.engine.llama.binding import C  # noqa: PLC0415

    params = C.llama_model_default_params()
    params.n_gpu_layers, params.use_extra_bufts, params.no_alloc = 0, False, True
    params.load_mode, params.load_mtp = C.LLAMA_LOAD_MODE_NONE, with_heads
    return C.llama_model_load_from_file(os.fsencode(file), params)


if __name__ == "__main__":
    sys.exit(main())
