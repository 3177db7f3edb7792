"""A GGUF header as a value: what is in the file, without the weights.

It holds what was written and judges nothing; `facts` draws conclusions, `usable` says whether an
engine can load it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from localspec.errors import ModelError
from localspec.model.ggml_types import GgmlType
from localspec.model.values import Array, Value, shown


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
class Part:
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

    parts: tuple[Part, ...]
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

    def integer(self, key: str) -> int | None:
        value = self.metadata.get(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise self._wrong_kind(key, "a whole number")

    def number(self, key: str) -> float | None:
        value = self.metadata.get(key)
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
            return value
        raise self._wrong_kind(key, "a number")

    def flag(self, key: str) -> bool | None:
        value = self.metadata.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise self._wrong_kind(key, "true or false")

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        if value is None or isinstance(value, str):
            return value
        raise self._wrong_kind(key, "a text")

    def array(self, key: str) -> Array | None:
        value = self.metadata.get(key)
        if value is None or isinstance(value, Array):
            return value
        raise self._wrong_kind(key, "an array")

    def integers(self, key: str) -> tuple[int, ...] | None:
        """An array of whole numbers or booleans."""
        array = self.array(key)
        if array is None:
            return None
        if array.is_strings or array.is_floats:
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

    def _strings(self, key: str) -> Array | None:
        array = self.array(key)
        if array is not None and not array.is_strings:
            raise self._wrong_kind(key, "an array of texts")
        return array

    def _wrong_kind(self, key: str, wanted: str) -> ModelError:
        return self.fail(
            f"has something else than {wanted} in {shown(key)}; convert or download it again"
        )
