"""Whether a draft head fits a target, by their headers alone, before anything is loaded.

libllama has no error for a head that does not fit: a graph without a tensor, a layer that cannot be
tapped or a state of another width end the process. Which architectures have a graph for their MTP
layers, or give what a head reads, follows from their code and from nothing in a header: the tables
here are of libllama 0.5.0. What headers cannot tell is found by a trial in a child
(`session.trial`). Source: src/models/*.cpp and common/speculative.cpp of llama.cpp.

DFlash and DSpark heads: a small model fills a whole block of masked tokens in one pass.

They read any number of layers of the target. The block's size and the mask's token are in the
header; DSpark adds a table that makes each token depend on the one before it, and mostly an
estimate of each token's chance. Source: src/models/dflash.cpp of llama.cpp.
"""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from localspec.errors import ModelError
from localspec.gguf.cursor import shown
from localspec.gguf.header import Header
from localspec.model.facts import HeadBlock, HeadFacts
from localspec.model.head_pair import (
    HeadPair,
    check_ends,
    eagle3,
    n_layers_of,
    n_tokens_of,
    size_of,
    taps_of,
)
from localspec.model.kind import kind_of
from localspec.model.layers import Layer, layers_of, names_of
from localspec.model.usable import check_layers

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
    if head.own_integer("hyper_connection.count"):
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
    n_tokens = head.own_integer("block_size")
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


ONE_HEAD = names_of(
    "bailingmoe3 cohere2moe deepseek2 deepseek32 deepseek4 glm-dsa glm4moe nemotron_h_moe"
    " qwen35 qwen35moe qwen3next"
)
"""Their graph of a head (LLM_GRAPH_TYPE_DECODER_MTP) asserts that there is one."""
SEVERAL_HEADS = names_of("hy_v3 mimo2 step35")
OWN_TENSORS = {
    "bailingmoe3": ("layer_output_norm",),
    "mimo2": ("attn_qkv", "ffn_gate", "ffn_down", "ffn_up"),
    "nemotron_h_moe": ("nextn.shared_head_norm", "ffn_gate_inp"),
}
"""What the graph of a head asserts beside what all have."""
UNTIED = names_of("deepseek4 mimo2 step35")
"""They make no scores with the embeddings where the file has no matrix for scores."""

Judge = Callable[[HeadPair], HeadFacts]


def head_of(target: Header, head: Header | None = None) -> HeadFacts | str:
    """The facts of a head that fits, or a sentence why it does not. `head` None: in the target."""
    try:
        return _judge(target, head)
    except ModelError as error:
        return str(error)


def is_head(header: Header) -> bool:
    """Whether a file is a draft head and nothing else."""
    return kind_of(header).name in _JUDGES


def _judge(target: Header, head: Header | None) -> HeadFacts:
    if head is None:
        return _inside(HeadPair(target, target))
    judge = _JUDGES.get(kind_of(head).name)
    pair = HeadPair(target, head)
    if judge is None:
        raise _no_head(pair)
    if is_head(target):
        raise pair.unfit("the target is a draft head itself", "name a whole model first")
    facts = judge(pair)
    _check_own_layers(pair, facts)
    return facts


ROTATED = ("rope.dimension_count", "rope.dimension_count_swa")


def _check_own_layers(pair: HeadPair, facts: HeadFacts) -> None:
    """What the engine allocates by, and turns keys by: where nothing turns, some loops of it never
    end."""
    head, target = pair.head, pair.target
    if n_layers_of(head) or facts.needs_target_cache:
        check_layers(
            head, layers_of_assistant(head) if facts.needs_target_cache else layers_of(head)
        )
    for key in ROTATED:
        if head.own_integer(key) == 0 != target.own_integer(key):
            raise pair.broken(f"turns 0 numbers of its keys by their place ({key})")


def _no_head(pair: HeadPair) -> ModelError:
    if not pair.head.architecture:
        return pair.broken("does not say its architecture")
    if pair.head.name == pair.target.name:
        file = PurePosixPath(pair.head.name).name
        return ModelError(
            f"{file} is no head beside itself: --draft own asks for the one inside it"
        )
    name = kind_of(pair.head).name
    article = "an" if name[0] in "aeiou" else "a"
    then = "a model beside the target is a draft model"
    return pair.unfit(f"it is no draft head but {article} {name}", then)


def _inside(pair: HeadPair) -> HeadFacts:
    if not pair.target.n_draft_layers:
        raise ModelError(
            f"{Path(pair.target.name).name} has no draft head (MTP) inside: get a file of the model"
            " that has one, or name a head of its own with --draft"
        )
    return _mtp(pair)


