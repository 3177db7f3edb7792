"""The child process of `engine.health`: evaluate small random models with and without repacked
weights.

    python -m localspec.engine.llama.selftest FOLDER [plain]

For each weight type it prints `TYPE ERROR`, the largest difference of logits relative to their
spread; with `plain` it only evaluates without repacking. If the engine build is broken, this
process dies.
"""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from localspec.engine.base import EngineConfig
from localspec.engine.llama.engine import LlamaEngine
from localspec.model.synthetic import Shape, write_random_model

WEIGHT_TYPES = ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K")
BATCHES = (1, 2, 8, 32)
ROUNDS = 3
SHAPE = Shape(n_layers=2, n_embd=256, n_heads=4, n_kv_heads=2, n_ff=512, n_vocab=512)


def logits(model: Path, *, repack: bool) -> npt.NDArray[np.float32]:
    """Logits after each batch, in each round; shape (rounds x batches, n_vocab)."""
    config = EngineConfig.of(
        model, ctx=256, threads=1, gpu_layers=0, op_offload=False, repack=repack
    )
    engine = LlamaEngine(config)
    try:
        context = engine.context()
        rows = []
        for _ in range(ROUNDS):
            context.clear()
            for n in BATCHES:
                tokens = [(7 * i + n) % SHAPE.n_vocab for i in range(n)]
                rows.append(context.eval(tokens, 1).row(0).copy())
        return np.stack(rows)
    finally:
        engine.close()


def main() -> int:
    folder, plain = Path(sys.argv[1]), "plain" in sys.argv[2:]
    for weight_type in WEIGHT_TYPES:
        model = folder / f"{weight_type}.gguf"
        if not model.exists():
            write_random_model(model, SHAPE, weight_type)
        reference = logits(model, repack=False)
        repacked = reference if plain else logits(model, repack=True)
        error = np.abs(repacked - reference).max() / reference.std()
        sys.stdout.write(f"{weight_type} {error}\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
