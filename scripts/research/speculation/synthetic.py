"""Drafts that are right as often as wished, to measure a loop without a real draft.

The target does all of its work, and the best token of every row is looked for, but what it says is
replaced by a script that the drafter knows; llama.cpp's --spec-synth-rates does the same. (Knowing
what plain decoding says is not enough: a model with random weights has so many near ties that wider
batches soon say something else.)
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from localspec.speculate.drafters.base import Draft, DraftRequest

from localspec.engine.base import Context, Logits
from localspec.engine.sampling import Purpose, uniform

QUALITY = 7


def scripted(position: int) -> int:
    """The token at a place of a text."""
    return 32 + (7919 * position + position // 7) % 90


class ScriptedLogits:
    """The rows of `logits`, whose best tokens are those of the script from `position` on."""

    def __init__(self, logits: Logits, position: int) -> None:
        self._logits, self._position = logits, position

    def row(self, i: int) -> npt.NDArray[np.float32]:
        return self._logits.row(i)

    def argmax(self, i: int) -> int:
        self._logits.argmax(i)
        return scripted(self._position + i)


class ScriptedContext:
    """A context that answers by the script."""

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def tokens(self) -> Sequence[int]:
        return self._context.tokens

    def eval(self, tokens: Sequence[int], n_logits: int) -> ScriptedLogits:
        logits = self._context.eval(tokens, n_logits)
        return ScriptedLogits(logits, len(self.tokens) - n_logits + 1)

    def truncate(self, n: int) -> None:
        self._context.truncate(n)


class SyntheticDrafter:
    """Drafts the script, each token wrong with the chance that is left; a draft costs nothing."""

    source = "suffix"
    is_free = True

    def __init__(self, acceptance: float, seed: int) -> None:
        self._acceptance = acceptance
        self._seed = seed

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """What comes next, or at the unlucky places something else."""
        return [self._one(request) for request in requests]

    def _one(self, request: DraftRequest) -> Draft:
        start = len(request.history)
        tokens = [self._token(start + k) for k in range(request.n_tokens)]
        return Draft(tokens, self.source, None, [QUALITY] * len(tokens))

    def _token(self, position: int) -> int:
        is_right = uniform(self._seed, position, Purpose.DRAFT) < self._acceptance
        return scripted(position) if is_right else 31
