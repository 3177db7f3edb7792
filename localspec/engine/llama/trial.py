"""Load something in a child process as carefully as it goes, and perhaps die of it.

`survive` is for one file (`session.trial`). It reads the file's metadata and vocabulary and builds
the graphs of a small context, which is where libllama asserts: without any weights, as libllama
does to fit a model into memory. A small file's are mapped on the processor, and one token passes
through them. An error that libllama reports is no death: whoever loads the model next hears it.

`plain`, `repacked` and `on_device` evaluate small random models, where `engine.health` wants it. Of
each weight type, `say` hears the largest difference of logits relative to their spread, to those
of the processor without repacking. If the engine build or a driver is broken, this process dies.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from localspec.engine.base import EngineConfig
from localspec.engine.child import Say
from localspec.engine.llama.binding import C, initialise
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.llama.head import MTP_CONTEXT
from localspec.engine.llama.parameters import create_context
from localspec.errors import LocalspecError
from localspec.fields import ALL_LAYERS
from localspec.hardware.detect import usable_cores
from localspec.model.facts import HeadFacts
from localspec.model.synthetic import Shape, write_random_model

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


WEIGHT_TYPES = ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K")
BATCHES = (1, 2, 8, 32)
DEVICE_TYPES, DEVICE_BATCHES = ("Q8_0", "Q4_K"), (1, 16)
"""Few: some drivers compile a program for each at its first use."""
ROUNDS = 3
SHAPE = Shape(n_layers=2, n_embd=256, n_heads=4, n_kv_heads=2, n_ff=512, n_vocab=512)
Rows = npt.NDArray[np.float32]


def logits(model: Path, batches: tuple[int, ...] = BATCHES, **settings: object) -> Rows:
    """Rows after each batch, in each round; shape (rounds x batches, n_vocab)."""
    chosen: dict[str, Any] = {"gpu_layers": 0, "repack": False, **settings}
    config = EngineConfig.of(model, ctx=256, threads=1, **chosen)
    engine = LlamaEngine(config)
    try:
        context = engine.context()
        rows = []
        for _ in range(ROUNDS):
            context.clear()
            for n in batches:
                tokens = [(7 * i + n) % SHAPE.n_vocab for i in range(n)]
                rows.append(context.eval(tokens, 1).row(0).copy())
        return np.stack(rows)
    finally:
        engine.close()


def plain(folder: str, say: Say) -> None:
    """Without repacked weights: nothing to compare, but it may die."""
    for kind in WEIGHT_TYPES:
        logits(_model(folder, kind))


def repacked(folder: str, say: Say) -> None:
    """With repacked weights."""
    for kind in WEIGHT_TYPES:
        model = _model(folder, kind)
        say(kind, _error(logits(model, repack=True), logits(model)))


def on_device(folder: str, device: str, say: Say) -> None:
    """With all layers there."""
    for kind in DEVICE_TYPES:
        model, there = _model(folder, kind), {"device": (device,), "gpu_layers": ALL_LAYERS}
        say(kind, _error(logits(model, DEVICE_BATCHES, **there), logits(model, DEVICE_BATCHES)))


def _model(folder: str, weight_type: str) -> Path:
    model = Path(folder, f"{weight_type}.gguf")
    if not model.exists():
        write_random_model(model, SHAPE, weight_type)
    return model


def _error(other: Rows, reference: Rows) -> float:
    return float(np.abs(other - reference).max() / reference.std())
