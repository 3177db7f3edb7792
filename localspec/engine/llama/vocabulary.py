"""A model's vocabulary: text to ids and ids to bytes."""

import ctypes
import os
from collections.abc import Mapping
from functools import cached_property
from itertools import repeat
from pathlib import Path

from localspec import paths
from localspec.engine.health import engine_fingerprint
from localspec.engine.llama.binding import C, Handle, engine_log, initialise
from localspec.engine.vocabulary import FimTokens, SpecialKind
from localspec.errors import ModelError
from localspec.gguf.reader import fingerprint
from localspec.model.tokenizer import Tokenizer
from localspec.store import Kept, hashed

_PIECE_BYTES = 256
MANY = 10_000
"""Tokens from which on it is kept which of them are no text: libllama tells one at a time."""
_GUARD = "\x01"
"""A character that no token joins to another one."""
_KINDS = ("none", "llama", "gpt2", "bert", "t5", "rwkv", "plamo2")
"""Names in files, in the order of enum llama_vocab_type."""


def load_vocabulary(path: Path) -> "LlamaVocabulary":
    """A model's vocabulary without its weights, kept until this process ends.

    Raises ModelError where the file does not load.
    """
    initialise()
    params = C.llama_model_default_params()
    params.vocab_only = True
    engine_log.clear()
    model = C.llama_model_load_from_file(os.fsencode(path), params)
    if not model:
        raise ModelError(f"{path.name} does not load: {engine_log.reason()}")
    return LlamaVocabulary(model, path)


