"""The values of a GGUF header: numbers, text, and arrays that are decoded when somebody asks.

Source: the GGUF specification (docs/gguf.md of ggml). A vocabulary is most of a header, a quarter
of a million strings, and few readers want it: an `Array` keeps its bytes and their number.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum


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


FORMATS: dict[int, str] = {
    ValueType.UINT8: "B",
    ValueType.INT8: "b",
    ValueType.UINT16: "H",
    ValueType.INT16: "h",
    ValueType.UINT32: "I",
    ValueType.INT32: "i",
    ValueType.FLOAT32: "f",
    ValueType.BOOL: "?",
    ValueType.UINT64: "Q",
    ValueType.INT64: "q",
    ValueType.FLOAT64: "d",
}

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

    @property
    def is_floats(self) -> bool:
        return self.type in (ValueType.FLOAT32, ValueType.FLOAT64)

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
