"""LlamaContext: one sequence in an engine's cache, and the tokens that it holds.

It knows its engine as the owner of the cache, so `engine.py` imports this and not the reverse.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from localspec.engine.base import Context, HeldTokens, Request
from localspec.engine.llama.binding import C, Handle
from localspec.engine.llama.memory import LlamaMemory, SequenceMemory
from localspec.engine.llama.state import checkpoint_bytes, load_sequence, save_sequence
from localspec.engine.logits import BufferLogits
from localspec.engine.timing import TimedEngine
from localspec.errors import EngineError

if TYPE_CHECKING:
    from localspec.engine.llama.features import Features


class CacheOwner(TimedEngine, Protocol):
    """The engine of a sequence: libllama's context and its memory, behind the seam's verbs."""

    handle: Handle | None
    memory: LlamaMemory
    features: "Features | None"

    def decode(self, requests: Sequence[Request]) -> Sequence[BufferLogits | EngineError]: ...


class LlamaContext(HeldTokens):
    """One sequence in the cache of a LlamaEngine."""

    def __init__(self, engine: CacheOwner, sequence: int) -> None:
        self.engine = engine
        self.sequence = sequence
        self.tokens: list[int] = []
        self.memory = SequenceMemory(engine.memory, sequence)

    def go_back(self, n: int) -> None:
        if n >= len(self.tokens):
            return
        if self.engine.memory.is_limited:
            n = self.memory.go_back(n, len(self.tokens))
        else:
            self.engine.memory.forget(self.sequence, n)
        del self.tokens[n:]

    def fork(self, other: Context, n: int) -> None:
        assert isinstance(other, LlamaContext)
        memory = self.engine.memory
        if memory.is_limited or not self.engine.config.settings.kv_unified:
            return
        self.clear()
        memory.share(other.sequence, self.sequence, n)
        self.tokens = other.tokens[:n]

    def clear(self) -> None:
        """Forget everything, which every kind of memory can."""
        self.memory.clear()
        self.tokens = []
        if self.engine.features:
            self.engine.features.forget(self.sequence)

    def checkpoint_place(self, n: int) -> int | None:
        return self.memory.place(n, len(self.tokens))

    def checkpoint(self) -> None:
        self.memory.checkpoint(len(self.tokens))

    def save(self, path: Path) -> None:
        save_sequence(self.memory, self.tokens, path)

    def restore(self, path: Path) -> bool:
        self.clear()
        tokens = load_sequence(self.memory, self.engine.config.n_ctx, path)
        if tokens is None or len(tokens) != self.engine.memory.length(self.sequence):
            self.clear()
            return False
        self.tokens = tokens
        return True

    @property
    def state_bytes(self) -> int:
        engine_bytes = C.llama_state_seq_get_size(self.engine.handle, self.sequence)
        return engine_bytes + checkpoint_bytes(self.memory)

    def resynchronise(self, *, is_torn: bool) -> None:
        """After a failed decode: hold what the cache says it holds. It `is_torn` if evaluation had
        begun: nobody knows then what a state is of."""
        n = self.engine.memory.length(self.sequence)
        if is_torn and self.engine.memory.keeps_state:
            n = self.memory.resume(n)
        del self.tokens[n:]