class LlamaVocabulary:
    """The vocabulary of a loaded model; lives as long as the model."""

    def __init__(self, model: Handle, path: Path | None = None) -> None:
        self._model = model
        self._path = path
        self._vocab = C.llama_model_get_vocab(model)
        self._pieces: dict[int, bytes] = {}
        self._buffer = ctypes.create_string_buffer(_PIECE_BYTES)
        self.n_tokens: int = C.llama_vocab_n_tokens(self._vocab)

    @property
    def eog(self) -> frozenset[int]:
        """Ids that end a generation.

        libllama takes `</s>` for one by its text (PaddleOCR has it); in Qwen's files it is text.
        """
        return self._eog

    @cached_property
    def _eog(self) -> frozenset[int]:
        fim = (C.llama_vocab_fim_pad, C.llama_vocab_fim_rep, C.llama_vocab_fim_sep)
        known = {*self._kinds, *self._ends, *(get(self._vocab) for get in fim)}
        found = (i for i in known if i >= 0 and C.llama_vocab_is_eog(self._vocab, i))
        return frozenset(i for i in found if not self._is_ordinary(i))

    @property
    def specials(self) -> Mapping[str, SpecialKind]:
        return self._specials

    @cached_property
    def _specials(self) -> Mapping[str, SpecialKind]:
        found: dict[str, SpecialKind] = {}
        for token, kind in self._kinds.items():
            if kind & _CONTROL:
                found[self.text(token)] = "ordinary" if self._is_ordinary(token) else "control"
            elif kind & C.LLAMA_TOKEN_ATTR_USER_DEFINED:
                found[self.text(token)] = "user"
        found.pop("", None)
        return found

    @cached_property
    def _kinds(self) -> dict[int, int]:
        """The attributes of all tokens that are not simply text."""
        if self._path is None or self.n_tokens < MANY:
            return self._read_kinds()
        key = f"{fingerprint(self._path)} {engine_fingerprint()}"
        path = hashed(paths.cache_dir() / "vocabularies", key)
        kept = Kept(path, lambda kinds: {int(i): int(k) for i, k in kinds.items()}, dict[int, int])
        found = kept.load()
        if found is None:
            found = self._read_kinds()
            kept.save(found)
        return found

    def _read_kinds(self) -> dict[int, int]:
        ids = range(0 if self.is_empty else self.n_tokens)
        kinds = map(C.llama_vocab_get_attr, repeat(self._vocab), ids)
        normal = C.LLAMA_TOKEN_ATTR_NORMAL
        return {i: kind for i, kind in zip(ids, kinds, strict=True) if kind != normal}

    @cached_property
    def _ends(self) -> frozenset[int]:
        """What the file begins and ends texts and turns with; -1 for none."""
        ends = C.llama_vocab_bos, C.llama_vocab_eos, C.llama_vocab_eot
        return frozenset(get(self._vocab) for get in ends)

    def _is_ordinary(self, token: int) -> bool:
        """Whether the file calls a token text and does not use it; careless files do use some."""
        is_normal = self._kinds.get(token, 0) & C.LLAMA_TOKEN_ATTR_NORMAL
        is_used = token in self._ends or self.text(token) in (self.chat_template or "")
        return bool(is_normal) and not is_used

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
        return (C.llama_vocab_get_text(self._vocab, token) or b"").decode("utf-8", "replace")

    @property
    def adds_space(self) -> bool:
        return self._adds_space

    @cached_property
    def _adds_space(self) -> bool:
        return b"".join(map(self.piece, self._tokenize("a"))) == b" a"

    @property
    def fim(self) -> FimTokens | None:
        return self._fim

    @cached_property
    def _fim(self) -> FimTokens | None:
        needed = (C.llama_vocab_fim_pre, C.llama_vocab_fim_suf, C.llama_vocab_fim_mid)
        found = [_id_or_none(get(self._vocab)) for get in needed]
        repo, file = (_id_or_none(get(self._vocab)) for get in _FIM_FILES)
        prefix, suffix, middle = found
        if prefix is None or suffix is None or middle is None:
            return None
        return FimTokens(prefix, suffix, middle, repo, file)

    def tokenize(
        self, text: str, *, add_special: bool, parse_special: bool = True, goes_on: bool = False
    ) -> list[int]:
        if self.is_empty:
            raise ModelError(
                "this model carries no tokenizer, so it cannot read text: use another GGUF file"
            )
        if not (goes_on and self.adds_space):
            return self._tokenize(text, parse_special, add_special)
        n_guard = len(self._tokenize(_GUARD))
        return self._tokenize(_GUARD + text, parse_special)[n_guard:]

    def _tokenize(
        self, text: str, parse_special: bool = False, add_special: bool = False
    ) -> list[int]:
        data = text.encode(errors="replace")
        capacity = len(data) + 8
        while True:
            ids = (C.llama_token * capacity)()
            n = C.llama_tokenize(
                self._vocab, data, len(data), ids, capacity, add_special, parse_special
            )
            if n >= 0:
                return ids[:n]
            capacity = -n

    def piece(self, token: int) -> bytes:
        """The bytes that one token adds to the text; control tokens add none."""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    def _read_piece(self, token: int) -> bytes:
        n = C.llama_token_to_piece(self._vocab, token, self._buffer, len(self._buffer), 0, False)
        if n < 0:
            self._buffer = ctypes.create_string_buffer(-n)
            return self._read_piece(token)
        return ctypes.string_at(self._buffer, n)

    @property
    def tokenizer(self) -> Tokenizer:
        """What must agree in two models that share drafts."""
        return Tokenizer(
            model=_KINDS[C.llama_vocab_type(self._vocab)],
            pre=None,
            n_tokens=self.n_tokens,
            bos_id=self.bos,
            eos_id=self.eos,
            adds_bos=C.llama_vocab_get_add_bos(self._vocab),
            adds_eos=C.llama_vocab_get_add_eos(self._vocab),
            chat_template=self.chat_template,
            texts=self._texts,
        )

    def _texts(self) -> list[bytes]:
        if self.is_empty:
            return []
        get_text = C.llama_vocab_get_text
        return [get_text(self._vocab, i) or b"" for i in range(self.n_tokens)]


_CONTROL = C.LLAMA_TOKEN_ATTR_CONTROL | C.LLAMA_TOKEN_ATTR_UNKNOWN
"""What `llama_tokenize` recognises only on request."""


_FIM_FILES = (C.llama_vocab_fim_rep, C.llama_vocab_fim_sep)


def _id_or_none(token: int) -> int | None:
    return token if token >= 0 else None
