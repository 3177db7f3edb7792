"""What a header says of its tokenizer; to share drafts, two models must agree in it.

Source: `llama_vocab::impl::load` in src/llama-vocab.cpp of llama.cpp. Ids that the header leaves
out get defaults there by the tokenizer's kind; they are None here.

Whether one model can draft for another, told from their headers, before any weights move.

The rules are llama.cpp's (`common_speculative_are_compatible` in common/speculative.cpp): one type
of tokenizer, the same BOS and EOS where they are added, at most 128 tokens more or fewer, and the
same text for every token from 5 on. What a header leaves out is not held against it: the engine
compares again when both are loaded.

Whether the vocabulary is one that libllama can take in.

It keeps a table of texts and one of ids and asserts that they are of one size, so no text may come
twice; a tokenizer that falls back to bytes (SentencePiece's) throws in the middle of a prompt where
the token of a byte is missing; and it asserts that there is the token with which it is told to
begin or end every text. Source: src/llama-vocab.cpp of llama.cpp. The lengths of the other arrays
it checks itself.
"""

from collections import Counter
from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from localspec.gguf.cursor import LENGTH, Array, shown
from localspec.gguf.header import Header
from localspec.model.architectures import HYBRID, RECURRENT

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


AGAIN = "download or convert it again"
# Begin and end of text where the header does not say, by tokenizer model.
DEFAULT_ENDS = {"llama": (1, 2), "gpt2": (11, 11), "plamo2": (1, 2), "t5": (None, 1)}


def check_vocabulary(header: Header) -> Tokenizer:
    """The tokenizer. ModelError if libllama would abort while it loads or uses it."""
    tokenizer = Tokenizer.of(header)
    n_rows = _embedding_rows(header)
    if not tokenizer.has_text:
        n_ids = header.integer(header.own_key("vocab_size"))
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


def _embedding_rows(header: Header) -> int | None:
    table = next((t for t in header.tensors if t.name == "token_embd.weight"), None)
    return table.shape[1] if table and len(table.shape) == 2 else None


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
    bos_id, eos_id = DEFAULT_ENDS.get(tokenizer.model or "", (None, None))
    ends = (
        ("begins", tokenizer.adds_bos, tokenizer.bos_id, bos_id),
        ("ends", tokenizer.adds_eos, tokenizer.eos_id, eos_id),
    )
    for verb, is_added, given, default in ends:
        token = default if given is None else given
        if is_added and (token is None or not 0 <= token < (tokenizer.n_tokens or 0)):
            raise header.fail(
                f"{verb} every text with token {token} and has {tokenizer.n_tokens} tokens; {AGAIN}"
            )


MAX_SIZE_DIFFERENCE = 128
FIRST_COMPARED_ID = 5
# Whether BOS and EOS are added where the header does not say, from src/llama-vocab.cpp.
_ADDS = {"llama": (True, False), "plamo2": (True, False), "t5": (False, True)}
_BPE_WITH_BOS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken", "chameleon")


def pair_problem(target: Header, draft: Header) -> str | None:
    """Why `draft` cannot draft for `target`, or None where it can. Raises ModelError."""
    if draft.architecture in RECURRENT | HYBRID:
        return "the draft's memory is recurrent and cannot take back tokens"
    ours, theirs = Tokenizer.of(target), Tokenizer.of(draft)
    if ours.model != theirs.model:
        return f"their tokenizers are of different types, {ours.model} and {theirs.model}"
    return _ends_problem(ours, theirs) or _tokens_problem(target, draft)


def _ends_problem(ours: Tokenizer, theirs: Tokenizer) -> str | None:
    for i, end in enumerate(("BOS", "EOS")):
        adds = _adds(ours)[i], _adds(theirs)[i]
        if None not in adds and adds[0] != adds[1]:
            return f"one adds {end} to a text and the other does not"
        ids = _end_id(ours, i), _end_id(theirs, i)
        if True in adds and None not in ids and ids[0] != ids[1]:
            return f"{end} is token {ids[0]} in one and {ids[1]} in the other"
    return None


def _adds(tokenizer: Tokenizer) -> tuple[bool | None, bool | None]:
    bos, eos = _ADDS.get(tokenizer.model or "", (None, None))
    if tokenizer.pre in _BPE_WITH_BOS:
        bos = True
    given = tokenizer.adds_bos, tokenizer.adds_eos
    return bos if given[0] is None else given[0], eos if given[1] is None else given[1]


def _end_id(tokenizer: Tokenizer, i: int) -> int | None:
    given = (tokenizer.bos_id, tokenizer.eos_id)[i]
    return DEFAULT_ENDS.get(tokenizer.model or "", (None, None))[i] if given is None else given


def _tokens_problem(target: Header, draft: Header) -> str | None:
    ours = target.raw_strings(PREFIX + "tokens") or []
    theirs = draft.raw_strings(PREFIX + "tokens") or []
    if abs(len(ours) - len(theirs)) > MAX_SIZE_DIFFERENCE:
        return f"one has {len(ours):,} tokens and the other {len(theirs):,}"
    n = min(len(ours), len(theirs))
    if ours[FIRST_COMPARED_ID:n] == theirs[FIRST_COMPARED_ID:n]:
        return None
    i = next(i for i in range(FIRST_COMPARED_ID, n) if ours[i] != theirs[i])
    return f"token {i} is {shown(ours[i])} in one and {shown(theirs[i])} in the other"
