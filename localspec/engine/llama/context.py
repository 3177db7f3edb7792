"""LlamaContext: one sequence in an engine's cache and its tokens, also to a file and back.

It knows its engine as the owner of the cache, so `engine.py` imports this and not the reverse.

A file has cells and tokens but no logits and no random numbers: a restored sequence must evaluate a
token before anything is chosen, as `hold` and the driver do. The engine checks the shape of what it
loads but not which model wrote it; `session.disk_cache.state_key` does. A damaged file would stop
the process, so a seal (lengths and CRC-32) follows the engine's data, where the engine does not
read. Between them stands the newest checkpoint of an earlier place: without it a conversation that
goes on tomorrow would be read again where its template drops the last thought.
"""

import ctypes
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from localspec.engine.base import Context, HeldTokens, Request
from localspec.engine.llama.binding import C, Handle, engine_log
from localspec.engine.llama.rollback import Checkpoint, LlamaMemory, SequenceMemory
from localspec.engine.logits import BufferLogits
from localspec.engine.timing import TimedEngine
from localspec.errors import EngineError
from localspec.store import write_whole

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


_SEAL = struct.Struct("<8sQQI")
_MAGIC = b"lspstat2"
_CHECKPOINT = struct.Struct("<QB?")
"""Its tokens, the flags of its copy, and whether it is whole."""
_CHUNK_BYTES = 1 << 20


def save_sequence(memory: SequenceMemory, tokens: list[int], path: Path) -> None:
    """Write a whole file that survives a power cut, or none. EngineError where that fails."""
    ids = (C.llama_token * len(tokens))(*tokens)
    engine_log.clear()
    try:
        with write_whole(path) as partial:
            n_bytes = C.llama_state_seq_save_file(
                memory.memory.context, os.fsencode(partial), memory.sequence, ids, len(tokens)
            )
            if n_bytes == 0:
                raise EngineError(f"{path} could not be written: {engine_log.reason()}")
            _seal(partial, memory.behind(len(tokens)), memory.memory.flags)
    except OSError as error:
        raise EngineError(f"{path} could not be written: {error.strerror or error}") from error


def load_sequence(memory: SequenceMemory, capacity: int, path: Path) -> list[int] | None:
    """The tokens of what the sequence now holds; None where the file does not fit or is damaged.

    Then the sequence's content is undefined and must be cleared.
    """
    n_engine = _engine_bytes(path)
    if n_engine is None:
        return None
    ids, n_tokens = (C.llama_token * max(1, capacity))(), ctypes.c_size_t()
    n_bytes = C.llama_state_seq_load_file(
        memory.memory.context,
        os.fsencode(path),
        memory.sequence,
        ids,
        capacity,
        ctypes.byref(n_tokens),
    )
    if n_bytes == 0:
        return None
    memory.take_over(_checkpoint(path, n_engine, memory.memory.flags))
    return ids[: n_tokens.value]


def checkpoint_bytes(memory: SequenceMemory) -> int:
    """What a file has beside the engine's own data."""
    newest = memory.behind(memory.memory.length(memory.sequence))
    return _SEAL.size + (_CHECKPOINT.size + newest.data.size if newest else 0)


def _seal(path: Path, newest: Checkpoint | None, flags: int | None) -> None:
    n_engine = path.stat().st_size
    with path.open("ab") as file:
        if newest is not None:
            file.write(_CHECKPOINT.pack(newest.n_tokens, flags, newest.is_whole))
            file.write(newest.data.data)
    n_bytes = path.stat().st_size
    seal = _SEAL.pack(_MAGIC, n_engine, n_bytes, _checksum(path, n_bytes))
    with path.open("ab") as file:
        file.write(seal)


def _engine_bytes(path: Path) -> int | None:
    """How much of a file is the engine's; None where it is damaged."""
    try:
        n_bytes = path.stat().st_size - _SEAL.size
        if n_bytes <= 0:
            return None
        with path.open("rb") as file:
            file.seek(n_bytes)
            magic, n_engine, length, checksum = _SEAL.unpack(file.read(_SEAL.size))
        is_whole = (magic, length) == (_MAGIC, n_bytes) and checksum == _checksum(path, n_bytes)
        return n_engine if is_whole else None
    except (OSError, struct.error):
        return None


def _checkpoint(path: Path, start: int, flags: int | None) -> Checkpoint | None:
    """That of a file that is whole; None where it has none, or was copied in another way."""
    with path.open("rb") as file:
        file.seek(start)
        rest = file.read()[: -_SEAL.size]
    if not rest:
        return None
    n_tokens, own_flags, is_whole = _CHECKPOINT.unpack_from(rest)
    data = np.frombuffer(rest, np.uint8, offset=_CHECKPOINT.size).copy()
    return Checkpoint(n_tokens, data, is_whole) if own_flags == flags else None


def _checksum(path: Path, n_bytes: int) -> int:
    """Of the first `n_bytes`."""
    checksum = 0
    with path.open("rb") as file:
        while n_bytes > 0 and (data := file.read(min(_CHUNK_BYTES, n_bytes))):
            checksum = zlib.crc32(data, checksum)
            n_bytes -= len(data)
    return checksum
