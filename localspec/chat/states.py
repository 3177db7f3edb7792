"""The cache of a conversation on disk, so that it goes on tomorrow without being read again.

One file a conversation, named after what it depends on (`state_key`); it holds its own tokens, and
what a prompt shares with them is reused. Written behind the user's back while they read and type,
if it is small, else when they leave; the oldest files go when all together grow too large.

What makes two engines' saved states interchangeable, as a short key for a file's name.

A state fits where the weights, the cache types, the kernels' layout and the engine build are the
same. How large the context is and how many threads there are does not matter. A quantized cache is
rotated or not by LLAMA_ATTN_ROT_DISABLE, which no state file records (llama.cpp PR 21038).
"""

import os
import threading
from hashlib import sha256
from pathlib import Path

from localspec import paths
from localspec.chat.archive import Record
from localspec.engine.base import EngineConfig
from localspec.engine.health import engine_fingerprint
from localspec.errors import EngineError
from localspec.model.identity import fingerprint
from localspec.session import Session
from localspec.settings import ROWS


def state_key(config: EngineConfig) -> str:
    """Equal for engines that can go on from each other's saved sequences. OSError without files."""
    settings = config.settings
    parts = (
        fingerprint(config.model),
        *(getattr(settings, name) for name, row in ROWS.items() if not row.is_exact),
        engine_fingerprint(),
        os.environ.get("LLAMA_ATTN_ROT_DISABLE", ""),
    )
    return sha256(repr(parts).encode()).hexdigest()[:16]


ENDING = ".state"
MAX_BEHIND_BYTES = 256_000_000
"""A quarter of a second of a fast disk; larger states are written once, on leaving."""
MAX_BYTES = 2_000_000_000
MAX_ALL_BYTES = 4_000_000_000


class States:
    """Saved caches for one loaded session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._key = state_key(session.plan.target)
        self._thread: threading.Thread | None = None
        self._saved: tuple[str, list[int]] | None = None
        self.problem: str | None = None

    def restore(self, record: Record) -> int:
        """Load what was saved of a conversation; how many tokens it has, 0 for nothing."""
        path = self._path(record)
        if not path.exists() or not self._session.context.restore(path):
            return 0
        tokens = self._session.context.tokens
        self._saved = record.id, list(tokens)
        return len(tokens)

    def save_behind(self, record: Record) -> None:
        """Start to save, if that is quick; `settle` before the next use of the context."""
        self.settle()
        if self._session.context.state_bytes <= MAX_BEHIND_BYTES:
            self._thread = threading.Thread(target=self._save, args=(record,), daemon=True)
            self._thread.start()

    def settle(self) -> None:
        """Wait until the context is free."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def save(self, record: Record) -> None:
        """Save now, unless that was done or would be too large."""
        self.settle()
        if self._session.context.state_bytes <= MAX_BYTES:
            self._save(record)

    def _save(self, record: Record) -> None:
        context = self._session.context
        if not context.tokens or self._saved == (record.id, context.tokens):
            return
        path = self._path(record)
        try:
            context.save(path)
        except EngineError as error:
            self.problem = str(error)
            return
        self._saved = record.id, list(context.tokens)
        for other in folder().glob(f"{record.id}.*{ENDING}"):
            if other != path:
                other.unlink(missing_ok=True)
        _trim(path)

    def _path(self, record: Record) -> Path:
        return folder() / f"{record.id}.{self._key}{ENDING}"


def folder() -> Path:
    """Where saved caches are: they can be made again."""
    path = paths.cache_dir() / "conversations"
    path.mkdir(exist_ok=True)
    return path


def _trim(newest: Path) -> None:
    """Remove the oldest states until the rest is not too large."""
    files = sorted(folder().glob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime_ns)
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total <= MAX_ALL_BYTES or path == newest:
            return
        total -= path.stat().st_size
        path.unlink(missing_ok=True)
