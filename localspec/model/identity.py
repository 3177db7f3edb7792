"""Whether two files are the same model, told without reading gigabytes.

The digest is of the size, the first megabyte (the header), the last one, and 64 pieces of 16 KiB
spread between them. Two files that share it and differ are possible only on purpose; the checksum
of a download is another matter and covers every byte.

A short hash that tells model files apart without reading them whole.

Sizes and the beginning of each part (of the first that is the header, with every name, type and
offset) and three samples of the weights. Files that differ only elsewhere in the weights share it,
which no converter or trainer produces by chance.
"""

import hashlib
from pathlib import Path

from localspec.gguf.reader import PART_NAME, part_names

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


HEAD_BYTES = 1 << 20
SAMPLE_BYTES = 1 << 16
SAMPLES = (0.25, 0.5, 1.0)
"""Parts of the file where they end."""


def model_digest(path: Path) -> str:
    """16 hex digits for a local model, one file or split. Raises OSError."""
    digest = hashlib.sha256()
    for part in _parts(path):
        size = part.stat().st_size
        digest.update(f"{size}\n".encode())
        with part.open("rb") as file:
            digest.update(file.read(HEAD_BYTES))
            for share in SAMPLES:
                file.seek(max(0, int(share * size) - SAMPLE_BYTES))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def _parts(path: Path) -> list[Path]:
    """All parts that are there of a model, by the name of one."""
    match = PART_NAME.fullmatch(path.name)
    names = part_names(path.name, int(match[3])) if match else None
    parts = [path.with_name(name) for name in names or [path.name]]
    return [part for part in parts if part.exists()]
