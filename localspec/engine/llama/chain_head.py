"""Heads that draft token by token: MTP, Gemma 4's assistants and EAGLE-3.

With x the text and f the target's hidden states, the head reads at each position p the pair
(x[p], f[p-1]) and gives scores of x[p+1] and a state of its own, which stands for f[p] in the next
step of a draft:

- MTP: f is the target's last state; layers behind those of the target, with a cache of their own.
  Of several heads, the i-th drafts the i-th token and reads the whole draft before it.
- Gemma 4's assistants read the target's cache instead; all steps of a draft are at one position.
- EAGLE-3: f are the inputs of three layers, which an encoder makes one vector of. The pair of p
  stands at position p - 1.

Pairs of accepted tokens are read with the target's states, in the same call as the first step of
the next draft: n calls for n tokens. The last pair of such a call, that of the pending token, is
right whatever the target then says; those behind it hold the head's own states and are dropped.

Source: common/speculative.cpp of llama.cpp, which reads accepted tokens in a call of their own.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from localspec.engine.base import Context, HeadRequest
from localspec.engine.llama.batch import LlamaBatch
from localspec.engine.llama.context import LlamaContext
from localspec.engine.llama.features import FeatureRows, Rows, unstable
from localspec.engine.llama.head import MTP_CONTEXT, HeadTarget, LlamaHead, n_positions
from localspec.engine.logits import BufferLogits
from localspec.model.facts import N_KEPT, HeadFacts

N_FOLDED = 16
"""Pairs that are read together with a draft's first step; more go before it, without logits."""


_MANY = 1 << 62
Place = tuple[int, int]
"""A sequence, and a position in the head's cache."""


@dataclass(slots=True)
class _Known:
    """What the head's cache holds of one sequence: pairs up to `end`, with true states.

    `tail` is the token of the last one, which was pending then. `states` are the head's own, behind
    each step of the draft so far. Behind position `n_cells` it holds nothing.
    """

    rows: FeatureRows
    end: int = 0
    tail: int = -1
    n_cells: int = _MANY
    states: list[Rows] = field(default_factory=list[Rows])

    def settle(self, held: Sequence[int]) -> None:
        """Forget what the target has taken back since. The pending token may stand."""
        stable, self.rows.n_unchanged = self.rows.n_unchanged, len(held)
        if self.end > stable:
            stands = self.end == stable + 1 <= len(held) and held[stable] == self.tail
            self.end = self.end if stands else stable
        self.end = min(self.end, len(held))
        self.states.clear()


