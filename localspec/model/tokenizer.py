"""What a header says of its tokenizer; to share drafts, two models must agree in it.

Source: `llama_vocab::impl::load` in src/llama-vocab.cpp of llama.cpp. Ids that the header leaves
out get defaults there by the tokenizer's kind; they are None here.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from localspec.model.header import Header

PREFIX = "tokenizer.ggml."
NO_TEXT = ("no_vocab", "none")


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """`model` is the algorithm, `pre` how text is cut up before it; without text, no `n_tokens`.

    `digest` is of all token texts in order: two tokenizers with one digest know the same tokens.
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
            digest=None if tokens is None else sha256(tokens.data).hexdigest(),
        )

    @property
    def has_text(self) -> bool:
        """Whether there are tokens with text; a model written for measuring may know ids only."""
        return self.model not in NO_TEXT
