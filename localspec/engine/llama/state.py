"""One sequence's cache to a file and back, in libllama's own format, with the tokens it holds.

A file has cells and tokens but no logits and no random numbers: a restored sequence must evaluate a
token before anything is chosen, as `hold` and the driver do. The engine checks the shape of what it
loads but not which model wrote it; `session.state_key` does. A damaged file would stop the
process, so a seal (lengths and CRC-32) follows the engine's data, where the engine does not read.
Between them stands the newest checkpoint of an earlier place: without it a conversation that goes
on tomorrow would be read again where its template drops the last thought.
"""

import ctypes
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from localspec.engine.llama.binding import C, engine_log
from localspec.engine.llama.memory import Checkpoint, SequenceMemory
from localspec.errors import EngineError
from localspec.store import write_whole

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
