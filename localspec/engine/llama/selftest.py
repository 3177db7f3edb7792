"""Evaluate small random models in a child process, where `engine.health` wants it.

Of each weight type, `say` hears the largest difference of logits relative to their spread, to those
of the processor without repacking. If the engine build or a driver is broken, this process dies.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from localspec.engine.base import EngineConfig
from localspec.engine.child import Say
from localspec.engine.llama.engine import LlamaEngine
from localspec.fields import ALL_LAYERS
from localspec.model.synthetic import Shape, write_random_model

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
