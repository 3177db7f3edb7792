"""LlamaEngine: a model loaded by libllama, its sequences, and the decode that they share.

Rows without logits go first, in micro-batches of `ubatch`: a stop is seen between them, and all
wanted logits come from the last call. Where they are more than a micro-batch, as those of many
sequences with drafts can be, those of the calls before it are copied. `busy_s` sums the time inside
libllama; the rest of a step's wall time is localspec's own overhead.
"""

import ctypes
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from localspec.engine.base import EngineConfig, Request
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.llama.batch import LlamaBatch
from localspec.engine.llama.binding import C, Handle, engine_log, initialise, output_address
from localspec.engine.llama.context import LlamaContext
from localspec.engine.llama.devices import has_layers_elsewhere
from localspec.engine.llama.parameters import NO_ABORT, create_context, free, load_model
from localspec.engine.llama.replay import rollback_limit
from localspec.engine.llama.rollback import LlamaMemory
from localspec.engine.llama.vocabulary import LlamaVocabulary
from localspec.engine.logits import BufferLogits
from localspec.errors import EngineError
from localspec.model.facts import HeadFacts
from localspec.notify import Progress

if TYPE_CHECKING:
    from localspec.engine.llama.block_head import BlockHead
    from localspec.engine.llama.chain_head import ChainHead
    from localspec.engine.llama.features import Features
    from localspec.engine.llama.parameters import EarlyWeights

_ABORTED, _NO_SLOT = 2, 1
_PREFILL_ROWS = 32
"""From here on the abort callback is worth its price: 0.5 ms a decode, from Python."""
_PIECE_S = 0.3
"""Of a pass over a piece of a prompt on a device: only the processor's backend can be stopped in
the middle of one (ggml_backend_set_abort_callback is in ggml-cpu alone)."""

_Job = tuple[LlamaContext, Sequence[int], int]


