"""A model's fingerprint: whether two files are the same model, without reading gigabytes.

It covers the size of each part, its first megabyte (of the first part the header, with every name,
type and offset) and three samples of the weights. Files that differ only elsewhere in the weights
share it, which no converter or trainer produces by chance; a download's checksum covers every byte.
Profiles, quality references, saved caches, measured costs and bench results are kept by it.
"""

import errno
import hashlib
import stat
import time
from functools import lru_cache
from pathlib import Path

from localspec.gguf.reader import PART_NAME, SETTLED_S, part_names

HEAD_BYTES = 1 << 20
SAMPLE_BYTES = 1 << 16
SAMPLES = (0.25, 0.5, 1.0)
"""Parts of the file where they end."""


def fingerprint(path: Path) -> str:
    """16 hex digits for a local model, one file or split. Raises OSError."""
    states = [(str(part), part.stat()) for part in parts_of(path)]
    # Opening a pipe would wait for its writer.
    if odd := [name for name, state in states if not stat.S_ISREG(state.st_mode)]:
        raise OSError(errno.EINVAL, "not a regular file", odd[0])
    key = tuple((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in states)
    is_settled = all(time.time() - state.st_mtime > SETTLED_S for _, state in states)
    return _fingerprint(key) if is_settled else _fingerprint.__wrapped__(key)


@lru_cache(maxsize=8)
def _fingerprint(parts: tuple[tuple[str, int, int, int], ...]) -> str:
    """Of files by name and what the system says of each: one that is written anew has another."""
    digest = hashlib.sha256()
    for name, _, size, _ in parts:
        digest.update(f"{size}\n".encode())
        with Path(name).open("rb") as file:
            digest.update(file.read(HEAD_BYTES))
            for share in SAMPLES:
                file.seek(max(0, int(share * size) - SAMPLE_BYTES))
                digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def parts_of(path: Path) -> list[Path]:
    """The file, or all parts that are there of a split model, by the name of one."""
    match = PART_NAME.fullmatch(path.name)
    names = part_names(path.name, int(match[3])) if match else None
    if not names:
        return [path]
    return [part for name in names if (part := path.with_name(name)).exists()]
