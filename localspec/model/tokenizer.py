"""What a header says of its tokenizer; to share drafts, two models must agree in it.

Source: `llama_vocab::impl::load` in src/llama-vocab.cpp of llama.cpp. Ids that the header leaves
out get defaults there by the tokenizer's kind; they are None here.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from localspec.model.header import Header
from localspec.model.values import LENGTH, Array

PREFIX = "tokenizer.ggml."
NO_TEXT = ("no_vocab", "none")
MAX_SURPLUS, FIRST_COMPARED = 128, 5
"""Tokens that a draft may have more or fewer, and the first whose text must be the same
(`common_speculative_are_compatible` of llama.cpp)."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """`model` is the algorithm, `pre` how text is cut up before it; without text, no `n_tokens`.

    `digest` is of the token texts in order, without the first few, which control: two tokenizers
    with one digest know the same tokens.
    """

    model: str | None
    pre: str | None
    n_tokens: int | None
    bos_id: int | None
    eos_id: int | None
    adds_bos: bool | None
    adds_eos: bool | None
    has_chat_template: bool
    digest: str | None = None

    @classmethod
    def of(cls, header: Header) -> Self:
        tokens = header.array(PREFIX + "tokens")
        return cls(
            model=header.text(PREFIX + "model"),
            pre=header.text(PREFIX + "pre"),
            n_tokens=None if tokens is None else len(tokens),
            bos_id=header.integer(PREFIX + "bos_token_id"),
            eos_id=header.integer(PREFIX + "eos_token_id"),
            adds_bos=header.flag(PREFIX + "add_bos_token"),
            adds_eos=header.flag(PREFIX + "add_eos_token"),
            has_chat_template=bool(header.text("tokenizer.chat_template")),
            digest=None if tokens is None else _digest(tokens),
        )

    @property
    def has_text(self) -> bool:
        """Whether there are tokens with text; a model written for measuring may know ids only."""
        return self.model not in NO_TEXT

    def difference(self, draft: "Tokenizer") -> str | None:
        """Why a model with the tokenizer `draft` cannot draft for this one, as far as headers tell.

        None where it can, and where only loading both would show: texts of vocabularies of
        different size, and defaults of ids.
        """
        if self.model != draft.model:
            return f"one tokenizer is {self.model}, the other {draft.model}"
        if self.n_tokens is None or draft.n_tokens is None:
            return None
        if abs(self.n_tokens - draft.n_tokens) > MAX_SURPLUS:
            return f"one has {self.n_tokens:,} tokens, the other {draft.n_tokens:,}"
        if self.n_tokens == draft.n_tokens and self.digest != draft.digest:
            return "their tokens are different texts"
        return None


def _digest(tokens: Array) -> str:
    start = 0
    for _ in range(min(FIRST_COMPARED, len(tokens)) if tokens.is_strings else 0):
        start += LENGTH.size + LENGTH.unpack_from(tokens.data, start)[0]
    return sha256(memoryview(tokens.data)[start:]).hexdigest()
