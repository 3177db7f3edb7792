"""Write GGUF files (version 3): what `parse` reads, and no more than localspec needs of its own.

A tensor's bytes come as chunks, so that a file of any size is written in little memory. The file
appears under its name when it is complete and not before.
"""

import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from localspec.gguf.cursor import FORMATS, Array, Value, ValueType
from localspec.gguf.types import GgmlType
from localspec.store import write_whole

ALIGNMENT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Typed:
    """A scalar with the type to write it as, where the default (`_kind`) will not do."""

    kind: ValueType
    value: bool | int | float | str


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """A tensor to be written; `chunks` yields its bytes in order, `n_bytes` of them in all."""

    name: str
    type: GgmlType
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[bytes | memoryview]] = field(repr=False)

    @property
    def n_bytes(self) -> int:
        return self.type.n_bytes(prod(self.shape))


def array_of(kind: ValueType, values: Sequence[int | float | str | bytes]) -> Array:
    """An array value of `values`."""
    if kind == ValueType.STRING:
        data = b"".join(_string(value) for value in values if isinstance(value, str | bytes))
    else:
        data = struct.pack(f"<{len(values)}{FORMATS[kind]}", *values)
    return Array(kind, len(values), data)


def write_gguf(
    path: str | os.PathLike[str],
    metadata: Mapping[str, Value | Typed],
    tensors: Sequence[TensorPlan],
) -> None:
    """Write a whole file, or none."""
    with write_whole(Path(path), is_lasting=False) as partial, partial.open("wb") as file:
        file.write(header_bytes(metadata, tensors))
        for tensor in tensors:
            file.write(bytes(-file.tell() % ALIGNMENT_BYTES))
            start = file.tell()
            for chunk in tensor.chunks():
                file.write(chunk)
            n_bytes = file.tell() - start
            assert n_bytes == tensor.n_bytes, f"{tensor.name}: chunks do not add up"


def header_bytes(metadata: Mapping[str, Value | Typed], tensors: Sequence[TensorPlan]) -> bytes:
    """Everything before the padding that the first tensor's bytes follow."""
    pieces = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(metadata))]
    pieces += [_string(key) + _value(value) for key, value in metadata.items()]
    offset = 0
    for tensor in tensors:
        n_dims = len(tensor.shape)
        pieces.append(_string(tensor.name))
        pieces.append(struct.pack(f"<I{n_dims}QIQ", n_dims, *tensor.shape, tensor.type.id, offset))
        offset += -(-tensor.n_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    return b"".join(pieces)


def _string(text: str | bytes) -> bytes:
    data = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(data)) + data


def _value(value: Value | Typed) -> bytes:
    if isinstance(value, Array):
        return struct.pack("<IIQ", ValueType.ARRAY, value.type, value.count) + value.data
    kind, plain = (value.kind, value.value) if isinstance(value, Typed) else (_kind(value), value)
    body = _string(plain) if isinstance(plain, str) else struct.pack("<" + FORMATS[kind], plain)
    return struct.pack("<I", kind) + body


def _kind(value: bool | int | float | str) -> ValueType:
    """The type that libllama wants for most keys: UINT32 for whole numbers, FLOAT32 for others."""
    if isinstance(value, bool):
        return ValueType.BOOL
    if isinstance(value, int):
        return ValueType.UINT32 if 0 <= value < 1 << 32 else ValueType.INT64
    return ValueType.STRING if isinstance(value, str) else ValueType.FLOAT32
