"""Whether libllama can be given this model without dying of it.

libllama reports most of what is wrong with a file, but it asserts some (the process aborts) and
trusts the rest (it divides by zero, reads out of bounds, fills the memory). The rules here and in
`kind`, `sizes` and `vocabulary` refuse the latter two before the engine sees the file. They are
what the code of llama.cpp takes for granted; flipping bytes of real headers showed which of these
matter. An architecture that is unknown here passes: only what holds for all is asked.

What sort of thing a GGUF file holds; of use are language models that write left to right.

Source: `general.type` in the GGUF specification, the tools of llama.cpp that write such files, and
`llama_model::create_memory` for architectures that have no cache to write with.
"""

from localspec.gguf.cursor import shown
from localspec.gguf.header import Header, Tensor
from localspec.model.architectures import (
    DIFFUSION,
    DRAFT_HEADS,
    ENCODER_DECODERS,
    ENCODERS,
    NOT_LANGUAGE,
    SKIPPING,
)
from localspec.model.facts import ModelFacts
from localspec.model.hparams import check_sizes
from localspec.model.tokenizer import AGAIN, check_vocabulary

POOLINGS = (1, 2, 3, 4)  # one vector for a text: by mean, first or last token, or a rank
WHOLE = "give the path of a whole language model"

_FILE_KINDS = {
    "adapter": f"is a LoRA adapter; {WHOLE}",
    "imatrix": f"is an importance matrix for quantizing; {WHOLE}",
    "mmproj": f"is the image or sound encoder of a model; {WHOLE}",
}
_ARCHITECTURE_KINDS = {
    **dict.fromkeys(ENCODERS, f"makes embeddings and cannot write text; {WHOLE}"),
    **dict.fromkeys(DIFFUSION, f"writes by diffusion, not one token after another; {WHOLE}"),
    **dict.fromkeys(DRAFT_HEADS, f"drafts for one other model and cannot write alone; {WHOLE}"),
    **dict.fromkeys(
        ENCODER_DECODERS, f"translates with an encoder, which is not supported; {WHOLE}"
    ),
    **dict.fromkeys(NOT_LANGUAGE, f"is no language model; {WHOLE}"),
}


def check_kind(header: Header) -> None:
    """ModelError unless this is a language model, of an architecture known here or not."""
    kind = _FILE_KINDS.get(header.text("general.type") or "")
    if kind:
        raise header.fail(kind)
    if not header.architecture:
        raise header.fail(f"does not say its architecture; {WHOLE}")
    name = f"has the architecture {shown(header.architecture)}, which "
    kind = _ARCHITECTURE_KINDS.get(header.architecture)
    if kind:
        raise header.fail(name + kind)
    if not header.tensors:
        raise header.fail(f"has no weights, only metadata; {WHOLE}")
    if _is_embedder(header):
        raise header.fail(f"makes embeddings and cannot write text; {WHOLE}")
    if _is_head_alone(header):
        raise header.fail(f"has only the draft head (MTP) of a model, not its layers; {WHOLE}")


def _is_embedder(header: Header) -> bool:
    pooling = header.integer(header.own_key("pooling_type"))
    return header.flag(header.own_key("attention.causal")) is False or pooling in POOLINGS


def _is_head_alone(header: Header) -> bool:
    """A sidecar (`mtp-NAME.gguf`): the last blocks of a model, which predict further tokens.

    libllama loads one without the blocks below, for a context of heads, and in a plain context dies
    of them. It tells a sidecar by the first norm (src/models/qwen35.cpp and its likes).
    """
    n_heads = header.integer(header.own_key("nextn_predict_layers")) or 0
    n_blocks = header.integer(header.own_key("block_count")) or 0
    has_first = any(tensor.name == "blk.0.attn_norm.weight" for tensor in header.tensors)
    return n_heads > 0 and (not has_first or n_blocks == n_heads)


# Types that no kernel multiplies with, and the tables of numbers that may have them.
NOT_WEIGHTS = frozenset({"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"})
MAPPED_ALIGNMENT_BYTES = 32  # TENSOR_ALIGNMENT of ggml, asserted for a mapped file
NUMBER_TABLES = ("tid2eid", "d2t")
ADDED_AS_F32 = ("_norm.weight", ".ssm_a", ".ssm_d", ".ssm_conv1d.weight")


def usable_facts(header: Header) -> ModelFacts:
    """ModelError, in one sentence, for a model that libllama would not load or not survive."""
    check_kind(header)
    layers = check_sizes(header)
    _check_blocks(header)
    for tensor in header.tensors:
        _check_tensor(header, tensor)
    return ModelFacts.of(header, check_vocabulary(header), layers)


def check_usable(header: Header) -> None:
    """The same where nobody wants the facts."""
    usable_facts(header)


def _check_blocks(header: Header) -> None:
    """Every layer below the draft heads has weights, and none are of layers beyond the last."""
    found = {int(t.name.split(".")[1]) for t in header.tensors if _is_in_block(t)}
    n_found = max(found, default=-1) + 1
    n_blocks = header.integer(header.own_key("block_count")) or 0
    if n_found > n_blocks:
        raise header.fail(f"has weights of {n_found} layers but says {n_blocks}; {AGAIN}")
    n_layers = n_blocks - (header.integer(header.own_key("nextn_predict_layers")) or 0)
    missing = next((i for i in range(n_layers) if i not in found), None)
    if missing is not None and header.architecture not in SKIPPING:
        raise header.fail(f"has no weights for layer {missing} of {n_layers}; {AGAIN}")


def _is_in_block(tensor: Tensor) -> bool:
    start, _, rest = tensor.name.partition(".")
    return start == "blk" and rest.partition(".")[0].isdecimal()


def _check_tensor(header: Header, tensor: Tensor) -> None:
    problem = _type_problem(tensor)
    if tensor.offset_bytes % MAPPED_ALIGNMENT_BYTES:
        problem = f"at byte {tensor.offset_bytes}, no multiple of {MAPPED_ALIGNMENT_BYTES}"
    if problem:
        raise header.fail(f"has the weights {shown(tensor.name)} {problem}; {AGAIN}")


def _type_problem(tensor: Tensor) -> str | None:
    kind, name = tensor.type.name, tensor.name
    if kind in NOT_WEIGHTS:
        is_table = any(table in name for table in NUMBER_TABLES)
        return None if is_table else f"of the type {kind}, which nothing multiplies with"
    is_vector = len(tensor.shape) < 2 and "gate_inp" not in name
    if kind != "F32" and (is_vector or name.endswith(ADDED_AS_F32)):
        return f"of the type {kind}, and these can be F32 only"
    return None
