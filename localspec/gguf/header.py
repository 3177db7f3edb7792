"""A GGUF header as a value: what is in the file, without the weights.

It holds what was written and judges nothing; `facts` draws conclusions, `usable` says whether an
engine can load it. Versions 2 and 3 are read, little-endian:

    "GGUF"  version u32  n_tensors u64  n_keys u64
    n_keys    x  key, type u32, value
    n_tensors x  name, n_dims u32, dims u64 ..., type u32, offset u64
    padding to the alignment, then the tensors, each padded to it

Source: the GGUF specification (docs/gguf.md of ggml). Where it is loose, libllama's reader
(ggml/src/gguf.cpp) decides: tensors follow one another in the order listed, arrays do not nest,
names of tensors have less than 64 bytes. The file may be hostile: every count has a limit, and
nothing is allocated for a claim before its bytes are there.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from localspec.errors import ModelError
from localspec.gguf.cursor import MAX_KEY_BYTES, Array, Cursor, Source, Value, ValueType, shown
from localspec.gguf.not_gguf import BEGINNING_BYTES, not_gguf
from localspec.gguf.types import BY_ID, GgmlType


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's place: `offset_bytes` counts from the beginning of file number `part`.

    `shape` is as in the file: the first number is the length of a row.
    """

    name: str
    type: GgmlType
    shape: tuple[int, ...]
    n_elements: int
    n_bytes: int
    offset_bytes: int
    part: int


@dataclass(frozen=True, slots=True)
class FilePart:
    """One file of a model; most models have one."""

    name: str
    size_bytes: int | None
    data_offset_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """Metadata (of the first part) and tensors (of all parts).

    The getters give None for a key that is absent and raise ModelError if its value is of another
    kind.
    """

    parts: tuple[FilePart, ...]
    version: int
    alignment_bytes: int
    metadata: Mapping[str, Value] = field(repr=False)
    tensors: tuple[Tensor, ...] = field(repr=False)

    @property
    def name(self) -> str:
        """The path or address to load it from: the first part."""
        return self.parts[0].name

    @property
    def architecture(self) -> str:
        return self.text("general.architecture") or ""

    def own_key(self, key: str) -> str:
        """A key under the architecture's prefix: `block_count` is `llama.block_count`."""
        return f"{self.architecture}.{key}"

    def own_integer(self, key: str) -> int | None:
        """Of a key under the architecture's prefix."""
        return self.integer(self.own_key(key))

    @property
    def n_draft_layers(self) -> int:
        """Layers behind those of the model that predict further tokens (NextN, MTP)."""
        return self.own_integer("nextn_predict_layers") or 0

    def tensor(self, name: str) -> Tensor | None:
        return next((each for each in self.tensors if each.name == name), None)

    def integer(self, key: str) -> int | None:
        return self._of_kind(key, int, "a whole number")

    def number(self, key: str) -> float | None:
        return self._of_kind(key, (int, float), "a number")

    def flag(self, key: str) -> bool | None:
        return self._of_kind(key, bool, "true or false")

    def text(self, key: str) -> str | None:
        return self._of_kind(key, str, "a text")

    def array(self, key: str) -> Array | None:
        return self._of_kind(key, Array, "an array")

    def integers(self, key: str) -> tuple[int, ...] | None:
        """An array of whole numbers or booleans."""
        array = self.array(key)
        if array is None:
            return None
        if array.type in (ValueType.STRING, ValueType.FLOAT32, ValueType.FLOAT64):
            raise self._wrong_kind(key, "an array of whole numbers")
        return tuple(int(number) for number in array.numbers())

    def strings(self, key: str) -> list[str] | None:
        array = self._strings(key)
        return array.strings() if array else None

    def raw_strings(self, key: str) -> list[bytes] | None:
        """The same undecoded; two tokens are the same if and only if their bytes are."""
        array = self._strings(key)
        return array.raw_strings() if array else None

    def fail(self, what: str) -> ModelError:
        """The error of this file for a sentence that goes on after its name."""
        return ModelError(f"{self.name} {what}")

    def _of_kind(self, key: str, kind: Any, wanted: str) -> Any:
        """The value of a key or None. A boolean is an int to Python and no number here."""
        value = self.metadata.get(key)
        is_right = isinstance(value, kind) and isinstance(value, bool) == (kind is bool)
        if value is None or is_right:
            return value
        raise self._wrong_kind(key, wanted)

    def _strings(self, key: str) -> Array | None:
        array = self.array(key)
        if array is not None and not array.is_strings:
            raise self._wrong_kind(key, "an array of texts")
        return array

    def _wrong_kind(self, key: str, wanted: str) -> ModelError:
        return self.fail(
            f"has something else than {wanted} in {shown(key)}; convert or download it again"
        )


MAGIC = b"GGUF"
ALIGNMENT_KEY, DEFAULT_ALIGNMENT_BYTES = "general.alignment", 32
MAX_TENSORS = MAX_KEYS = 65_536
MAX_TENSOR_NAME_BYTES = 63
MAX_DIMS = 4
MAX_ELEMENTS = 1 << 62
FEWEST_KEY_BYTES = 8 + 1 + 4 + 1
FEWEST_INFO_BYTES = 8 + 1 + 4 + 8 + 4 + 8

Info = tuple[str, tuple[int, ...], GgmlType, int]
"""Of a tensor: name, shape, type, and where it begins in the data section."""


