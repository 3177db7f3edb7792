"""Drafts that are right as often as wished, to measure a loop without a real draft.

The target does all of its work, and the best token of every row is looked for, but what it says is
replaced by a script that the drafter knows; llama.cpp's --spec-synth-rates does the same. (Knowing
what plain decoding says is not enough: a model with random weights has so many near ties that wider
batches soon say something else.)
"""

from collections.abc import Sequence
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from localspec.decode.drafters.base import NO_DRAFT, Draft, DraftRequest
from localspec.decode.drafters.lookup import N_CONFIDENCES, LookupDrafter
from localspec.engine.base import Context, Engine, Logits, Request, Result
from localspec.engine.sampling import Purpose, uniform
from localspec.errors import LocalspecError

CONFIDENCE = N_CONFIDENCES // 2
"""All of its tokens are of one bin."""


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
    """A context whose engine answers by the script."""

    def __init__(self, context: Context) -> None:
        self.inner = context
        self.engine = ScriptedEngine(context.engine)

    @property
    def tokens(self) -> Sequence[int]:
        return self.inner.tokens

    def go_back(self, n: int) -> None:
        self.inner.go_back(n)

    def checkpoint_place(self, n: int) -> int | None:
        return self.inner.checkpoint_place(n)

    def checkpoint(self) -> None:
        self.inner.checkpoint()


class ScriptedEngine:
    """Evaluates for scripted contexts, and answers by the script."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def decode(
        self, requests: Sequence[tuple[ScriptedContext, Sequence[int], int]]
    ) -> list[Result]:
        inner: list[Request] = [(context.inner, tokens, n) for context, tokens, n in requests]
        results = self._engine.decode(inner)
        return [
            result
            if isinstance(result, LocalspecError)
            else ScriptedLogits(result, len(context.tokens) - n + 1)
            for (context, _, n), result in zip(inner, results, strict=True)
        ]


class SyntheticDrafter:
    """Drafts the script in place of lookups, each token wrong with the chance that is left; a draft
    costs nothing."""

    source: ClassVar[str] = LookupDrafter.source
    option: ClassVar[str] = LookupDrafter.option
    label: ClassVar[str] = LookupDrafter.label
    is_free: ClassVar[bool] = True
    n_confidences: ClassVar[int] = N_CONFIDENCES

    def __init__(self, acceptance: float, seed: int) -> None:
        self._acceptance = acceptance
        self._seed = seed

    @classmethod
    def of(cls, target: Engine, draft: Engine | None) -> Self:
        """One that is always right."""
        return cls(1.0, 0)

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """What comes next, or at the unlucky places something else."""
        return [self._one(request) for request in requests]

    def forget(self) -> None:
        """It has nothing to forget."""

    def _one(self, request: DraftRequest) -> Draft:
        if request.n_tokens == 0:
            return NO_DRAFT
        start = len(request.history)
        tokens = [self._token(start + k) for k in range(request.n_tokens)]
        return Draft(tokens, self.source, None, [CONFIDENCE] * len(tokens))

    def _token(self, position: int) -> int:
        is_right = uniform(self._seed, position, Purpose.DRAFT) < self._acceptance
        return scripted(position) if is_right else 31
