"""What is asked of an engine's vocabulary: text to token ids and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from localspec.model.tokenizer import Tokenizer

SpecialKind = Literal["control", "user", "ordinary"]
"""Control tokens are read on request, those that the user of a model defined always. Ordinary
ones are text by the file and control tokens by the engine."""


@dataclass(frozen=True, slots=True)
class FimTokens:
    """What a vocabulary marks a text with whose middle is wanted: before what stands before it,
    before what stands behind it, before the middle; and before a repository and each file of it."""

    prefix: int
    suffix: int
    middle: int
    repo: int | None = None
    file: int | None = None


class Vocabulary(Protocol):
    """Text to token ids and back; ids are 0 .. n_tokens - 1."""

    @property
    def n_tokens(self) -> int: ...

    @property
    def eog(self) -> frozenset[int]:
        """Ids that end a generation."""
        ...

    @property
    def specials(self) -> Mapping[str, SpecialKind]:
        """Texts that `tokenize` reads as one token wherever they stand."""
        ...

    @property
    def adds_space(self) -> bool:
        """Whether `tokenize` puts a space before a text and behind each control token."""
        ...

    @property
    def fim(self) -> FimTokens | None:
        """None where the model was not made to fill a middle in."""
        ...

    def tokenize(
        self, text: str, *, add_special: bool, parse_special: bool = True, goes_on: bool = False
    ) -> list[int]:
        """Ids of `text`; `add_special` adds BOS where due.

        `parse_special`: texts of control tokens become these tokens. `goes_on`: other text stands
        before it, so no space is added.
        """
        ...

    def piece(self, token: int) -> bytes:
        """The bytes that a token adds, perhaps part of a character; none for control."""
        ...

    def text(self, token: int) -> str:
        """The token as the vocabulary spells it, control tokens included."""
        ...


class ModelVocabulary(Vocabulary, Protocol):
    """The vocabulary of a model file, which also knows what templates and drafts ask of it."""

    @property
    def bos_text(self) -> str: ...

    @property
    def eos_text(self) -> str: ...

    @property
    def tokenizer(self) -> Tokenizer:
        """What decides whether a draft's token ids mean the same."""
        ...


def spelled(vocabulary: Vocabulary, token: int) -> bytes:
    """The bytes that a token adds; a control token's are its name."""
    return vocabulary.piece(token) or vocabulary.text(token).encode()
