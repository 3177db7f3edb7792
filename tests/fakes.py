"""An engine of 60 lines: logits are a fixed function of the last two tokens."""

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from localspec.engine.base import (
    EngineConfig,
    HeadRequest,
    Request,
    Result,
    require_number,
    rows_of,
)
from localspec.errors import EngineError
from localspec.model.facts import HeadFacts


@dataclass
class FakeVocabulary:
    n_tokens: int
    eog: frozenset[int] = frozenset()
    specials: ClassVar[dict[str, str]] = {}
    adds_space = False
    fim = None
    bos_text = eos_text = ""

    def tokenize(self, text: str, **how: bool) -> list[int]:
        return [ord(c) % self.n_tokens for c in text]

    def text(self, token: int) -> str:
        return self.piece(token).decode()

    def piece(self, token: int) -> bytes:
        return chr(97 + token).encode()


class FakeLogits:
    chance: float | None = None

    def __init__(self, rows: np.ndarray) -> None:
        self.rows = rows

    def row(self, i: int) -> np.ndarray:
        return self.rows[i]

    def argmax(self, i: int) -> int:
        best = int(self.rows[i].argmax())
        require_number(self.rows[i][best])
        return best


@dataclass
class FakeContext:
    engine: "FakeEngine"
    tokens: list[int] = field(default_factory=list)
    n_evaluated: int = 0

    def eval(self, tokens: Sequence[int], n_logits: int) -> FakeLogits:
        return rows_of(self.engine.decode([(self, tokens, n_logits)])[0])

    def go_back(self, n: int) -> None:
        assert n >= 0
        del self.tokens[n:]

    truncate = go_back

    def fork(self, other: "FakeContext", n: int) -> None:
        self.tokens = other.tokens[:n]

    def checkpoint_place(self, n: int) -> int | None:
        return None

    def checkpoint(self) -> None:
        pass

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(self.tokens))

    def restore(self, path: Path) -> bool:
        self.tokens = json.loads(path.read_text())
        return True

    @property
    def state_bytes(self) -> int:
        return 8 * len(self.tokens)


class FakeEngine:
    """`spread` scales the logits: larger ones make a more decided model."""

    def __init__(
        self,
        n_vocab: int = 8,
        seed: int = 0,
        spread: float = 1.0,
        n_ctx: int = 512,
        n_sequences: int = 1,
    ) -> None:
        self.vocabulary = FakeVocabulary(n_vocab)
        self.config = EngineConfig.of(Path("fake"), ctx=n_ctx, threads=1, n_sequences=n_sequences)
        self.rollback_limit = None
        self.table = np.random.default_rng(seed).normal(0, spread, (n_vocab, n_vocab, n_vocab))
        self.table = self.table.astype(np.float32)

    def context(self) -> FakeContext:
        return FakeContext(self)

    def close(self) -> None:
        pass

    def decode(self, requests: Sequence[Request]) -> list[Result]:
        return [self._one(*request) for request in requests]

    def _one(self, context: FakeContext, tokens: Sequence[int], n_logits: int) -> Result:
        if len(context.tokens) + len(tokens) > self.config.n_ctx:
            return EngineError("grew past its limit")
        context.tokens.extend(tokens)
        context.n_evaluated += len(tokens)
        ends = range(len(context.tokens) - n_logits + 1, len(context.tokens) + 1)
        return FakeLogits(np.array([self.logits(context.tokens[:end]) for end in ends]))

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """Logits of what follows `tokens`."""
        before = tokens[-2] if len(tokens) > 1 else 0
        return self.table[before, tokens[-1]]


class FakeHead:
    """A head whose scores are those of an engine of its own, for `n_longest` tokens at most."""

    facts = HeadFacts("mtp")

    def __init__(self, engine: FakeEngine, n_longest: int = 8) -> None:
        self._engine = engine
        self.n_longest = n_longest
        self.is_awake = True
        self.n_calls = 0

    def is_ready(self, context: FakeContext) -> bool:
        was, self.is_awake = self.is_awake, True
        return was and bool(context.tokens)

    def draft(self, requests: Sequence[HeadRequest], window: int = 64) -> list[FakeLogits]:
        assert len({len(tokens) for _, tokens in requests}) == 1
        self.n_calls += 1
        texts = [[*context.tokens, *tokens] for context, tokens in requests]
        return [FakeLogits(self._engine.logits(text)[None]) for text in texts]

    def rows(
        self, context: FakeContext, token: int, window: int = 64
    ) -> Generator[FakeLogits, int]:
        tokens = [token]
        while True:
            tokens.append((yield self.draft([(context, tokens)], window)[0]))
