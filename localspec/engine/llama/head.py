"""What all draft heads of libllama share: a context of their own beside the target's, and batches
of tokens with hidden states.

A head is a few layers of the target's file, or a small model in a file of its own. Its cache has
the positions of the target's, and may begin anywhere: it reads the newest rows that were kept.
"""

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from localspec.engine.base import Context, EngineConfig
from localspec.engine.interrupt import Interrupt
from localspec.engine.llama.batch import LlamaBatch
from localspec.engine.llama.binding import C, Handle, engine_log, output_address
from localspec.engine.llama.context import LlamaContext
from localspec.engine.llama.features import EngineRows, Features, unstable
from localspec.engine.llama.parameters import create_context, free, load_model
from localspec.engine.llama.vocabulary import LlamaVocabulary
from localspec.engine.logits import BufferLogits
from localspec.errors import EngineError
from localspec.model.facts import N_KEPT, HeadFacts


def n_positions(model: Handle) -> int:
    """How many positions a row without a token has."""
    is_several = C.llama_model_rope_type(model) in (
        C.LLAMA_ROPE_TYPE_MROPE,
        C.LLAMA_ROPE_TYPE_IMROPE,
    )
    return 4 if is_several else 1


MTP_CONTEXT = 1
"""LLAMA_CONTEXT_TYPE_MTP."""


class HeadTarget(Protocol):
    """The engine that a head drafts for."""

    config: EngineConfig
    interrupt: Interrupt
    vocabulary: LlamaVocabulary
    handle: Handle | None
    features: Features | None

    @property
    def model(self) -> Handle: ...


