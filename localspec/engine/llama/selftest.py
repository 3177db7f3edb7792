"""The child process of `engine.health`: evaluate small random models with and without repacked
weights, or on a device.

    python -m localspec.engine.llama.selftest FOLDER [plain | on DEVICE]

For each weight type it prints `TYPE ERROR`, the largest difference of logits relative to their
spread, to those of the processor without repacking; with `plain` it evaluates nothing else. If the
engine build or a driver is broken, this process dies.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine
from localspec.fields import ALL_LAYERS
from localspec.model.synthetic import Shape, write_random_model

WEIGHT_TYPES = ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K")
BATCHES = (1, 2, 8, 32)
DEVICE_TYPES, DEVICE_BATCHES = ("Q8_0", "Q4_K"), (1, 16)
"""Few: some drivers compile a program for each at its first use."""
ROUNDS = 3
SHAPE = Shape(n_layers=2, n_embd=256, n_heads=4, n_kv_heads=2, n_ff=512, n_vocab=512)


def logits(
    model: Path, batches: tuple[int, ...] = BATCHES, **settings: object
) -> npt.NDArray[np.float32]:
    """Logits after each batch, in each round; shape (rounds x batches, n_vocab)."""
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


def main() -> int:
    folder, how = Path(sys.argv[1]), sys.argv[2:]
    on_device = how[:1] == ["on"]
    for weight_type in DEVICE_TYPES if on_device else WEIGHT_TYPES:
        model = folder / f"{weight_type}.gguf"
        if not model.exists():
            write_random_model(model, SHAPE, weight_type)
        batches = DEVICE_BATCHES if on_device else BATCHES
        reference = logits(model, batches)
        if on_device:
            other = logits(model, batches, device=(how[1],), gpu_layers=ALL_LAYERS)
        else:
            other = reference if how else logits(model, repack=True)
        error = np.abs(other - reference).max() / reference.std()
        sys.stdout.write(f"{weight_type} {error}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