class ChainHead(LlamaHead):
    """A head that drafts one token after another."""

    def __init__(self, target: HeadTarget, facts: HeadFacts, n: int) -> None:
        n_sequences = target.config.settings.n_sequences
        self._is_eagle = facts.method == "eagle3"
        n_rows = max(N_KEPT, n_sequences * (N_FOLDED + 1))
        parameters: dict[str, Any] = {"ctx_type": MTP_CONTEXT}
        if self._is_eagle:
            # Its graph gives logits for all rows or for none (src/models/eagle3.cpp).
            parameters = {"n_outputs_max": n_rows, "n_seq_max": n_sequences + 1}
        super().__init__(target, facts, n_rows=n_rows, **parameters)
        self._n_chained = facts.n_heads if facts.method == "mtp" else 1
        chained = self._n_chained if self._n_chained > 1 else n
        self.n_longest = min(n, chained, facts.n_draft_max or n)
        self._shift = int(self._is_eagle)
        self._known: dict[int, _Known] = {}
        self._offset = unstable("llama_set_nextn_layer_offset") if self._n_chained > 1 else None
        width = self.features.width if self._is_eagle else 0
        self._no_sequence = n_sequences
        self._taps = LlamaBatch(
            N_KEPT, n_sequences + 1, width, n_positions(self.model or target.model)
        )
        self._early = LlamaBatch(N_KEPT, n_sequences, self.n_embd)

    def draft(
        self, requests: Sequence[HeadRequest], window: int = N_KEPT
    ) -> Sequence[BufferLogits]:
        try:
            return self._draft(requests, window)
        except BaseException:
            self.batch.n_rows = 0
            self._known.clear()
            raise

    def _draft(self, requests: Sequence[HeadRequest], window: int) -> Sequence[BufferLogits]:
        known: list[_Known] = []
        places: list[Place] = []
        ends: list[int] = []
        for context, tokens in requests:
            assert isinstance(context, LlamaContext)
            known.append(self._of(context.sequence))
            places.append(self._add(context, tokens, known[-1], window))
            ends.append(self.batch.n_rows)
        n_rows = self.batch.n_rows
        self._run(self.batch, places, self._heads_of(len(requests[0][1]) - 1))
        states = self.states(n_rows)
        for each, end in zip(known, ends, strict=True):
            each.states.append(states[end - 1].copy())
            each.n_cells = _MANY
        if self._is_eagle:
            return self.logits([end - 1 for end in ends], n_rows)
        return self.logits(range(len(ends)), len(ends))

    def rows(
        self, context: Context, token: int, window: int = N_KEPT
    ) -> Generator[BufferLogits, int]:
        """Rows of one draft, which wants each token that was chosen; see `engine.base.Head.rows`.

        A further step is made of few instructions: a pass leaves nothing of Python in the
        processor's caches, so that each function called takes ten times as long as usual.
        """
        if self._offset:
            tokens = [token]
            while True:
                tokens.append((yield self.draft([(context, tokens)], window)[0]))
        assert isinstance(context, LlamaContext)
        n_rows = self._run_first(context, token, window)
        address = self.state_address(n_rows - 1)
        n_scored = n_rows if self._is_eagle else 1
        token = yield BufferLogits(self, self.scores(n_scored)[n_scored - 1 :])
        place, step = len(context.tokens) - self._shift, int(not self.facts.needs_target_cache)
        known, batch = self._known[context.sequence], self.batch
        batch.add([token], 0, context.sequence, wanted=True)
        filled, scores = batch.filled(), None
        batch.n_rows = 0
        while True:
            place += step
            batch.replace(token, place, address)
            self.evaluate(filled)
            if scores is None:
                address, scores = self.state_address(0), self.scores(1)
            known.n_cells = place + 1
            token = yield BufferLogits(self, scores)

    def _run_first(self, context: LlamaContext, token: int, window: int) -> int:
        """What the head has not read, and the pending token; how many rows that were."""
        self.batch.n_rows = 0
        known = self._of(context.sequence)
        _, place = self._add(context, [token], known, window)
        n_rows, end = self.batch.n_rows, known.end
        if place < known.n_cells and not self.facts.needs_target_cache:
            self.forget(context.sequence, place)
        known.end = 0  # until that is true
        self.run(self.batch)
        known.end, known.n_cells = end, place + n_rows
        return n_rows

    def _heads_of(self, n_drafted: int) -> Sequence[int]:
        """Which heads run for the token behind so many drafted ones: at first all of them, the
        first one last, because the next step goes on from what it gives."""
        return [n_drafted] if n_drafted else range(self._n_chained - 1, -1, -1)

    def _run(self, batch: LlamaBatch, places: Sequence[Place], heads: Sequence[int]) -> None:
        """Evaluate rows in place of those that are there, by these heads one after another."""
        for head in heads:
            if not self.facts.needs_target_cache:
                for sequence, position in places:
                    self.forget(sequence, position)
            if self._offset:
                self._offset(self.handle, head)
            self.run(batch, keeps=head != heads[-1])

    def _add(
        self, context: LlamaContext, tokens: Sequence[int], known: _Known, window: int
    ) -> Place:
        """Add the rows of one request to the batch; where they begin."""
        if len(tokens) > 1:
            return self._add_step(context, tokens, known)
        known.settle(context.tokens)
        if self.facts.needs_target_cache:
            place = len(context.tokens)
            state = self._true(context.sequence, place, place + 1)
            self.batch.add_states(tokens, place, context.sequence, state, wanted=True)
            return context.sequence, place
        return self._add_lacking(context, tokens[0], known, window)

    def _of(self, sequence: int) -> _Known:
        rows, known = self.features.of(sequence), self._known.get(sequence)
        if known is None or known.rows is not rows:
            known = self._known[sequence] = _Known(rows)
        return known

    def _add_step(self, context: LlamaContext, tokens: Sequence[int], known: _Known) -> Place:
        """The newest token of a draft, with the head's own state."""
        position, states = len(context.tokens), known.states[-1:]
        place = position + len(tokens) - 1 - self._shift
        if self.facts.needs_target_cache:
            place = position
        if self._offset:
            states = [self._true(context.sequence, position, position + 1)[0], *known.states]
            place = position
        else:
            tokens = tokens[-1:]
        rows = np.stack(states) if len(states) > 1 else states[0][None]
        self._add_rows(tokens, place, context.sequence, rows)
        return context.sequence, place

    def _add_lacking(self, context: LlamaContext, token: int, known: _Known, window: int) -> Place:
        """The pending token and those before it that the head has not read."""
        held, rows, sequence = context.tokens, known.rows, context.sequence
        position = len(held)
        start = rows.first + 1 if rows.first or self._is_eagle else 0
        if not rows.first < position <= rows.end:
            start = position  # nothing was kept of what is there
        start = max(start, known.end or position + 1 - window)
        if start > known.end:  # what it has read does not reach so far
            self.forget(sequence, 0)
        known.end, known.tail = position + 1, token
        text, states = [*held[start:position], token], self._true(sequence, start, position + 1)
        n_early = max(0, len(text) - 1 - N_FOLDED)
        if n_early:
            place, states = start - self._shift, states.copy()
            self._early.add_states(text[:n_early], place, sequence, states[:n_early], wanted=False)
            self._run(self._early, [(sequence, place)], self._heads_of(0))
        place = start + n_early - self._shift
        self._add_rows(text[n_early:], place, sequence, states[n_early:])
        return sequence, place

    def _add_rows(self, tokens: Sequence[int], place: int, sequence: int, states: Rows) -> None:
        """With scores of what follows the last one."""
        self.batch.add_states(tokens, place, sequence, states, wanted=self._is_eagle)
        self.batch.want_last()

    def _true(self, sequence: int, start: int, end: int) -> Rows:
        """The target's states of pairs `start` .. `end` - 1, zeros where they were not kept, until
        the head runs again."""
        rows = self.features.of(sequence)
        first = max(start, rows.first + 1)
        known: Rows | None = None
        if rows.first < rows.end and first < end <= rows.end + 1:
            features = rows.of(first - 1, end - 1)
            known = self._encoded(features) if self._is_eagle else features[:, 0]
            if first == start:
                return known
        states = np.zeros((end - start, self.n_embd), np.float32)
        if known is not None:
            states[first - start :] = known
        return states

    def _encoded(self, features: Rows) -> Rows:
        """EAGLE-3's encoder makes one state of several. It has no cache; libllama wants positions
        that follow those of the sequence, so it gets one that never holds anything."""
        self._taps.add_nameless(self._no_sequence, features)
        self.run(self._taps, encodes=True)
        return self.states(len(features))
