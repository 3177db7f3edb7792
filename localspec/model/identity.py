"""Whether two files are the same model, told without reading gigabytes.

The digest is of the size, the first megabyte (the header), the last one, and 64 pieces of 16 KiB
spread between them. Two files that share it and differ are possible only on purpose; the checksum
of a download is another matter and covers every byte.
"""

import hashlib
from pathlib import Path

_END_BYTES = 1 << 20
_PIECE_BYTES = 16 << 10
_N_PIECES = 64


def sampled_digest(path: Path) -> str:
    """16 hex digits; raises OSError."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    inner = max(0, size - 2 * _END_BYTES)
    pieces = [(_END_BYTES + i * inner // _N_PIECES, _PIECE_BYTES) for i in range(_N_PIECES)]
    with path.open("rb") as file:
        for offset, n_bytes in [(0, _END_BYTES), *pieces, (max(0, size - _END_BYTES), _END_BYTES)]:
            file.seek(offset)
            digest.update(file.read(n_bytes))
    return digest.hexdigest()[:16]
