"""Whether the vocabulary is one that libllama can take in.

It keeps a table of texts and one of ids and asserts that they are of one size, so no text may come
twice; a tokenizer that falls back to bytes (SentencePiece's) throws in the middle of a prompt where
the token of a byte is missing; and it asserts that there is the token with which it is told to
begin or end every text. Source: src/llama-vocab.cpp of llama.cpp. The lengths of the other arrays
it checks itself.
"""

from collections import Counter

from localspec.model.header import Header
from localspec.model.tokenizer import PREFIX, Tokenizer
from localspec.model.values import shown

AGAIN = "download or convert it again"
# Begin and end of text where the header does not say, by tokenizer model.
DEFAULT_ENDS = {"llama": (1, 2), "gpt2": (11, 11), "plamo2": (1, 2), "t5": (None, 1)}


def check_vocabulary(header: Header) -> None:
    """ModelError if libllama would abort while it loads or uses the tokenizer."""
    tokenizer = Tokenizer.of(header)
    n_rows = _embedding_rows(header)
    if not tokenizer.has_text:
        n_ids = header.integer(header.own_key("vocab_size"))
        if n_ids is None or n_ids < 1 or (n_rows and n_ids != n_rows):
            raise header.fail(f"has {n_ids} token ids for {n_rows} embeddings; {AGAIN}")
        return
    tokens = header.raw_strings(PREFIX + "tokens")
    if not tokens or (n_rows and len(tokens) != n_rows):
        raise header.fail(f"has {len(tokens or ())} tokens for {n_rows} embeddings; {AGAIN}")
    _check_distinct(header, tokens)
    if tokenizer.model == "llama":
        _check_bytes(header, tokens)
    _check_ends(header, tokenizer)


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
