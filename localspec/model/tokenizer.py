"""A model's tokenizer as a value, made from a header or from a loaded engine.

A draft model needs the target's tokenizer, by llama.cpp's rules
(`common_speculative_are_compatible` in common/speculative.cpp). The engine gives what a header
omits a default, by the kind of tokenizer; a default that is unknown here is None and does not count
against a draft, since the loaded engines are compared again.

libllama asserts that no token text comes twice and that the tokens which begin or end every text
exist. A tokenizer that falls back to bytes (SentencePiece's) throws in the middle of a prompt where
a byte has no token. It checks the lengths of other arrays itself. Source: `llama_vocab::impl::load`
in src/llama-vocab.cpp.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

from localspec.gguf.cursor import LENGTH, Array, shown
from localspec.gguf.header import Header

PREFIX = "tokenizer.ggml."
NO_TEXT = ("no_vocab", "none")
CONTROL_KINDS = (3, 4)
"""LLAMA_TOKEN_TYPE_CONTROL and _USER_DEFINED: converters differ in which they give markers."""
MAX_SURPLUS, FIRST_COMPARED = 128, 5
"""Tokens that a draft may have more or fewer, and the first whose text must be the same."""

# Begin and end of text, and whether they are added, where the header does not say.
DEFAULT_ENDS = {"llama": (1, 2), "gpt2": (11, 11), "plamo2": (1, 2), "t5": (None, 1)}
_ADDS = {"llama": (True, False), "plamo2": (True, False), "t5": (False, True)}
_BPE_WITH_BOS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken", "chameleon")
_BYTE_PAIRS = ("gpt2", "hybriddna", "whitespace", "gemma4")
"""Names of one kind of tokenizer."""


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """`model` is the algorithm, `pre` how text is cut up before it; without text, no `n_tokens`.

    `texts` reads all token texts, in order, `controls` those with a meaning beside their letters.
    `digest` is of all without the first few, which control: two tokenizers with one digest know the
    same tokens. `chat_template` is a Jinja source that nobody has checked.
    """

    model: str | None = None
    pre: str | None = None
    n_tokens: int | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    adds_bos: bool | None = None
    adds_eos: bool | None = None
    chat_template: str | None = field(default=None, repr=False, compare=False)
    digest: str | None = None
    texts: Callable[[], Sequence[bytes]] = field(default=tuple, repr=False, compare=False)
    controls: Callable[[], Sequence[str]] = field(default=tuple, repr=False, compare=False)

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
            chat_template=header.text("tokenizer.chat_template") or None,
            digest=None if tokens is None else _digest(tokens),
            texts=lambda: header.raw_strings(PREFIX + "tokens") or [],
            controls=lambda: _controls(header),
        )

    @property
    def has_text(self) -> bool:
        """Whether there are tokens with text; a model written for measuring may know ids only."""
        return self.model not in NO_TEXT

    @property
    def kind(self) -> str | None:
        """The algorithm by one name."""
        return _BYTE_PAIRS[0] if self.model in _BYTE_PAIRS else self.model

    @property
    def adds(self) -> tuple[bool | None, bool | None]:
        """Whether BOS and EOS are added to a text, as far as is known."""
        bos, eos = _ADDS.get(self.model or "", (None, None))
        if self.pre in _BPE_WITH_BOS:
            bos = True
        return bos if self.adds_bos is None else self.adds_bos, (
            eos if self.adds_eos is None else self.adds_eos
        )

    @property
    def ends(self) -> tuple[int | None, int | None]:
        """The ids of BOS and EOS, as far as they are known."""
        bos, eos = DEFAULT_ENDS.get(self.model or "", (None, None))
        return bos if self.bos_id is None else self.bos_id, (
            eos if self.eos_id is None else self.eos_id
        )

    def difference(self, draft: "Tokenizer") -> str | None:
        """Why a model with the tokenizer `draft` cannot draft for one with this one, or None."""
        if self.kind != draft.kind:
            return f"their tokenizers are of different types, {self.kind} and {draft.kind}"
        return self._ends_difference(draft) or self.tokens_difference(draft)

    def _ends_difference(self, draft: "Tokenizer") -> str | None:
        for i, end in enumerate(("BOS", "EOS")):
            adds = self.adds[i], draft.adds[i]
            if None not in adds and adds[0] != adds[1]:
                return f"one adds {end} to a text and the other does not"
            ids = self.ends[i], draft.ends[i]
            if True in adds and None not in ids and ids[0] != ids[1]:
                return f"{end} is token {ids[0]} in one and {ids[1]} in the other"
        return None

    def tokens_difference(self, draft: "Tokenizer") -> str | None:
        """The first token that is another in `draft`, but for the few that control; or None."""
        sizes = self.n_tokens, draft.n_tokens
        if sizes[0] is None or sizes[1] is None:
            return None
        if abs(sizes[0] - sizes[1]) > MAX_SURPLUS:
            return f"one has {sizes[0]:,} tokens and the other {sizes[1]:,}"
        if self.digest is not None and self.digest == draft.digest:
            return None
        pairs = enumerate(zip(self.texts(), draft.texts(), strict=False))
        other = ((i, pair) for i, pair in pairs if i >= FIRST_COMPARED and pair[0] != pair[1])
        i, (ours, theirs) = next(other, (None, (b"", b"")))
        if i is None:
            return None
        return f"token {i} is {shown(ours)} in one and {shown(theirs)} in the other"


def pair_problem(target: Tokenizer, draft: Tokenizer, *, rolls_back: bool) -> str | None:
    """Why a model cannot draft for another, or None; `rolls_back`: it can take back tokens."""
    if not rolls_back:
        return "the draft's memory is recurrent and cannot roll back"
    return target.difference(draft)


def _controls(header: Header) -> list[str]:
    kinds = header.integers(PREFIX + "token_type") or ()
    pairs = zip(kinds, header.raw_strings(PREFIX + "tokens") or (), strict=False)
    return [text.decode("utf-8", "replace") for kind, text in pairs if kind in CONTROL_KINDS]


def _digest(tokens: Array) -> str:
    start = 0
    for _ in range(min(FIRST_COMPARED, len(tokens)) if tokens.is_strings else 0):
        start += LENGTH.size + LENGTH.unpack_from(tokens.data, start)[0]
    return sha256(memoryview(tokens.data)[start:]).hexdigest()


AGAIN = "download or convert it again"


def check_vocabulary(header: Header) -> Tokenizer:
    """The tokenizer. ModelError if libllama would abort while it loads or uses it."""
    tokenizer = Tokenizer.of(header)
    table = header.tensor("token_embd.weight")
    n_rows = table.shape[1] if table and len(table.shape) == 2 else None
    if not tokenizer.has_text:
        n_ids = header.own_integer("vocab_size")
        if n_ids is None or n_ids < 1 or (n_rows and n_ids != n_rows):
            raise header.fail(f"has {n_ids} token ids for {n_rows} embeddings; {AGAIN}")
        return tokenizer
    tokens = header.raw_strings(PREFIX + "tokens")
    if not tokens or (n_rows and len(tokens) != n_rows):
        raise header.fail(f"has {len(tokens or ())} tokens for {n_rows} embeddings; {AGAIN}")
    _check_distinct(header, tokens)
    if tokenizer.model == "llama":
        _check_bytes(header, tokens)
    _check_ends(header, tokenizer)
    return tokenizer


def _check_distinct(header: Header, tokens: list[bytes]) -> None:
    texts = [text for text in tokens if text]  # empty ones get names of their own
    if b"\0".join(texts).count(0) >= max(1, len(texts)):
        texts = [text.partition(b"\0")[0] for text in texts]  # libllama stops at a zero byte
    if len(set(texts)) < len(texts):
        twice = next(text for text, n in Counter(texts).items() if n > 1)
        raise header.fail(f"has the token {shown(twice)} twice; {AGAIN}")


def _check_bytes(header: Header, tokens: list[bytes]) -> None:
    known = set(tokens)
    for byte in range(256):
        if b"<0x%02X>" % byte not in known and bytes([byte]) not in known:
            raise header.fail(f"has no token for the byte {byte}, so no text is safe; {AGAIN}")


def _check_ends(header: Header, tokenizer: Tokenizer) -> None:
    added = tokenizer.adds_bos, tokenizer.adds_eos
    for verb, is_added, token in zip(("begins", "ends"), added, tokenizer.ends, strict=True):
        if is_added and (token is None or not 0 <= token < (tokenizer.n_tokens or 0)):
            raise header.fail(
                f"{verb} every text with token {token} and has {tokenizer.n_tokens} tokens; {AGAIN}"
            )
