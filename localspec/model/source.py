"""Bytes at random offsets: the one thing that reading a header asks of where it lies.

A `Source` is a local file here; `remote` has one that asks for ranges by HTTP.
"""

import os
import stat
from pathlib import Path
from typing import Protocol

from localspec.errors import ModelError


class Source(Protocol):
    """Something with bytes in it."""

    @property
    def name(self) -> str:
        """What messages call it: a path or an address."""
        ...

    @property
    def size_bytes(self) -> int | None:
        """None where it is not known."""
        ...

    def read(self, offset: int, n_bytes: int) -> bytes:
        """The bytes from `offset` on: at most as many as asked for, and none only at the end."""
        ...

    def sibling(self, file_name: str) -> "Source":
        """Another file of the same folder, for the caller to close; ModelError if there is none."""
        ...

    def close(self) -> None: ...


class FileSource:
    """A local file. It is read, not mapped: one that is cut meanwhile gives an error, no SIGBUS."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        try:
            # Opening a pipe would wait for its writer, so ask what it is first.
            status = self._path.stat()
            if not stat.S_ISREG(status.st_mode):
                kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
                raise ModelError(f"{self.name} is {kind}; name a .gguf file")
            self._file = self._path.open("rb", buffering=0)
        except FileNotFoundError as error:
            raise ModelError(f"{self.name} does not exist; check the path") from error
        except (OSError, ValueError) as error:
            raise ModelError(f"{self.name!r} cannot be opened: {_reason(error)}") from error
        self._size_bytes = status.st_size

    @property
    def name(self) -> str:
        return str(self._path)

    @property
    def size_bytes(self) -> int | None:
        return self._size_bytes

    def read(self, offset: int, n_bytes: int) -> bytes:
        """The bytes from `offset` on, fewer only at the end; ModelError if the disk fails."""
        try:
            self._file.seek(offset)
            return self._file.read(n_bytes)
        except OSError as error:
            raise ModelError(f"{self.name} cannot be read: {_reason(error)}") from error

    def sibling(self, file_name: str) -> "FileSource":
        return FileSource(self._path.with_name(file_name))

    def close(self) -> None:
        self._file.close()


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