class LlamaEngine:
    """A GGUF model loaded by libllama, with a cache for as many sequences as its settings say."""

    def __init__(
        self,
        config: EngineConfig,
        interrupt: Interrupt | None = None,
        on_progress: Progress = lambda fraction: None,
        weights_of: "LlamaEngine | None" = None,
        early: "EarlyWeights | None" = None,
    ) -> None:
        initialise()
        self.config = config
        self.interrupt = interrupt or Interrupt()
        self.busy_s, self._n_ctx = 0.0, config.n_ctx
        self.n_decodes = 0
        started = perf_counter()
        self._owns_model = weights_of is None
        model, context = early.taken() if early else (None, None)
        self._model: Handle | None = (
            weights_of.model
            if weights_of
            else model or load_model(config, self.interrupt, on_progress)
        )
        self.load_s = early.load_s if early else perf_counter() - started
        """What loading the weights took."""
        self.handle: Handle | None = context
        self.features: Features | None = None
        """What is kept of each pass for a draft head."""
        self._parts: list[tuple[int, int, int]] = []
        self._heads: list[ChainHead | BlockHead] = []
        try:
            self.handle = context or create_context(config, self.model)
            self.memory = LlamaMemory(self.handle, self.model)
            self._batch = LlamaBatch(
                min(config.settings.ubatch, config.n_ctx), config.settings.n_sequences
            )
            self._contexts: list[LlamaContext] = []
            self._is_torn = False
            self._reads_in_pieces = has_layers_elsewhere(config.settings)
            self._piece: int | None = None
            self._abort = C.ggml_abort_callback(lambda _: self.interrupt.requested)
            own = weights_of.vocabulary if weights_of else None
            self.vocabulary = own or LlamaVocabulary(self.model, config.model)
            self._address: int | None = None
            self._output_address: int | None = None
            self._output = np.empty((0, self.vocabulary.n_tokens), np.float32)
            self.n_window = self.memory.n_window
            self.rollback_limit = rollback_limit(self.memory, self.scratch(), config)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for head in self._heads:
            head.close()
        free(self.handle, self._model if self._owns_model else None)
        self.handle = self._model = None

    @property
    def model(self) -> Handle:
        """The loaded weights. EngineError after `close`."""
        if self._model is None:
            raise EngineError("this engine is closed")
        return self._model

    def sibling(self, config: EngineConfig) -> "LlamaEngine":
        """Another cache on the same weights, which must outlive it; `config` cannot reload them."""
        return LlamaEngine(config, self.interrupt, weights_of=self)

    def set_threads(self, n_threads: int, n_threads_batch: int) -> None:
        C.llama_set_n_threads(self.handle, n_threads, n_threads_batch)

    def context(self) -> LlamaContext:
        n = len(self._contexts)
        if n == self.config.settings.n_sequences:
            raise EngineError(f"all {n} sequences of this engine are in use")
        self._contexts.append(LlamaContext(self, n))
        return self._contexts[-1]

    def scratch(self) -> LlamaContext:
        return LlamaContext(self, 0)

    def head(self, facts: HeadFacts, n: int) -> "ChainHead | BlockHead":
        from localspec.engine.llama.block_head import BlockHead  # noqa: PLC0415 - few files have one
        from localspec.engine.llama.chain_head import ChainHead  # noqa: PLC0415
        from localspec.engine.llama.features import Features  # noqa: PLC0415

        assert self.handle
        n_embd = (C.llama_model_n_embd if facts.taps else C.llama_model_n_embd_out)(self.model)
        self.features = Features(self.handle, n_embd, facts.taps)
        try:
            head = (BlockHead if facts.block else ChainHead)(self, facts, n)
        except BaseException:
            self.features = None
            raise
        self._heads.append(head)
        return head

    def decode(self, requests: Sequence[Request]) -> list[BufferLogits | EngineError]:
        refusals = self._refusals(requests)
        jobs: Any = requests
        if refusals:
            jobs = [job for i, job in enumerate(requests) if i not in refusals]
        self.n_decodes += 1
        self._n_left = sum([len(tokens) for _, tokens, _ in jobs]) if self.features else 0
        n_outputs = 0
        for context, tokens, n_logits in jobs:
            n_outputs += n_logits
            if len(tokens) > n_logits:
                self._read(context, tokens[: len(tokens) - n_logits])
        assert n_outputs <= self.config.n_outputs, "more logits than the engine has room for"
        rows, end = self._evaluated(jobs, n_outputs), 0
        results: list[BufferLogits | EngineError] = []
        for _, _, n_logits in jobs:
            results.append(BufferLogits(self, rows, start=end))
            end += n_logits
        for i, refusal in refusals.items():
            results.insert(i, refusal)
        return results

    def _refusals(self, requests: Sequence[Request]) -> dict[int, EngineError]:
        """Of requests that would outgrow their sequence's limit, by their place."""
        refusals: dict[int, EngineError] = {}
        limit, has_window = self._n_ctx, self.memory.n_window > 0
        for i, (context, tokens, _) in enumerate(requests):
            assert isinstance(context, LlamaContext)
            assert context.engine is self
            needed = len(context.tokens) + len(tokens)
            if needed > limit:
                sentence = f"{needed:,} tokens do not fit into a context of {limit:,}"
                refusals[i] = EngineError(f"{sentence}: use a larger --ctx")
            elif has_window:
                context.memory.note_window(len(context.tokens), len(tokens))
        return refusals

    def _evaluated(self, jobs: Sequence[_Job], n_outputs: int) -> npt.NDArray[np.float32]:
        """The rows with logits, which go behind all that were read; others may follow them."""
        if n_outputs > self._batch.capacity - self._batch.n_rows:
            self._flush()
        early: list[npt.NDArray[np.float32]] = []
        for context, tokens, n_logits in jobs:
            if n_logits:
                self._append(context, tokens[len(tokens) - n_logits :], early)
        self._flush()
        if not early:
            return self._output
        return np.concatenate([*early, self._output[: n_outputs - sum(map(len, early))]])

    def _read(self, context: LlamaContext, tokens: Sequence[int]) -> None:
        """A prompt; of a long one on a device, pieces that a stop need not wait for."""
        done, most = 0, self._piece or 2 * _PREFILL_ROWS
        while self._reads_in_pieces and len(tokens) - done > most:
            n = self._piece or _PREFILL_ROWS
            self._append(context, tokens[done : done + n])
            self._flush()
            if self.interrupt.requested:
                raise Interrupted
            done, most = done + n, self._piece or most
        self._append(context, tokens[done:])

    def _append(
        self,
        context: LlamaContext,
        tokens: Sequence[int],
        early: list[npt.NDArray[np.float32]] | None = None,
    ) -> None:
        """Add rows, with logits where there is a list for those of a full micro-batch: the next
        one overwrites them."""
        batch, done = self._batch, 0
        while done < len(tokens):
            if batch.n_rows == batch.capacity:
                self._flush()
                if early is not None:
                    early.append(self._output[: batch.capacity].copy())
            part = tokens[done : done + batch.capacity - batch.n_rows]
            if self.memory.keeps_state:
                context.memory.begin(len(context.tokens))
            if self.features:
                self._parts.append((context.sequence, len(context.tokens), len(part)))
            batch.add(part, len(context.tokens), context.sequence, wanted=early is not None)
            context.tokens.extend(part)
            done += len(part)

    def _flush(self) -> None:
        n_rows, started = self._batch.n_rows, perf_counter()
        if n_rows == 0:
            return
        self._is_torn = False
        try:
            if self.features:
                self._n_left -= n_rows
                self.features.prepare(self._n_left)
            if code := self._decode_batch():
                self._fail(code)
            if self._reads_in_pieces and n_rows >= min(self._piece or _PREFILL_ROWS, _PREFILL_ROWS):
                fitting = int(n_rows * _PIECE_S / max(1e-6, perf_counter() - started))
                self._piece = max(1, min(self.config.settings.ubatch, fitting))
            if self.features:
                self.features.take(self._parts)
        except BaseException:
            for context in self._contexts:
                context.resynchronise(is_torn=self._is_torn)
            raise
        finally:
            self._batch.n_rows = 0
            self._parts.clear()

    def _decode_batch(self) -> int:
        guarded = self._batch.n_rows >= _PREFILL_ROWS
        if guarded:
            if self.interrupt.requested:
                return _ABORTED
            C.llama_set_abort_callback(self.handle, self._abort, None)
        started = perf_counter()
        code = C.llama_decode(self.handle, self._batch.filled())
        if code == 0:
            self._address = output_address(self.handle)  # waits for a device, too
        self.busy_s += perf_counter() - started
        if self._address != self._output_address:
            self._find_output()
        if guarded:
            C.llama_set_abort_callback(self.handle, NO_ABORT, None)
        self._is_torn = code != 0
        self.memory.n_flushes += 1
        return code

    def _fail(self, code: int) -> NoReturn:
        if code == _ABORTED:
            raise Interrupted
        if code == _NO_SLOT:
            raise EngineError(f"the cache of {self._n_ctx:,} tokens is full: use a larger --ctx")
        raise EngineError(f"the engine could not evaluate (code {code}): {engine_log.reason()}")

    def _find_output(self) -> None:
        """The engine's output buffer as an array, shape (n_outputs, n_vocab); it seldom moves."""
        self._output_address = address = self._address
        if address is not None:
            shape = self.config.n_outputs, self.vocabulary.n_tokens
            buffer: Any = (ctypes.c_float * (shape[0] * shape[1])).from_address(address)
            self._output = np.frombuffer(buffer, np.float32).reshape(shape)