class LlamaHead:
    """A head's model and context. `n_rows` is the room of a batch; each of its rows has a state of
    `width` numbers, and at most `n_outputs` of them have logits."""

    def __init__(
        self,
        target: HeadTarget,
        facts: HeadFacts,
        *,
        n_rows: int = N_KEPT,
        n_outputs: int | None = None,
        hands_out_states: bool = True,
        **parameters: Any,
    ) -> None:
        n_sequences = target.config.settings.n_sequences
        settings = replace(target.config.settings, load_mtp=True, kv_k="f16", kv_v="f16")
        path = facts.path or target.config.model
        self.config = EngineConfig(path, settings, n_outputs or n_sequences)
        self.facts, self.target, self.interrupt = facts, target, target.interrupt
        self.vocabulary = target.vocabulary
        self.busy_s, self.n_decodes = 0.0, 0
        self.model: Handle | None = None
        self.handle: Handle | None = None
        try:
            if facts.path is not None:
                self.model = load_model(self.config, self.interrupt, lambda fraction: None)
            self.handle = create_context(
                self.config, self.model or target.model, ctx_other=target.handle, n_batch=n_rows,
                n_ubatch=n_rows, kv_unified=True, n_rs_seq=0, **parameters,
            )  # fmt: skip
            unstable("llama_set_embeddings_nextn")(self.handle, hands_out_states, False)
        except BaseException:
            self.close()
            raise
        model = self.model or target.model
        self.n_embd: int = C.llama_model_n_embd_out(model)
        self._n_vocab: int = C.llama_vocab_n_tokens(C.llama_model_get_vocab(model))
        self._memory = C.llama_get_memory(self.handle)
        self._given_states, self._given_scores = EngineRows(self.n_embd), EngineRows(self._n_vocab)
        self._states_at = unstable("llama_get_embeddings_nextn")
        self.batch = LlamaBatch(n_rows, n_sequences, self.n_embd)

    def close(self) -> None:
        free(self.handle, self.model)
        self.handle = self.model = None

    @property
    def features(self) -> Features:
        """What the target keeps for it."""
        assert self.target.features, "a head is made by its target"
        return self.target.features

    def set_threads(self, n_threads: int, n_threads_batch: int) -> None:
        C.llama_set_n_threads(self.handle, n_threads, n_threads_batch)

    def is_ready(self, context: Context) -> bool:
        assert isinstance(context, LlamaContext)
        self.features.ask()
        rows = self.features.of(context.sequence)
        return rows.first < len(context.tokens) <= rows.end

    def forget(self, sequence: int, position: int) -> None:
        """Drop a sequence's cells from a position on."""
        if self._memory:
            C.llama_memory_seq_rm(self._memory, sequence, position, -1)

    def run(self, batch: LlamaBatch, *, keeps: bool = False, encodes: bool = False) -> None:
        """Evaluate what was added, which the batch `keeps` on request. EngineError where the engine
        fails."""
        filled = batch.filled()
        if not keeps:
            batch.n_rows = 0
        self.evaluate(filled, C.llama_encode if encodes else C.llama_decode)

    def evaluate(self, filled: Any, call: Any = C.llama_decode) -> None:
        """Evaluate what a batch was filled with. EngineError where the engine fails."""
        started = perf_counter()
        code = call(self.handle, filled)
        C.llama_synchronize(self.handle)
        self.busy_s += perf_counter() - started
        self.n_decodes += 1
        if code != 0:
            raise EngineError(
                f"the draft head could not evaluate (code {code}): {engine_log.reason()}"
            )

    def states(self, n_rows: int) -> npt.NDArray[np.float32]:
        """Hidden states of the last call, one of each row, shape (n_rows, n_embd), a view."""
        return self._given_states.at(self._states_at(self.handle), n_rows)

    def state_address(self, row: int) -> int:
        """Where one of these states lies."""
        address: int | None = self._states_at(self.handle)
        if address is None:
            raise EngineError("the engine gave no hidden states")
        return address + 4 * self.n_embd * row

    def run_made_up(self, tokens: Sequence[int], position: int, n_logits: int) -> None:
        """Evaluate rows with states of zeros; the last `n_logits` have scores."""
        zeros, n_silent = np.zeros((len(tokens), self.n_embd), np.float32), len(tokens) - n_logits
        for part, wanted in ((tokens[:n_silent], False), (tokens[n_silent:], True)):
            # A head without a cache reads no rows but those that it drafts from.
            if wanted or not self.facts.needs_target_cache:
                self.batch.add_states(part, position, 0, zeros[: len(part)], wanted=wanted)
            position += len(part)
        if self.batch.n_rows:
            self.run(self.batch)

    def scores(self, n_rows: int) -> npt.NDArray[np.float32]:
        """Those of the `n_rows` outputs of the last call, shape (n_rows, n_vocab), a view."""
        return self._given_scores.at(output_address(self.handle), n_rows)

    def logits(self, rows: Sequence[int], n_rows: int) -> list[BufferLogits]:
        """These rows of the `n_rows` outputs of the last call."""
        scores = self.scores(n_rows)
        return [BufferLogits(self, scores[i : i + 1]) for i in rows]

    def scratch(self) -> "HeadScratch":
        """For measurements, before anything is drafted: hidden states are zeros."""
        return HeadScratch(self)


class HeadScratch:
    """A sequence of a head for measurements, which stands for no text."""

    def __init__(self, engine: LlamaHead) -> None:
        self.engine = engine
        self.tokens: list[int] = []

    def eval(self, tokens: Sequence[int], n_logits: int) -> BufferLogits:
        """Append tokens with states of zeros; scores of something."""
        head = self.engine
        for start in range(0, len(tokens), head.batch.capacity):
            part = tokens[start : start + head.batch.capacity]
            head.run_made_up(part, len(self.tokens), n_logits)
            self.tokens += part
        return head.logits([0], 1)[0] if n_logits else BufferLogits(head, _NO_ROWS)

    def go_back(self, n: int) -> None:
        self.engine.forget(0, n)
        del self.tokens[n:]

    truncate = go_back

    def checkpoint(self) -> None:
        """Nothing: a head can go back to any place."""


_NO_ROWS = np.empty((0, 0), np.float32)
