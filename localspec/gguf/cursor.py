"""Reading a GGUF header from front to back, from any source of bytes.

A GGUF file does not say how long its header is, but counts announce what follows. Bytes are fetched
in pieces that end where the header is sure to go on: from a server, each byte past its end would be
one of the weights. Skipping strings means reading every length, the inner loop of opening a model.

A vocabulary is most of a header, a quarter of a million strings, and few readers want it: an
`Array` keeps its bytes and their count, and decodes on request. Source: the GGUF specification
(docs/gguf.md of ggml).
"""

import os
import stat
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from localspec.errors import ModelError


class ValueType(IntEnum):
    """The number of a value's type in the file."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


# The letters of `struct`, in the order above; a dash has a form of its own.
_LETTERS = zip(ValueType, "BbHhIif?--Qqd", strict=True)
FORMATS: dict[int, str] = {kind: letter for kind, letter in _LETTERS if letter != "-"}

LENGTH = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Array:
    """`len(array)` values of one type, still as the file has them."""

    type: ValueType
    count: int
    data: bytes = field(repr=False)

    def __len__(self) -> int:
        return self.count

    @property
    def is_strings(self) -> bool:
        return self.type == ValueType.STRING

    def numbers(self) -> tuple[int | float, ...]:
        """The values of an array that is not one of strings; booleans are 0 and 1."""
        return struct.unpack(f"<{self.count}{FORMATS[self.type]}", self.data)

    def raw_strings(self) -> list[bytes]:
        """The strings of an array of them, undecoded: a token need not be whole UTF-8."""
        data, position, strings = self.data, 0, list[bytes]()
        for _ in range(self.count):
            start = position + LENGTH.size
            position = start + LENGTH.unpack_from(data, position)[0]
            strings.append(data[start:position])
        return strings

    def strings(self) -> list[str]:
        """The same as text, with the replacement character for what is not UTF-8."""
        return [string.decode("utf-8", "replace") for string in self.raw_strings()]


Value = bool | int | float | str | Array


def shown(text: str | bytes, limit: int = 60) -> str:
    """Text from a file as a message can carry it: escaped, and not longer than `limit`."""
    quoted = ascii(text.decode("utf-8", "replace") if isinstance(text, bytes) else text)
    return quoted if len(quoted) <= limit else quoted[: limit - 4] + "...'"


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


MAX_HEADER_BYTES = 128 << 20  # 262,144 tokens with 514,906 merges take less than 20 MiB
MAX_STRINGS = 4_000_000  # of all arrays together; passing over one takes some 70 ns
MAX_KEY_BYTES = 65_535
FIRST_PIECE_BYTES, SMALLEST_PIECE_BYTES, LARGEST_PIECE_BYTES = 1 << 14, 1 << 11, 8 << 20

_SCALARS = {kind: struct.Struct("<" + code) for kind, code in FORMATS.items()}
_U32 = struct.Struct("<I")


class Cursor:
    """A position in a source, moving forward."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._buffer = bytearray()
        self._n_strings_left = MAX_STRINGS
        self._n_bytes_later = 0
        self.position = 0

    def foresee(self, n_bytes: int) -> None:
        """Be told how many bytes the header has after what is read next, at least."""
        self._n_bytes_later = n_bytes

    def fail(self, what: str) -> ModelError:
        """The error of this file for a sentence that goes on after its name."""
        return ModelError(f"{self._source.name} {what}")

    def damaged(self, what: str) -> ModelError:
        """The same, for what no writer of GGUF files would write."""
        return self.fail(f"{what}; the file is damaged, download it again")

    def peek(self, n_bytes: int) -> bytes:
        """The next bytes without moving on, fewer at the end; for the beginning of a file."""
        if not self._buffer:
            self._buffer += self._source.read(0, FIRST_PIECE_BYTES)
        return bytes(self._buffer[self.position : self.position + n_bytes])

    def take(self, n_bytes: int) -> bytes:
        start = self._advance(n_bytes)
        return bytes(self._buffer[start : start + n_bytes])

    def u32(self) -> int:
        return _U32.unpack_from(self._buffer, self._advance(4))[0]

    def u64(self) -> int:
        return LENGTH.unpack_from(self._buffer, self._advance(8))[0]

    def u64s(self, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{count}Q", self._buffer, self._advance(8 * count))

    def text(self, limit_bytes: int | None = None) -> str:
        """A string after its length; what is not UTF-8 becomes the replacement character."""
        n_bytes = self.u64()
        if limit_bytes is not None and n_bytes > limit_bytes:
            raise self.damaged(f"has a name of {n_bytes} bytes where {limit_bytes} are the limit")
        return self.take(n_bytes).decode("utf-8", "replace")

    def value(self, key: str) -> Value:
        """The value of a key: its type, then itself."""
        kind = self._type(key)
        if kind == ValueType.ARRAY:
            return self._array(key)
        if kind == ValueType.STRING:
            return self.text()
        scalar = _SCALARS[kind]
        return scalar.unpack_from(self._buffer, self._advance(scalar.size))[0]

    def _type(self, key: str) -> ValueType:
        number = self.u32()
        try:
            return ValueType(number)
        except ValueError:
            raise self.damaged(f"gives {shown(key)} the unknown type {number}") from None

    def _array(self, key: str) -> Array:
        kind, count = self._type(key), self.u64()
        if kind == ValueType.ARRAY:
            raise self.damaged(f"has arrays inside the array {shown(key)}, which nothing can read")
        if kind != ValueType.STRING:
            return Array(kind, count, self.take(count * _SCALARS[kind].size))
        if count > self._n_strings_left:
            raise self.damaged(f"claims {count} strings in {shown(key)}")
        self._n_strings_left -= count
        start = self.position
        self._skip_strings(count)
        return Array(kind, count, bytes(self._buffer[start : self.position]))

    def _skip_strings(self, count: int) -> None:
        """Pass over strings; it runs into the end of the buffer to find out that it must grow."""
        buffer, length_at, step = self._buffer, LENGTH.unpack_from, LENGTH.size
        position, n_left = self.position, count
        while n_left:
            try:
                while n_left:
                    position += step + length_at(buffer, position)[0]
                    n_left -= 1
            except (struct.error, OverflowError):  # the length at `position` is not here yet
                mean = (position - self.position) // (count - n_left) if n_left < count else step
                self._require(position + step, (n_left - 1) * mean)
        self.position = position
        self._require(position)

    def _advance(self, n_bytes: int) -> int:
        """Where the next `n_bytes` begin, which are then there."""
        start = self.position
        self.position = end = start + n_bytes
        if end > len(self._buffer):
            self._require(end)
        return start

    def _require(self, end: int, n_bytes_more: int = 0) -> None:
        """Fetch until the buffer holds `end` bytes, and some of those that are sure to follow."""
        size_bytes = self._source.size_bytes
        if end > MAX_HEADER_BYTES and (size_bytes is None or end <= size_bytes):
            raise self.damaged(f"has a header of more than {MAX_HEADER_BYTES >> 20} MiB")
        n_bytes_later = n_bytes_more + self._n_bytes_later
        while len(self._buffer) < end:
            n_bytes = max(end + n_bytes_later - len(self._buffer), SMALLEST_PIECE_BYTES)
            got = b""
            if size_bytes is None or end <= size_bytes:
                got = self._source.read(len(self._buffer), min(n_bytes, LARGEST_PIECE_BYTES))
            if not got:
                size = len(self._buffer) if size_bytes is None else size_bytes
                raise self.fail(
                    f"ends inside its header, which needs byte {end} of {size}; download it again"
                )
            self._buffer += got