def _mtp(pair: HeadPair) -> HeadFacts:
    """Layers behind the last one, each with a projection of a token and a state to one input."""
    head, name = pair.head, pair.head.architecture
    n_heads = head.n_draft_layers
    if name not in ONE_HEAD | SEVERAL_HEADS:
        raise pair.unfit(
            f"llama.cpp cannot run heads (MTP) of the architecture {shown(name)}",
            "leave the head out",
        )
    if name in ONE_HEAD and n_heads != 1:
        raise pair.unfit(
            f"it has {n_heads} heads, and llama.cpp runs one of {shown(name)}", "leave the head out"
        )
    for layer in range(n_layers_of(head), n_layers_of(head) + n_heads):
        _check_block(pair, f"blk.{layer}")
    if not pair.is_inside:
        _check_sidecar(pair)
    path = None if pair.is_inside else Path(head.name)
    return HeadFacts("mtp", path, n_heads, n_heads if n_heads > 1 else None)


def _check_block(pair: HeadPair, block: str) -> None:
    n = size_of(pair.head, "embedding_length")
    pair.need(f"{block}.nextn.eh_proj.weight", 2 * n, n)
    for name in ("enorm", "hnorm"):
        pair.need(f"{block}.nextn.{name}.weight", n)
    for name in OWN_TENSORS.get(pair.head.architecture, ()):
        pair.need(f"{block}.{name}.weight")


def _check_sidecar(pair: HeadPair) -> None:
    """A file with the model's metadata, its embeddings and the blocks of its heads."""
    target, head = pair.target, pair.head
    names = target.architecture, head.architecture
    if names[0] != names[1]:
        raise pair.unfit(f"it is of a model of {shown(names[1])}, and the target of {names[0]}")
    pair.check_width(size_of(head, "embedding_length"), "embedding_length")
    if n_layers_of(head) not in (0, n_layers_of(target)):
        raise pair.unfit(
            f"it is of a model of {n_layers_of(head)} layers, and the target has"
            f" {n_layers_of(target)}"
        )
    pair.check_tokens()
    pair.need("token_embd.weight")
    pair.need("output_norm.weight")
    own = f"blk.{n_layers_of(head)}.nextn.shared_head_head.weight"
    if head.architecture in UNTIED and pair.tensor(own) is None:
        pair.need("output.weight")


def _assistant(pair: HeadPair) -> HeadFacts:
    """Gemma 4's: a small transformer that attends to the cache of the target's last two layers."""
    target, head = pair.target, pair.head
    pair.check_architecture("gemma4-assistant")
    if target.architecture != "gemma4":
        raise pair.unfit(f"it is for Gemma 4, and the target is a {shown(target.architecture)}")
    if not head.n_draft_layers:
        raise pair.broken("says of none of its layers that they draft (nextn_predict_layers)")
    n, n_out = size_of(head, "embedding_length"), size_of(head, "embedding_length_out")
    pair.check_width(n_out, "embedding_length_out")
    if n == n_out:
        raise pair.broken("has states of its own as wide as the target's, which llama.cpp refuses")
    pair.check_tokens()
    pair.need("nextn.pre_projection.weight", 2 * n_out, n)
    pair.need("nextn.post_projection.weight", n, n_out)
    pair.need("token_embd.weight", n, n_tokens_of(head) or 0)
    _check_shared_cache(pair)
    return HeadFacts("gemma4-assistant", Path(head.name), needs_target_cache=True)


def _check_shared_cache(pair: HeadPair) -> None:
    """Its layers with a window read the target's last but one, the others its last."""
    layers = layers_of(pair.target)
    if len(layers) < 2 or layers[-2].window_tokens is None or layers[-1].window_tokens is not None:
        raise pair.unfit("the target's last two layers are not one with a window and one without")
    own = layers_of_assistant(pair.head)
    if not any(layer.window_tokens for layer in own):
        raise pair.broken("has no layer with a sliding window, which llama.cpp takes for granted")
    for layer in own:
        if layer.key_size != layer.value_size:
            raise pair.broken(f"has keys of {layer.key_size} and values of {layer.value_size}")
        theirs = layers[-2] if layer.window_tokens else layers[-1]
        if _cache(layer) != _cache(theirs):
            raise pair.unfit(
                f"it reads a cache of {_cache(layer)} (heads, key, value), and the target has"
                f" {_cache(theirs)}"
            )


def layers_of_assistant(head: Header) -> tuple[Layer, ...]:
    """All of them: it counts each as a head."""
    prefix = "gemma4."
    keys = {key.replace(f"{head.architecture}.", prefix): v for key, v in head.metadata.items()}
    keys |= {"general.architecture": "gemma4", prefix + "nextn_predict_layers": 0}
    return layers_of(Header(head.parts, head.version, head.alignment_bytes, keys, head.tensors))


def _cache(layer: Layer) -> tuple[int, int, int]:
    return layer.n_kv_heads, layer.key_size, layer.value_size


_JUDGES: dict[str, Judge] = {
    "MTP head": _mtp,
    "assistant": _assistant,
    "EAGLE-3 head": eagle3,
    "DFlash head": dflash,
    "DSpark head": dflash,
}
