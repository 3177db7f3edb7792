"""Localspec's own files: written whole or not at all, and documents that are found again.

A file is written beside its name and renamed, so that readers, a crash and a power cut meet the old
one or the new one. A kept document saves a measurement; one that is missing, damaged or of another
version counts as none. `document_of` and `value_of` turn frozen dataclasses into JSON and back.
"""

import errno
import json
import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import repeat
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, get_args, get_origin, get_type_hints

from localspec import paths
from localspec.errors import UserError

if TYPE_CHECKING:
    from filelock import BaseFileLock

T = TypeVar("T")

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
UNREADABLE = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError)
"""What reading a damaged document can raise: the disk, JSON, and unexpected fields."""


@contextmanager
def write_whole(path: Path, *, is_lasting: bool = True) -> Generator[Path]:
    """A path beside `path` to write to; renamed to `path` at the end, gone after an error.

    A file that `is_lasting` is forced to disk before; others can be made again. Raises OSError.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield partial
        if is_lasting:
            with partial.open("r+b") as file:
                os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        if error.errno in NO_ROOM and error.filename is None:
            error.filename = str(path)  # unlike opening, writing does not say where it failed
        raise
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def alone(path: Path, taken: str) -> Generator[None]:
    """Hold `path` alone; UserError(`taken`) if another process holds it.

    The lock is a file beside it: that of a file which is replaced would be lost with it.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - most commands lock nothing

    lock = FileLock(path.with_suffix(".lock"), timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(taken) from error
    try:
        yield
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


@contextmanager
def in_turn(lock: Path, on_wait: Callable[[], None] = lambda: None) -> Generator[None]:
    """Hold the file `lock` alone, as the hub's library does; `on_wait` is called before waiting."""
    from filelock import BaseFileLock, FileLock, SoftFileLock  # noqa: PLC0415 - slow to import

    held: BaseFileLock = FileLock(lock, mode=0o664)
    try:
        _acquire(held, on_wait)
    except NotImplementedError:  # network drives may lock nothing
        held = SoftFileLock(lock)
        _acquire(held, on_wait)
    try:
        yield
    finally:
        held.release()


def _acquire(held: "BaseFileLock", on_wait: Callable[[], None]) -> None:
    from filelock import Timeout  # noqa: PLC0415 - slow to import

    try:
        held.acquire(timeout=0.1)
    except Timeout:
        on_wait()
        held.acquire()


def read_text(path: Path, what: str) -> str:
    """A user's text file. Raises UserError, with `what` for its name."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{what} cannot be read: {reason}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all. Raises OSError."""
    with write_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def hashed(folder: Path, key: str, n_digits: int = 16) -> Path:
    """The path of the document with `key` in `folder`."""
    return folder / f"{sha256(key.encode()).hexdigest()[:n_digits]}.json"


def document_of(value: Any) -> Any:
    """JSON of a dataclass, field by field; one with `to_json` says itself."""
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return {each.name: document_of(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple | list):
        return [document_of(each) for each in value]
    if isinstance(value, Mapping):
        return {str(key): document_of(each) for key, each in value.items()}
    return str(value) if isinstance(value, Path) else value


_hints = lru_cache(get_type_hints)


def value_of(kind: Any, document: Any) -> Any:
    """The value that `document_of` wrote; `kind`: a dataclass, or the type of a field.

    Fields that the document lacks keep their defaults, and names that are not known are passed
    over: earlier and later versions wrote other ones. Raises KeyError, TypeError or ValueError.
    """
    if hasattr(kind, "from_json"):
        return kind.from_json(document)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = _hints(kind).items()
        return kind(**{n: value_of(hint, document[n]) for n, hint in hints if n in document})
    if document is None:
        return None
    origin, of = get_origin(kind), get_args(kind)
    if origin is UnionType:  # of a type and None
        return value_of(of[0], document)
    if origin is tuple:
        kinds = repeat(of[0]) if of[-1] is ... else of
        return tuple(map(value_of, kinds, document))
    if origin is Mapping:
        key_of = getattr(of[0], "parse", of[0])
        return {key_of(key): value_of(of[1], each) for key, each in document.items()}
    return Path(document) if kind is Path else document


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """A value in a JSON document; `read` raises one of `UNREADABLE` for other documents."""

    path: Path
    read: Callable[[Any], T]
    write: Callable[[T], Any]

    @classmethod
    def of(cls, kind: type[T], folder: str, key: str) -> Self:
        """A dataclass's document in a folder of the cache, found by `key`."""
        path = hashed(paths.cache_dir() / folder, key)
        return cls(path, lambda document: value_of(kind, document), document_of)

    def load(self) -> T | None:
        """The kept value; None if there is none that can be used."""
        try:
            return self.read(json.loads(self.path.read_text(encoding="utf-8")))
        except UNREADABLE:
            return None

    def save(self, value: T) -> None:
        """Keep it unless the disk is full, read-only or broken, or a power cut comes: it can be
        made again, and whoever made it goes on."""
        text = json.dumps(self.write(value))
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with write_whole(self.path, is_lasting=False) as partial:
                partial.write_text(text, encoding="utf-8")
