"""Heads that draft a whole block in one call: DFlash and DSpark.

The head's cache holds keys and values of the target's features: the inputs of some layers, at their
positions. A block is the pending token and mask tokens behind it; all its rows are scored at once
and forgotten again. DFlash's first row says nothing, DSpark's drafts the first token. A row does
not depend on what is chosen from the rows before it, so it is the distribution of its token
whatever these are. DSpark also estimates each token's chance.

Blocks of all sequences are of one length: libllama's graph of DSpark takes that for granted.
Source: common/speculative.cpp and src/models/dflash.cpp of llama.cpp.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from localspec.engine.base import Context, HeadRequest
from localspec.engine.llama.batch import LlamaBatch
from localspec.engine.llama.binding import C
from localspec.engine.llama.context import LlamaContext
from localspec.engine.llama.features import FeatureRows, Rows
from localspec.engine.llama.head import HeadTarget, LlamaHead, n_positions
from localspec.engine.logits import BufferLogits
from localspec.errors import EngineError
from localspec.model.facts import N_KEPT, HeadFacts


@dataclass(slots=True)
class _Read:
    """What the head's cache holds of one sequence: features of positions up to `end`; and the rows
    of its last block, from the first that drafts on."""

    rows: FeatureRows
    end: int = 0
    scores: Rows | None = None
    chances: Sequence[float] = ()


class BlockHead(LlamaHead):
    """A head that fills blocks."""

    def __init__(self, target: HeadTarget, facts: HeadFacts, n: int) -> None:
        assert facts.block
        if facts.block.n_lattice:
            raise EngineError("heads with a lattice (DFlash2) are not supported yet")
        block, n_sequences = facts.block, target.config.settings.n_sequences
        self.n_longest = min(n, block.n_tokens - block.first)
        self._first, self._mask = block.first, block.mask_token
        self._n_block = self.n_longest + block.first
        n_outputs = n_sequences * self._n_block
        super().__init__(
            target, facts, n_rows=max(N_KEPT, n_outputs), n_outputs=n_outputs,
            hands_out_states=block.has_confidence,
        )  # fmt: skip
        C.llama_set_causal_attn(self.handle, block.is_causal)
        self._features_in = LlamaBatch(
            N_KEPT, n_sequences, self.features.width, n_positions(self.model or target.model)
        )
        self._blocks = LlamaBatch(n_outputs, n_sequences)
        self._known: dict[int, _Read] = {}

    def draft(
        self, requests: Sequence[HeadRequest], window: int = N_KEPT
    ) -> Sequence[BufferLogits]:
        """One row for each request; see `engine.base.Head.draft`. The first call of a draft makes
        all of it."""
        if len(requests[0][1]) == 1:
            try:
                self._fill(requests, window)
            except BaseException:
                self._features_in.n_rows = 0
                self._blocks.n_rows = 0
                self._known.clear()
                raise
        return [self._row(context, len(tokens) - 1) for context, tokens in requests]

    def rows(
        self, context: Context, token: int, window: int = N_KEPT
    ) -> Generator[BufferLogits, int]:
        self.draft([(context, [token])], window)
        for i in range(self.n_longest):
            yield self._row(context, i)

    def _row(self, context: object, i: int) -> BufferLogits:
        assert isinstance(context, LlamaContext)
        known = self._known[context.sequence]
        assert known.scores is not None
        chance = known.chances[i] if known.chances else None
        return BufferLogits(self, known.scores[i : i + 1], chance)

    def _fill(self, requests: Sequence[HeadRequest], window: int) -> None:
        places: list[tuple[int, int]] = []
        for context, tokens in requests:
            assert isinstance(context, LlamaContext)
            sequence, position = context.sequence, len(context.tokens)
            self._read(sequence, position, window)
            places.append((sequence, position))
            block = [tokens[0], *[self._mask] * (self._n_block - 1)]
            self._blocks.add(block, position, sequence, wanted=True)
        n_rows = self._blocks.n_rows
        self.run(self._blocks)
        for i, (sequence, position) in enumerate(places):
            self.forget(sequence, position)
            start = i * self._n_block + self._first
            self._keep(self._known[sequence], start, (i + 1) * self._n_block, n_rows)

    def _keep(self, known: _Read, start: int, end: int, n_rows: int) -> None:
        known.scores = self.scores(n_rows)[start:end]
        if self.facts.block and self.facts.block.has_confidence:
            known.chances = self.states(n_rows)[start:end, 0].tolist()

    def _read(self, sequence: int, position: int, window: int) -> None:
        """Features of what the target holds and the head has not read, as far as they were kept."""
        rows, known = self.features.of(sequence), self._known.get(sequence)
        if known is None or known.rows is not rows:
            known = self._known[sequence] = _Read(rows)
            self.forget(sequence, 0)
        was_read = known.end
        known.end = min(was_read, rows.n_unchanged, position)
        rows.n_unchanged = position
        end = min(rows.end, position)
        start = max(rows.first, known.end, end - window)
        if not start == known.end == was_read:  # else nothing lies behind, and to look takes long
            self.forget(sequence, 0 if start > known.end else start)
        known.end = end
        if start < end:
            self._add_features(rows.of(start, end), start, sequence)

    def _add_features(self, features: Rows, position: int, sequence: int) -> None:
        n = len(features)
        self._features_in.add_states([0] * n, position, sequence, features, wanted=False)
        self.run(self._features_in)

    def run_made_up(self, tokens: Sequence[int], position: int, n_logits: int) -> None:
        """Read features of zeros for as many tokens, and fill a block if any is to have scores."""
        zeros = np.zeros((len(tokens), self.features.width), np.float32)
        self._add_features(zeros, position, 0)
        if n_logits:
            block, end = [*tokens[-1:], *[self._mask] * (self._n_block - 1)], position + len(tokens)
            self._blocks.add(block, end, 0, wanted=True)
            self.run(self._blocks)
            self.forget(0, end)
