"""One sequence's cache to a file and back, in libllama's own format, with the tokens it holds.

A file has cells and tokens but no logits and no random numbers: a restored sequence must evaluate a
token before anything is chosen, as `hold` and the driver do. The engine checks the shape of what it
loads but not which model wrote it; `chat.states.state_key` does. A damaged file would stop the
process, so a seal (length and CRC-32) follows the engine's data, where the engine does not read.
"""

import ctypes
import os
import struct
import zlib
from pathlib import Path

from localspec.engine.llama.binding import C, Handle, engine_log
from localspec.errors import EngineError
from localspec.store import write_whole

_SEAL = struct.Struct("<8sQI")
_MAGIC = b"lspstate"
_CHUNK_BYTES = 1 << 20


def save_sequence(context: Handle | None, sequence: int, tokens: list[int], path: Path) -> None:
    """Write a whole file that survives a power cut, or none. EngineError where that fails."""
    ids = (C.llama_token * len(tokens))(*tokens)
    engine_log.clear()
    try:
        with write_whole(path) as partial:
            n_bytes = C.llama_state_seq_save_file(
                context, os.fsencode(partial), sequence, ids, len(tokens)
            )
            if n_bytes == 0:
                raise EngineError(f"{path} could not be written: {engine_log.reason()}")
            _seal(partial)
    except OSError as error:
        raise EngineError(f"{path} could not be written: {error.strerror or error}") from error


def load_sequence(
    context: Handle | None, sequence: int, capacity: int, path: Path
) -> list[int] | None:
    """The tokens of what the sequence now holds; None where the file does not fit or is damaged.

    Then the sequence's content is undefined and must be cleared.
    """
    if not _is_whole(path):
        return None
    ids, n_tokens = (C.llama_token * max(1, capacity))(), ctypes.c_size_t()
    n_bytes = C.llama_state_seq_load_file(
        context, os.fsencode(path), sequence, ids, capacity, ctypes.byref(n_tokens)
    )
    return ids[: n_tokens.value] if n_bytes else None


def _seal(path: Path) -> None:
    n_bytes = path.stat().st_size
    seal = _SEAL.pack(_MAGIC, n_bytes, _checksum(path, n_bytes))
    with path.open("ab") as file:
        file.write(seal)


def _is_whole(path: Path) -> bool:
    try:
        n_bytes = path.stat().st_size - _SEAL.size
        if n_bytes <= 0:
            return False
        with path.open("rb") as file:
            file.seek(n_bytes)
            magic, length, checksum = _SEAL.unpack(file.read(_SEAL.size))
        return (magic, length) == (_MAGIC, n_bytes) and checksum == _checksum(path, n_bytes)
    except (OSError, struct.error):
        return False


def _checksum(path: Path, n_bytes: int) -> int:
    """Of the first `n_bytes`."""
    checksum = 0
    with path.open("rb") as file:
        while n_bytes > 0 and (data := file.read(min(_CHUNK_BYTES, n_bytes))):
            checksum = zlib.crc32(data, checksum)
            n_bytes -= len(data)
    return checksum
