"""A draft head as a small model: what one of its passes reads, for its cost and its bytes.

A step of a head reads its layers, of several heads' one, and a matrix for scores, its own or the
target's; of an embedding table it reads a row. EAGLE-3's encoder, which runs once a round, counts
with each step here. Names of tensors: src/models/*.cpp of llama.cpp.
"""

import re
from collections.abc import Iterator
from dataclasses import replace

from localspec.gguf.header import Header, Tensor
from localspec.model.facts import ModelFacts
from localspec.model.head_fit import layers_of_assistant
from localspec.model.head_pair import n_layers_of
from localspec.model.heads import HeadFacts
from localspec.model.layers import MAX_LAYERS, Layer, layers_of
from localspec.model.tokenizer import Tokenizer

_BLOCK = re.compile(r"^blk\.(\d+)\.(.*)")
_SCORES, _TABLE = "output.weight", "token_embd.weight"
_OWN_SCORES = "nextn.shared_head_head.weight"
_NOT_STREAMED = (
    "token_embd.", "nextn.embed_tokens.", "nextn.shared_head_head.", "selector_predecessor",
    "markov_w1", "d2t",
)  # fmt: skip
"""Tables of which a step reads a row a token, and what stands for the scores' matrix."""


def head_model(target: Header, head: Header | None, facts: HeadFacts) -> ModelFacts:
    """A head that `head_fit.head_of` judged. `weight_bytes` are those that it brings: of a head
    inside, what the target's file has beside the model proper."""
    file = head or target
    tensors = tuple(_step_tensors(target, file, facts))
    name = file.architecture
    metadata = {
        "general.architecture": name,
        "general.name": file.metadata.get("general.name", ""),
        f"{name}.block_count": MAX_LAYERS,
        f"{name}.embedding_length": file.metadata[f"{name}.embedding_length"],
        f"{name}.expert_count": file.integer(f"{name}.expert_count") or 0,
        f"{name}.expert_used_count": _experts_used(file),
    }
    header = Header(file.parts, file.version, file.alignment_bytes, metadata, tensors)
    model = ModelFacts.of(header, Tokenizer.of(target), head_layers(target, file, facts))
    own = file.tensors
    if head is None:  # those of the heads inside a model's file
        blocks = [(tensor, _BLOCK.match(tensor.name)) for tensor in own]
        first = n_layers_of(file)
        own = tuple(tensor for tensor, block in blocks if block and int(block[1]) >= first)
    return replace(
        model,
        state_bytes=0,
        n_params=sum(tensor.n_elements for tensor in own),
        weight_bytes=sum(tensor.n_bytes for tensor in own),
    )


def head_layers(target: Header, file: Header, facts: HeadFacts) -> tuple[Layer, ...]:
    """The layers of a step; that of an MTP head is like the target's last that sees all of the
    text."""
    if facts.needs_target_cache:
        return layers_of_assistant(file)
    if facts.method != "mtp":
        return layers_of(file)
    whole = [layer for layer in layers_of(target) if layer.has_cache and not layer.window_tokens]
    return tuple(whole[-1:] or layers_of(target)[-1:])


def _step_tensors(target: Header, file: Header, facts: HeadFacts) -> Iterator[Tensor]:
    """What a step reads, with the scores' matrix as `output`."""
    is_mtp, first = facts.method == "mtp", n_layers_of(file)
    for tensor in file.tensors:
        block = _BLOCK.match(tensor.name)
        is_other = is_mtp and not (block and int(block[1]) == first)
        is_table = tensor.name == _SCORES or any(part in tensor.name for part in _NOT_STREAMED)
        if not is_other and not is_table:
            yield tensor
    yield replace(_scores(target, file), name=_SCORES)


def _scores(target: Header, file: Header) -> Tensor:
    """The matrix for scores: the head's own, else its table, else the target's."""
    own = [tensor for tensor in file.tensors if tensor.name.endswith(_OWN_SCORES)]
    found = [*own[:1], *_named(file, _SCORES)]
    if file.architecture != "eagle3":
        found += _named(file, _TABLE)
    return [*found, *_named(target, _SCORES), *_named(target, _TABLE)][0]


def _named(header: Header, name: str) -> Iterator[Tensor]:
    return (tensor for tensor in header.tensors if tensor.name == name)


def _experts_used(file: Header) -> int:
    key = file.own_key("expert_used_count")
    value = file.metadata.get(key)
    return value if isinstance(value, int) else max(file.integers(key) or (0,)) if value else 0