def parse(source: Source, part: int = 0) -> Header:
    """The header of one file, number `part` of its model; ModelError if the file is not whole."""
    cursor = Cursor(source)
    version = _read_version(cursor)
    n_tensors, n_keys = cursor.u64(), cursor.u64()
    if n_tensors > MAX_TENSORS or n_keys > MAX_KEYS:
        raise cursor.damaged(f"claims {n_tensors} tensors and {n_keys} keys")
    metadata = _read_metadata(cursor, n_keys, n_tensors)
    alignment = _alignment(cursor, metadata)
    infos = _read_infos(cursor, n_tensors)
    data_offset = _aligned(cursor.position, alignment) if infos else cursor.position
    tensors = _placed(cursor, infos, (data_offset, alignment), part)
    _check_length(cursor, source, tensors)
    here = FilePart(source.name, source.size_bytes, data_offset)
    return Header((here,), version, alignment, metadata, tensors)


def _read_version(cursor: Cursor) -> int:
    start = cursor.peek(len(MAGIC))
    if start != MAGIC:
        raise cursor.fail(not_gguf(cursor.peek(BEGINNING_BYTES)))
    cursor.take(len(MAGIC))
    version = cursor.u32()
    if version & 0xFFFF == 0:
        raise cursor.fail("is for big-endian machines or damaged; download a little-endian file")
    if version not in (2, 3):
        raise cursor.fail(
            f"is a GGUF file of version {version}, and 2 and 3 can be read; download a current file"
        )
    return version


def _read_metadata(cursor: Cursor, n_keys: int, n_tensors: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for n_left in range(n_keys, 0, -1):
        cursor.foresee((n_left - 1) * FEWEST_KEY_BYTES + n_tensors * FEWEST_INFO_BYTES)
        key = cursor.text(MAX_KEY_BYTES)
        if not key:
            raise cursor.damaged("has a key without a name")
        if key in metadata:
            raise cursor.damaged(f"has the key {shown(key)} twice")
        metadata[key] = cursor.value(key)
    return metadata


def _alignment(cursor: Cursor, metadata: dict[str, Value]) -> int:
    value = metadata.get(ALIGNMENT_KEY, DEFAULT_ALIGNMENT_BYTES)
    if type(value) is not int or value <= 0 or value & (value - 1):
        raise cursor.damaged(f"has {value!r} for {ALIGNMENT_KEY}, which is not a power of two")
    return value


def _read_infos(cursor: Cursor, n_tensors: int) -> list[Info]:
    start, infos = cursor.position, list[Info]()
    for n_left in range(n_tensors, 0, -1):
        mean = (cursor.position - start) // len(infos) if infos else FEWEST_INFO_BYTES
        cursor.foresee((n_left - 1) * mean)
        infos.append(_read_info(cursor))
    return infos


def _read_info(cursor: Cursor) -> Info:
    name = cursor.text(MAX_TENSOR_NAME_BYTES)
    n_dims = cursor.u32()
    if n_dims > MAX_DIMS:
        raise cursor.damaged(f"gives the tensor {shown(name)} {n_dims} dimensions")
    shape = cursor.u64s(n_dims)
    type_id, offset = cursor.u32(), cursor.u64()
    kind = BY_ID.get(type_id)
    if kind is None:
        raise cursor.fail(
            f"has the tensor {shown(name)} in a format unknown here (number {type_id});"
            " update localspec or download another quantization"
        )
    if not 0 < prod(shape) <= MAX_ELEMENTS or (shape[0] if shape else 1) % kind.block_elements:
        raise cursor.damaged(
            f"gives the tensor {shown(name)} of type {kind.name} the impossible shape {shape}"
        )
    return name, shape, kind, offset


def _placed(
    cursor: Cursor, infos: list[Info], data: tuple[int, int], part: int
) -> tuple[Tensor, ...]:
    """The tensors with offsets in the file; ModelError unless one begins where the last ends."""
    (start, alignment), expected, tensors = data, 0, dict[str, Tensor]()
    for name, shape, kind, offset in infos:
        if name in tensors:
            raise cursor.damaged(f"has the tensor {shown(name)} twice")
        if offset != expected:
            raise cursor.damaged(
                f"puts the tensor {shown(name)} at byte {offset} of its data, where byte {expected}"
                " follows from the tensors before it"
            )
        n_elements = prod(shape)
        n_bytes = kind.n_bytes(n_elements)
        tensors[name] = Tensor(name, kind, shape, n_elements, n_bytes, start + offset, part)
        expected = _aligned(offset + n_bytes, alignment)
    return tuple(tensors.values())


def _check_length(cursor: Cursor, source: Source, tensors: tuple[Tensor, ...]) -> None:
    if not tensors or source.size_bytes is None:
        return
    n_missing = tensors[-1].offset_bytes + tensors[-1].n_bytes - source.size_bytes
    if n_missing > 0:
        raise cursor.fail(f"is {n_missing} bytes short; download it again")


def _aligned(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


# Names by number, from enum llama_ftype of llama.h; a dash is a number that is not in use.
FILE_TYPES = (
    "F32 F16 Q4_0 Q4_1 - - - Q8_0 Q5_0 Q5_1 Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M Q5_K_S Q5_K_M"
    " Q6_K IQ2_XXS IQ2_XS Q2_K_S IQ3_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S IQ3_M IQ2_S IQ2_M IQ4_XS IQ1_M"
    " BF16 - - - TQ1_0 TQ2_0 MXFP4 NVFP4 Q1_0 Q2_0"
)


def file_type(header: Header) -> str:
    """What mixture of types the file says it is; if it does not, the type of most weight bytes."""
    number, names = header.integer("general.file_type"), FILE_TYPES.split()
    if number is not None and 0 <= number < len(names) and names[number] != "-":
        return names[number]
    n_bytes = Counter[str]()
    for tensor in header.tensors:
        n_bytes[tensor.type.name] += tensor.n_bytes
    return n_bytes.most_common(1)[0][0] if n_bytes else "unknown"
