"""Load one file as carefully as it goes in a child process of `session.trial`, and perhaps die.

It reads the file's metadata and vocabulary and builds the graphs of a small context, which is where
libllama asserts: without any weights, as libllama does to fit a model into memory. A small file's
are mapped on the processor, and one token passes through them. An error that libllama reports is
no death: whoever loads the model next hears it.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from localspec.engine.base import EngineConfig
from localspec.engine.child import Say
from localspec.engine.llama.binding import C, initialise
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.llama.head import MTP_CONTEXT
from localspec.engine.llama.parameters import create_context
from localspec.errors import LocalspecError
from localspec.hardware.detect import usable_cores
from localspec.model.heads import HeadFacts

N_DRAFTED = 2


def survive(model: str, head: HeadFacts | None, is_small: bool, say: Say) -> None:
    """Load `model`, and a draft head beside it; without any weights, but of what is small."""
    config = EngineConfig.of(
        Path(model), ctx=256, ubatch=32, threads=usable_cores(), gpu_layers=0,
        op_offload=False, repack=False, load_mtp=bool(head and head.path is None),
    )  # fmt: skip
    with suppress(LocalspecError):
        (_evaluate if is_small else _build)(config, head)


def _evaluate(config: EngineConfig, head: HeadFacts | None) -> None:
    engine = LlamaEngine(config)
    context = engine.context()
    drafting = engine.head(head, N_DRAFTED) if head else None
    token = context.eval([0], 1).argmax(0)
    if drafting:
        drafting.draft([(context, [token])])[0].row(0)
    engine.close()


def _build(config: EngineConfig, head: HeadFacts | None) -> None:
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
    params = C.llama_model_default_params()
    params.n_gpu_layers, params.use_extra_bufts, params.no_alloc = 0, False, True
    params.load_mode, params.load_mtp = C.LLAMA_LOAD_MODE_NONE, with_heads
    return C.llama_model_load_from_file(os.fsencode(file), params)
