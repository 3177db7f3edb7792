"""Whether a header can be believed: what `predict` and `list` must know before any engine sees it.

libllama reports most faults of a file and asserts the absence of others; what it dies of is found
by a trial load in a child (`session.trial`), which needs the file. The rules here need its header
alone. They refuse sizes that contradict each other, because every figure follows from them, and
what would fill the memory or be read out of bounds without a word: `load_hparams` and
`create_memory` in src/llama-model.cpp of llama.cpp take these for granted. An architecture that is
unknown here must only meet the rules that hold for all.
"""

from localspec.errors import ModelError
from localspec.gguf.cursor import shown
from localspec.gguf.header import Header
from localspec.model.facts import ModelFacts
from localspec.model.kind import check_kind
from localspec.model.layers import (
    HYBRID,
    RECURRENT,
    SKIPPING,
    WINDOWS,
    Layer,
    has_state_keys,
    layers_of,
)
from localspec.model.tokenizer import AGAIN, Tokenizer, check_vocabulary

MAX_SIZE = 1 << 24  # far above any embedding, head or feed-forward length
MAX_TOKENS = (1 << 31) - 1


def _contradiction(header: Header, what: str) -> ModelError:
    return header.fail(f"{what}; download or convert it again")


def _check_lengths(header: Header) -> None:
    for name, most in (("context_length", MAX_TOKENS), ("embedding_length", MAX_SIZE)):
        number = header.own_integer(name)
        if number is None or not 1 <= number <= most:
            raise _contradiction(header, f"has {number} for {shown(header.own_key(name))}")
    n_embd = header.own_integer("embedding_length")
    table = header.tensor("token_embd.weight")
    if table and table.shape[:1] != (n_embd,):
        raise _contradiction(
            header,
            f"has embeddings of shape {table.shape} but says that they have {n_embd} numbers",
        )


def check_layers(header: Header, layers: tuple[Layer, ...]) -> None:
    """ModelError where sizes of these layers, a model's or a head's, cannot be."""
    # An architecture that is not known here may be recurrent by what else it says of itself.
    is_recurrent = header.architecture in RECURRENT | HYBRID or has_state_keys(header)
    if not any(layer.n_heads for layer in layers) and not is_recurrent:
        raise _contradiction(header, "has no attention heads")
    for layer in set(layers):
        _check_heads(header, layer)
    _check_rotation(header, layers)
    if header.architecture in WINDOWS and not any(layer.window_tokens for layer in layers):
        key = header.own_key("attention.sliding_window")
        if header.integer(key):
            raise _contradiction(header, f"has {shown(key)} and no layer to use it")


def _check_heads(header: Header, layer: Layer) -> None:
    n, n_kv = layer.n_heads, layer.n_kv_heads
    if not (0 <= n_kv <= n <= MAX_SIZE and (not n_kv or n % n_kv == 0)):
        raise _contradiction(header, f"has {n} attention heads for {n_kv} heads of keys and values")
    sizes = (layer.key_size, layer.value_size)
    if n_kv and not (1 <= sizes[0] <= MAX_SIZE and 0 <= sizes[1] <= MAX_SIZE):
        raise _contradiction(header, f"has keys of {sizes[0]} and values of {sizes[1]} numbers")
    window = layer.window_tokens
    if window is not None and not 1 <= window <= MAX_TOKENS:
        raise _contradiction(header, f"has a sliding window of {window} tokens")


def _check_rotation(header: Header, layers: tuple[Layer, ...]) -> None:
    longest = max(layer.key_size for layer in layers)
    for key in ("rope.dimension_count", "rope.dimension_count_swa"):
        n_rotated = header.own_integer(key) or 0
        if longest and (n_rotated % 2 or not 0 <= n_rotated <= longest):
            raise _contradiction(header, f"rotates {n_rotated} numbers of keys of {longest}")


def usable_facts(header: Header, *, is_tried: bool = False) -> ModelFacts:
    """ModelError, in one sentence, for what is no model, or a header that contradicts itself.

    `is_tried`: the engine has loaded this file, so nobody need look at each text of its vocabulary.
    """
    check_kind(header)
    _check_lengths(header)
    layers = layers_of(header)
    check_layers(header, layers)
    _check_blocks(header)
    tokenizer = Tokenizer.of(header) if is_tried else check_vocabulary(header)
    return ModelFacts.of(header, tokenizer, layers)


def check_usable(header: Header) -> None:
    """As `usable_facts`, without the facts."""
    usable_facts(header)


def _check_blocks(header: Header) -> None:
    """Every layer below the draft heads has weights, and none are of layers beyond the last."""
    blocks = (tensor.name.split(".")[:2] for tensor in header.tensors)
    found = {int(n) for block, *rest in blocks for n in rest if block == "blk" and n.isdecimal()}
    n_found = max(found, default=-1) + 1
    n_blocks = header.own_integer("block_count") or 0
    if n_found > n_blocks:
        raise header.fail(f"has weights of {n_found} layers but says {n_blocks}; {AGAIN}")
    n_layers = n_blocks - header.n_draft_layers
    missing = next((i for i in range(n_layers) if i not in found), None)
    if missing is not None and header.architecture not in SKIPPING:
        raise header.fail(f"has no weights for layer {missing} of {n_layers}; {AGAIN}")
