"""DFlash and DSpark heads: a small model fills a whole block of masked tokens in one pass.

They read any number of layers of the target. The block's size and the mask's token are in the
header; DSpark adds a table that makes each token depend on the one before it, and mostly an
estimate of each token's chance. Source: src/models/dflash.cpp of llama.cpp.
"""

from pathlib import Path

from localspec.model.head_pair import HeadPair, n_tokens_of, size_of
from localspec.model.head_taps import check_ends, taps_of
from localspec.model.heads import HeadBlock, HeadFacts

DEFAULT_BLOCK = 16
"""What a DFlash head has that does not say it."""
STAGES = ("attention.output_group_count", "attention.sliding_window")
"""Keys of a head made of DeepSeek 4's layers that the loader divides by, or asserts."""


def dflash(pair: HeadPair) -> HeadFacts:
    """Of a DSpark head, too."""
    head = pair.head
    pair.check_architecture("dflash")
    taps = taps_of(pair)
    n = size_of(head, "embedding_length")
    pair.check_width(n, "embedding_length")
    if head.integer(head.own_key("hyper_connection.count")):
        for key in STAGES:
            size_of(head, key)
    pair.check_tokens()
    pair.need("fc.weight", len(taps) * n, n)
    pair.need("enc.output_norm.weight", n)
    check_ends(pair)
    is_dspark = pair.tensor("markov_w1.weight") is not None
    block = _block(pair, is_dspark=is_dspark)
    n_draft_max, method = block.n_tokens - block.first, "dspark" if is_dspark else "dflash"
    return HeadFacts(method, Path(head.name), n_draft_max=n_draft_max, taps=taps, block=block)


def _block(pair: HeadPair, *, is_dspark: bool) -> HeadBlock:
    head = pair.head
    n_tokens = head.integer(head.own_key("block_size"))
    if n_tokens is None and not is_dspark:
        n_tokens = DEFAULT_BLOCK
    if n_tokens is None or n_tokens < 2:
        raise pair.broken(f"has {n_tokens} for its block's size, and 2 is the least")
    from_anchor = head.flag(head.own_key("sample_from_anchor"))
    return HeadBlock(
        n_tokens,
        _mask(pair),
        first=0 if is_dspark and from_anchor is not False else 1,
        is_causal=head.flag(head.own_key("attention.causal")) or False,
        has_confidence=is_dspark and pair.tensor("conf_proj.weight") is not None,
        n_lattice=_lattice(pair),
    )


def _mask(pair: HeadPair) -> int:
    mask = pair.head.integer("tokenizer.ggml.mask_token_id")
    n_tokens = n_tokens_of(pair.target)
    if mask is None:
        raise pair.broken("does not say which token stands for one to be filled in (mask_token_id)")
    if mask < 0 or (n_tokens and mask >= n_tokens):
        raise pair.broken(f"fills in for token {mask}, and its target has {n_tokens}")
    return mask


def _lattice(pair: HeadPair) -> int:
    if pair.tensor("selector_hidden.weight") is None:
        return 0
    for key in ("selector_rank", "conv_kernel_size", "conv_group_size"):
        size_of(pair.head, key)
    return size_of(pair.head, "selector_top_k")
