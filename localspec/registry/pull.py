"""Get files whole and prove it: fetch what is missing, compare the SHA-256, name it, record it.

One process fetches a file at a time; others wait at the hub's own lock and then find the file. Its
bytes have a name that nothing takes for a model until they are proved. The SHA-256 proves that they
are the hub's. A CRC-32 of every 4 MiB says later where they changed: a flipped bit in gigabytes
costs one block to mend.
"""

import glob
import hashlib
import os
import shutil
import zlib
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self

from localspec.errors import HardwareError, ModelError
from localspec.notify import Notify
from localspec.registry.download import Download, download
from localspec.registry.manifest import Pulled, pulled_files, record
from localspec.registry.remote_file import (
    CachePaths,
    RemoteFile,
    publish,
    repository_folder,
    shelf_of,
)
from localspec.store import in_turn, write_whole

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
    """The hub's name of a small file, which is git's."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False).hexdigest()


PullStage = Literal["fetching", "checking"]
OnProgress = Callable[[PullStage, str, int, int | None], None]
"""Hears the stage, the file's name, how many of its bytes are done, and of how many."""

RESERVE_BYTES = 64 << 20
"""What a disk should keep for everything else."""


def check_disk(files: Sequence[RemoteFile]) -> None:
    """HardwareError where what is still to come does not fit on the disk."""
    shelves = [shelf_of(file) for file in files]
    missing = sum(_missing_bytes(*pair) for pair in zip(files, shelves, strict=True))
    if not missing:
        return
    folder = next(place for place in shelves[0].blob.parents if place.exists())
    if not os.access(folder, os.W_OK):
        raise _not_writable(folder, "it may only be read")
    free = shutil.disk_usage(folder).free
    if missing + RESERVE_BYTES > free:
        raise HardwareError(
            f"{missing / 1e9:,.2f} GB are still to be fetched and {free / 1e9:,.2f} GB are free"
            f" at {folder}: make room, or set HF_HOME to a folder on another disk"
        )


def _missing_bytes(file: RemoteFile, shelf: CachePaths) -> int:
    if shelf.blob.exists():
        return 0
    here = shelf.partial.stat().st_size if shelf.partial.exists() else 0
    return max(0, (file.n_bytes or 0) - here)


def pull_file(
    file: RemoteFile, name: str | None, notify: Notify, on_progress: OnProgress
) -> tuple[Pulled, int]:
    """One file, here and verified, and how many bytes were fetched for it.

    Raises ModelError or HardwareError; the downloaded part is kept for the next time.
    """
    shelf = shelf_of(file)
    pointer = str(shelf.pointer)
    known = next((entry for entry in pulled_files() if entry.path == pointer), None)
    if known and known.is_whole and _is_as_recorded(known, file):
        return known, 0
    with _alone(file, shelf, notify):
        is_new = not shelf.blob.exists()
        others = [known] if known else [one for one in pulled_files() if one.sha256 == file.digest]
        fetched = is_new or any(one.fetched for one in others)
        digest, n_fetched = _proved(file, shelf, name, notify, on_progress)
    path = publish(file, shelf)
    entry = replace(
        _entry(file, shelf, name, fetched=fetched or n_fetched > 0),
        path=str(path),
        sha256=digest.sha256,
        blocks=digest.blocks,
        n_bytes=digest.n_bytes,
        partial=None,
    )
    record(entry)
    return entry, n_fetched


@contextmanager
def _alone(file: RemoteFile, shelf: CachePaths, notify: Notify) -> Generator[None]:
    """Hold the file's lock. A file that is whole in a cache of somebody else needs none.

    HardwareError where the lock cannot be written and the file must be.
    """
    waiting = f"another program is fetching {file.reference}: waiting for it"
    with ExitStack() as stack:
        try:
            shelf.lock.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(in_turn(shelf.lock, lambda: notify(waiting)))
        except OSError as error:
            if not shelf.blob.exists():
                raise _not_writable(shelf.lock, error.strerror) from error
        yield


def _not_writable(place: Path, reason: str | None) -> HardwareError:
    return HardwareError(
        f"the cache cannot be written ({place}: {reason}): make it writable for you, or set"
        " HF_HOME to a folder of your own"
    )


