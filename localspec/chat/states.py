"""Caches of conversations on disk.

A saved cache lets a conversation go on tomorrow without being read again. Each conversation has one
file, named after what the cache depends on (`state_key`). The file holds its own tokens; a prompt
reuses what it shares with them.
"""

import threading
from pathlib import Path

from localspec import paths
from localspec.chat.archive import Record
from localspec.errors import EngineError
from localspec.session.disk_cache import state_key
from localspec.session.session import Session

ENDING = ".state"
MAX_BEHIND_BYTES = 256_000_000
"""A quarter of a second of a fast disk; larger states are written once, on leaving."""
MAX_BYTES = 2_000_000_000
MAX_ALL_BYTES = 4_000_000_000


class States:
    """Saved caches for one loaded session.

    A small cache is written in the background while the user reads and types, a large one when
    they leave. The oldest files go when all together grow too large.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._key = state_key(session.plan.target)
        self._thread: threading.Thread | None = None
        self._saved: tuple[str, list[int]] | None = None

    def restore(self, record: Record) -> int:
        """Load what was saved of a conversation; returns its tokens, 0 for nothing."""
        path = self._path(record)
        if not path.exists() or not self._session.context.restore(path):
            return 0
        tokens = list(self._session.context.tokens)
        self._saved = record.id, tokens
        return len(tokens)

    def save_behind(self, record: Record) -> None:
        """Begin to save, if that is quick; `settle` before the next use of the context."""
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
        """Save now, unless that was done or is too large."""
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
        except EngineError:
            return  # a cache can be made again
        self._saved = record.id, list(context.tokens)
        for other in folder().glob(f"{record.id}.*{ENDING}"):
            if other != path:
                other.unlink(missing_ok=True)
        _trim(path)

    def _path(self, record: Record) -> Path:
        return folder() / f"{record.id}.{self._key}{ENDING}"


def folder() -> Path:
    """The folder of saved caches."""
    path = paths.cache_dir() / "conversations"
    path.mkdir(exist_ok=True)
    return path


def _trim(newest: Path) -> None:
    """Remove the oldest files until the rest is small enough."""
    files = sorted(folder().glob(f"*{ENDING}"), key=lambda path: path.stat().st_mtime_ns)
    total = sum(path.stat().st_size for path in files)
    for path in files:
        if total <= MAX_ALL_BYTES or path == newest:
            return
        total -= path.stat().st_size
        path.unlink(missing_ok=True)
