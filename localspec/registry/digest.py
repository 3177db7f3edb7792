"""What a file's bytes are: SHA-256 of all of them, and a CRC-32 of every 4 MiB.

The one proves that they are the hub's, the other says where they stopped to be: of a model of
gigabytes, a flipped bit costs the fetching of one block.
"""

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

BLOCK_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Digest:
    """`blocks`: CRC-32 of each block, in hexadecimal, one after another."""

    sha256: str
    n_bytes: int
    blocks: str

    @classmethod
    def of(cls, path: Path, on_bytes: Callable[[int], None]) -> Self:
        """Read all of a file. Raises OSError."""
        whole, blocks, n_bytes = hashlib.sha256(), list[str](), 0
        buffer = memoryview(bytearray(BLOCK_BYTES))
        with path.open("rb", buffering=0) as file:
            while n := _fill(file.readinto, buffer):
                whole.update(buffer[:n])
                blocks.append(f"{zlib.crc32(buffer[:n]):08x}")
                n_bytes += n
                on_bytes(n_bytes)
        return cls(whole.hexdigest(), n_bytes, "".join(blocks))

    def damaged(self, now: Self) -> list[tuple[int, int]]:
        """Where `now` differs or ends early: offsets from and to, of whole blocks."""
        spans: list[tuple[int, int]] = []
        for i in range(len(self.blocks) // 8):
            if self.blocks[8 * i : 8 * i + 8] == now.blocks[8 * i : 8 * i + 8]:
                continue
            begin, end = i * BLOCK_BYTES, min((i + 1) * BLOCK_BYTES, self.n_bytes)
            if spans and spans[-1][1] == begin:
                begin = spans.pop()[0]
            spans.append((begin, end))
        return spans


def _fill(read: Callable[[memoryview], int | None], buffer: memoryview) -> int:
    """Full blocks, whatever a read returns at once."""
    n = 0
    while n < len(buffer) and (more := read(buffer[n:])):
        n += more
    return n


def git_sha1(path: Path) -> str:
    """What the hub calls a small file by: git's own name of it."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()
