"""A short hash that tells model files apart without reading them whole.

Sizes and the beginning of each part (of the first that is the header, with every name, type and
offset) and three samples of the weights. Files that differ only elsewhere in the weights share it,
which no converter or trainer produces by chance.
"""

import hashlib
from pathlib import Path

from localspec.model.gguf import PART_NAME, part_names

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
