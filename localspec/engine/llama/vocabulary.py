"""A model's vocabulary: text to ids and ids to bytes."""

import ctypes
from functools import cached_property

from localspec.engine.llama.binding import C, Handle
from localspec.errors import ModelError

_PIECE_BYTES = 256
_MAX_SIZE_DIFFERENCE = 128
_FIRST_COMPARED_ID = 5


class LlamaVocabulary:
    """The vocabulary of a loaded model; lives as long as the model."""

    def __init__(self, model: Handle) -> None:
        self._model = model
        self._vocab = C.llama_model_get_vocab(model)
        self._pieces: dict[int, bytes] = {}
        self._eog: frozenset[int] | None = None
        self.n_tokens: int = C.llama_vocab_n_tokens(self._vocab)

    @property
    def eog(self) -> frozenset[int]:
        """Ids that end a generation."""
        if self._eog is None:
            is_eog = C.llama_vocab_is_eog
            self._eog = frozenset(i for i in range(self.n_tokens) if is_eog(self._vocab, i))
        return self._eog

    @cached_property
    def bos(self) -> int | None:
        return _id_or_none(C.llama_vocab_bos(self._vocab))

    @cached_property
    def eos(self) -> int | None:
        return _id_or_none(C.llama_vocab_eos(self._vocab))

    @property
    def bos_text(self) -> str:
        """BOS as templates write it; empty where there is none."""
        return "" if self.bos is None else self.text(self.bos)

    @property
    def eos_text(self) -> str:
        """EOS as templates write it; empty where there is none."""
        return "" if self.eos is None else self.text(self.eos)

    @property
    def is_empty(self) -> bool:
        """True where the file carries no tokenizer: ids work, text does not."""
        return C.llama_vocab_type(self._vocab) == C.LLAMA_VOCAB_TYPE_NONE

    @cached_property
    def chat_template(self) -> str | None:
        """The model's own chat template, a Jinja source that nobody has checked."""
        template = C.llama_model_chat_template(self._model, None)
        return template.decode("utf-8", "replace") if template else None

    def text(self, token: int) -> str:
        """The token as the vocabulary spells it, control tokens included."""
        return (C.llama_vocab_get_text(self._vocab, token) or b"").decode("utf-8", "replace")

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        """Ids of `text`, control tokens recognised; `add_special` adds BOS where due."""
        if self.is_empty:
            raise ModelError(
                "this model carries no tokenizer, so it cannot read text: use another GGUF file"
            )
        data = text.encode(errors="replace")
        capacity = len(data) + 8
        while True:
            ids = (C.llama_token * capacity)()
            n = C.llama_tokenize(self._vocab, data, len(data), ids, capacity, add_special, True)
            if n >= 0:
                return ids[:n]
            capacity = -n

    def piece(self, token: int) -> bytes:
        """The bytes that one token adds to the text; control tokens add none."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    def _read_piece(self, token: int, capacity: int = _PIECE_BYTES) -> bytes:
        buffer = ctypes.create_string_buffer(capacity)
        n = C.llama_token_to_piece(self._vocab, token, buffer, capacity, 0, False)
        return buffer.raw[:n] if n >= 0 else self._read_piece(token, -n)

    def difference(self, draft: "LlamaVocabulary") -> str | None:
        """Why `draft` cannot draft for this vocabulary, or None where it can.

        The rules of llama.cpp's `common_speculative_are_compatible`: one type, the same BOS and EOS
        where they are added, at most 128 tokens more or fewer, and the same text for every id from
        5 on.
        """
        ours, theirs = self._vocab, draft._vocab
        if C.llama_vocab_type(ours) != C.llama_vocab_type(theirs):
            return "they are of different types"
        for name in ("bos", "eos"):
            adds = getattr(C, f"llama_vocab_get_add_{name}")
            if adds(ours) != adds(theirs):
                return f"one adds {name.upper()} to a text and the other does not"
            if adds(ours) and getattr(self, name) != getattr(draft, name):
                ids = getattr(self, name), getattr(draft, name)
                return f"{name.upper()} is token {ids[0]} in one, {ids[1]} in the other"
        if abs(self.n_tokens - draft.n_tokens) > _MAX_SIZE_DIFFERENCE:
            return f"one has {self.n_tokens:,} tokens, the other {draft.n_tokens:,}"
        get_text = C.llama_vocab_get_text
        for i in range(_FIRST_COMPARED_ID, min(self.n_tokens, draft.n_tokens)):
            if get_text(ours, i) != get_text(theirs, i):
                return f"token {i} is {self.text(i)!r} in one, {draft.text(i)!r} in the other"
        return None


def _id_or_none(token: int) -> int | None:
    return token if token >= 0 else None