def _is_as_recorded(known: Pulled, file: RemoteFile) -> bool:
    """By its size; `verify` reads it again."""
    path = Path(known.path)
    is_same = file.digest in (None, known.sha256) and known.reference == file.reference
    return is_same and path.exists() and path.stat().st_size == known.n_bytes


def _proved(
    file: RemoteFile, shelf: CachePaths, name: str | None, notify: Notify, on_progress: OnProgress
) -> tuple[Digest, int]:
    """The digest of the bytes in place, which are the hub's, and how many were fetched."""
    if shelf.blob.exists():
        digest = _digest(file, shelf.blob, on_progress)
        if _is_right(file, shelf.blob, digest):
            return digest, 0
        notify(f"{file.reference} is here and damaged: fetching it again")
        _drop(shelf)
    twin = _twin(file, shelf, on_progress)
    if twin is not None:
        return twin, 0
    before = shelf.partial.stat().st_size if shelf.partial.exists() else 0
    record(_entry(file, shelf, name, fetched=True))
    wanted = Download(file.reference, file.address, file.headers, file.n_bytes)
    report = _reporter("fetching", file, on_progress)
    report(before)
    download(wanted, shelf.partial, report, notify)
    digest = _digest(file, shelf.partial, on_progress)
    if not _is_right(file, shelf.partial, digest):
        shelf.partial.unlink()
        raise ModelError(
            f"{file.reference} came with the SHA-256 {digest.sha256[:12]} where the hub says"
            f" {(file.digest or '')[:12]}, so it was dropped: pull it again"
        )
    shelf.blob.parent.mkdir(parents=True, exist_ok=True)
    shelf.partial.replace(shelf.blob)
    return digest, digest.n_bytes - before


def _twin(file: RemoteFile, shelf: CachePaths, on_progress: OnProgress) -> Digest | None:
    """Put the same bytes of another revision in place, where no link can lead to them."""
    if file.hub is None or shelf.blob != shelf.pointer:
        return None
    snapshots = repository_folder(file.hub.repository) / "snapshots"
    for other in snapshots.glob(f"*/{glob.escape(file.hub.file)}"):
        if other.is_symlink() or other.stat().st_size != file.n_bytes:
            continue
        digest = _digest(file, other, on_progress)
        if _is_right(file, other, digest):
            shelf.blob.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(other, shelf.blob)
            return digest
    return None


def _link_or_copy(source: Path, target: Path) -> None:
    """By another name of the same file, where the disk has those. Raises OSError."""
    try:
        target.hardlink_to(source)
    except OSError:
        with write_whole(target) as partial:
            shutil.copyfile(source, partial)


def _drop(shelf: CachePaths) -> None:
    """Remove damaged bytes. HardwareError where the cache is only read."""
    try:
        shelf.blob.unlink()
    except OSError as error:
        raise _not_writable(shelf.blob, error.strerror) from error


def _entry(file: RemoteFile, shelf: CachePaths, name: str | None, *, fetched: bool) -> Pulled:
    return Pulled(
        reference=file.reference,
        file=file.file_name,
        path=str(shelf.pointer),
        n_bytes=file.n_bytes,
        revision=file.commit,
        sha256=None,
        blocks=None,
        fetched=fetched,
        pulled_at=datetime.now(UTC).isoformat(timespec="seconds"),
        name=name,
        partial=str(shelf.partial),
    )


def _digest(file: RemoteFile, path: Path, on_progress: OnProgress) -> Digest:
    return Digest.of(path, _reporter("checking", file, on_progress))


def _reporter(stage: PullStage, file: RemoteFile, on_progress: OnProgress) -> Callable[[int], None]:
    name = file.file_name.rpartition("/")[2]
    return lambda n_bytes: on_progress(stage, name, n_bytes, file.n_bytes)


def _is_right(file: RemoteFile, path: Path, digest: Digest) -> bool:
    """Whether the bytes are the hub's; of another server only the size is known."""
    if file.digest is None:
        return file.n_bytes in (None, digest.n_bytes)
    if len(file.digest) == 40:
        return git_sha1(path) == file.digest
    return digest.sha256 == file.digest
