"""What sort of thing a GGUF file holds; of use are language models that write left to right.

Source: `general.type` in the GGUF specification, the tools of llama.cpp that write such files, and
`llama_model::create_memory` for architectures that have no cache to write with.
"""

from localspec.model.architectures import (
    DIFFUSION,
    DRAFT_HEADS,
    ENCODER_DECODERS,
    ENCODERS,
    NOT_LANGUAGE,
)
from localspec.model.header import Header
from localspec.model.values import shown

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


def _is_embedder(header: Header) -> bool:
    pooling = header.integer(header.own_key("pooling_type"))
    return header.flag(header.own_key("attention.causal")) is False or pooling in POOLINGS
