"""A drafter whose drafts are right as often as wished, to measure a loop without a real draft.

It knows the reply that plain decoding gives and proposes it, each token wrong with the chance that
is left; llama.cpp's --spec-synth-rates does the same. A draft costs nothing.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from localspec.model.synthetic import Shape, write_random_model
from localspec.speculate.drafters.base import Draft, DraftRequest

FOLDER = Path(__file__).parent.parent / ".cache" / "models"
LARGE = Shape(
    n_layers=13, n_embd=2048, n_heads=32, n_kv_heads=8, n_ff=5632, n_vocab=4096, n_ctx=2048
)
QUALITY = 7


def random_model() -> Path:
    """1.2 GB of random F16 weights, made once: it answers nonsense at the speed of a real model."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "random-1.2GB.F16.gguf"
    if not path.exists():
        partial = path.with_suffix(".part")
        write_random_model(partial, LARGE, "F16", with_text=True)
        partial.replace(path)
    return path


class SyntheticDrafter:
    """Drafts `reply`, which follows a prompt of `n_prompt` tokens."""

    source = "suffix"
    is_free = True

    def __init__(self, n_prompt: int, reply: Sequence[int], acceptance: float, seed: int) -> None:
        self._n_prompt, self._reply = n_prompt, list(reply)
        rng = random.Random(seed)
        self._is_right = [rng.random() < acceptance for _ in self._reply]

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """What comes next, or at the unlucky places something else."""
        return [self._one(request) for request in requests]

    def _one(self, request: DraftRequest) -> Draft:
        start = len(request.history) - self._n_prompt
        tokens = list(self._tokens(start, start + request.n_tokens))
        return Draft(tokens, self.source, None, [QUALITY] * len(tokens))

    def _tokens(self, start: int, end: int) -> Iterator[int]:
        for token, is_right in zip(self._reply[start:end], self._is_right[start:end], strict=True):
            yield token if is_right else (token + 1) % 256
