"""What a GGUF file is, by its header: a model, or something that goes beside one, or neither.

Keys and tensors decide; an architecture's name decides only where the file has no other mark, and a
file's own name never. Sources: the tools that write them (conversion/*.py of llama.cpp,
`general.type` in docs/gguf.md of ggml), `load_arch_tensors` of src/models/*.cpp, and for images the
loaders of stable-diffusion.cpp and ComfyUI-GGUF.
"""

import re
from dataclasses import dataclass

from localspec.gguf.cursor import shown
from localspec.gguf.header import Header, Tensor
from localspec.model.layers import names_of

WHOLE = "give the path of a whole language model"


ENCODERS = names_of(
    "bert modern-bert nomic-bert nomic-bert-moe neo-bert jina-bert-v2 jina-bert-v3 eurobert"
    " gemma-embedding llama-embed t5encoder"
)
DIFFUSION = names_of("dream llada llada-moe rnd1")
ENCODER_DECODERS = frozenset({"t5"})
SPEECH = names_of("wavtokenizer-dec qwen3tts pockettts")
IMAGE_ARCHITECTURES = re.compile(
    r"(flux|sd[123x]|sdxl|aura|hidream|ltxv?|hyvid|hunyuan_video|wan|cosmos|lumina|qwen_image|chroma"
    r"|z_?image|pixart|kolors|omnigen|mochi|kandinsky|hunyuan_?(image|video)|cogvideox|sana|svd)"
    r"([\d._-]\w*)?"
)
_IMAGE_TENSORS = re.compile(
    r"(model\.diffusion_model|first_stage_model|double_blocks|single_blocks|joint_blocks"
    r"|(\w+_)?transformer_blocks|double_stream_blocks|patch_embedding|x_embedder|img_in"
    r"|t_embedder|time_in|time_embed\w*|time_text_embed|timestep_embedder)\."
)
"""Pictures and video come of noise step by step, and the number of the step is embedded."""
_ENCODER_TENSORS = re.compile(r"(v|a|mm|vision_tower|audio_tower|multi_modal_projector)\.")
POOLINGS = (1, 2, 3)  # one vector for a text: by mean, first or last token
RANK = 4
_DENSE = ("dense_2.", "dense_3.")
"""Layers of sentence-transformers behind a model, ColBERT's among them (LLM_TENSOR_DENSE_2_OUT)."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind by its name in lists. `problem`: why it writes no text, to follow the file's name.

    `engine_problem`: why llama.cpp does not load a model that another engine runs.
    """

    name: str
    problem: str | None = None
    engine_problem: str | None = None

    @property
    def is_model(self) -> bool:
        """Whether it can write text."""
        return self.problem is None


MODEL = FileKind("model")
WITH_HEAD = FileKind("model with MTP head")
WITH_ENCODER = FileKind(
    "model with encoder",
    engine_problem="has its image or sound encoder inside, as Ollama's own files have, which"
    " llama.cpp does not load: pull the model from the hub, where the encoder is a file of its own",
)
MTP_HEAD = FileKind(
    "MTP head", f"has only the draft head (MTP) of a model, not its layers; {WHOLE}"
)
ADAPTER = FileKind("adapter", f"is a LoRA adapter; {WHOLE}")
MATRIX = FileKind("importance matrix", f"is an importance matrix for quantizing; {WHOLE}")
PROJECTOR = FileKind("projector", f"is the image or sound encoder of a model; {WHOLE}")
CONTROL_VECTOR = FileKind(
    "control vector", f"is no language model: it holds a control vector; {WHOLE}"
)
VOCABULARY = FileKind("vocabulary", f"has no weights, only metadata; {WHOLE}")
EMBEDDING = FileKind("embedding model", f"makes embeddings and cannot write text; {WHOLE}")
RERANKER = FileKind("reranker", f"scores texts and cannot write any; {WHOLE}")
NAMELESS = FileKind("unknown", f"does not say its architecture; {WHOLE}")
IMAGE = FileKind("image model", f"makes pictures or video and is no language model; {WHOLE}")

WRITERS = (MODEL.name, WITH_HEAD.name, WITH_ENCODER.name)
"""The names of those that can write text."""
HEADS = (MTP_HEAD.name, "assistant", "EAGLE-3 head", "DFlash head", "DSpark head")
"""The names of draft heads in files of their own."""

_TYPES = {"adapter": ADAPTER, "imatrix": MATRIX, "mmproj": PROJECTOR, "vocab": VOCABULARY}


def kind_of(header: Header) -> FileKind:
    """The kind of a file. Raises ModelError where a key that decides has another form."""
    return (
        _TYPES.get(header.text("general.type") or "")
        or _by_tensors(header)
        or _by_architecture(header)
        or _model(header)
    )


def _by_tensors(header: Header) -> FileKind | None:
    """What holds whatever the architecture is called."""
    names = [tensor.name for tensor in header.tensors]
    is_text = header.text("tokenizer.ggml.model") is not None
    if is_text and not names:
        return VOCABULARY
    if header.text("adapter.type") or any(name.endswith((".lora_a", ".lora_b")) for name in names):
        return ADAPTER
    if any(name.endswith(".in_sum2") for name in names):
        return MATRIX
    if _is_assistant(header, names):
        return _head(header, "assistant")
    if "fc.weight" in names and header.array(header.own_key("target_layers")) is not None:
        return _head(header, _feature_head(header, names))
    if is_text and _is_reranker(header, names):
        return RERANKER
    if not is_text and names and any(_IMAGE_TENSORS.match(name) for name in names):
        return IMAGE
    return None


def _is_reranker(header: Header, names: list[str]) -> bool:
    """It pools to a rank, or ends in a classifier instead of tokens."""
    is_rank = header.own_integer("pooling_type") == RANK
    return is_rank or any(name.startswith("cls.") for name in names)


def _is_assistant(header: Header, names: list[str]) -> bool:
    """It attends to its target's cache and has a projection to and from the target's size."""
    return (
        "nextn.pre_projection.weight" in names
        or re.search(r"[-_]assistant$|gemma\d*[-_]mtp$", header.architecture) is not None
    )


def _feature_head(header: Header, names: list[str]) -> str:
    """A head that reads layers of its target: EAGLE-3 writes on, the others fill a block."""
    if "markov_w1.weight" in names:
        return "DSpark head"
    is_block = header.own_integer("block_size") is not None
    return "DFlash head" if is_block or "dflash" in header.architecture else "EAGLE-3 head"


def _head(header: Header, name: str) -> FileKind:
    return FileKind(
        name, _of(header, f"drafts for one other model and cannot write alone; {WHOLE}")
    )


def _of(header: Header, what: str) -> str:
    return f"has the architecture {shown(header.architecture)}, which {what}"


def _by_architecture(header: Header) -> FileKind | None:
    name = header.architecture
    if not name:
        return NAMELESS
    if name == "clip":
        return FileKind("projector", _of(header, f"is no language model; {WHOLE}"))
    if name == "controlvector":
        return CONTROL_VECTOR
    named = {
        "embedding model": (ENCODERS, EMBEDDING.problem),
        "diffusion model": (
            DIFFUSION, f"writes by diffusion, not one token after another; {WHOLE}",
        ),
        "encoder-decoder": (
            ENCODER_DECODERS, f"translates with an encoder, which is not supported; {WHOLE}",
        ),
        "speech model": (SPEECH, f"is no language model; {WHOLE}"),
    }  # fmt: skip
    for kind, (names, problem) in named.items():
        if name in names:
            return FileKind(kind, _of(header, problem or ""))
    heads = {"eagle": "EAGLE-3 head", "dflash": "DFlash head", "dspark": "DSpark head"}
    head = next((heads[start] for start in heads if start in name), None)
    return _head(header, head) if head else _no_language(header)


def _no_language(header: Header) -> FileKind | None:
    """Not one of the keys that every language model has: its tokens, its depth, its context."""
    if IMAGE_ARCHITECTURES.fullmatch(header.architecture):
        return FileKind(IMAGE.name, _of(header, IMAGE.problem or ""))
    keys = ("tokenizer.ggml.model", header.own_key("block_count"), header.own_key("context_length"))
    if any(key in header.metadata for key in keys):
        return None
    return FileKind("no language model", _of(header, f"is no language model; {WHOLE}"))


def _model(header: Header) -> FileKind:
    if not header.tensors:
        return VOCABULARY
    if _is_embedder(header):
        return EMBEDDING
    if is_head_alone(header):
        return MTP_HEAD
    if any(map(is_of_encoder, header.tensors)):
        return WITH_ENCODER
    # Keys promise a head that some files have lost: its weights tell.
    has_head = header.n_draft_layers > 0 and any(".nextn." in t.name for t in header.tensors)
    return WITH_HEAD if has_head else MODEL


def is_of_encoder(tensor: Tensor) -> bool:
    """Whether it makes embeddings of pictures or sound, before any token."""
    return _ENCODER_TENSORS.match(tensor.name) is not None


def _is_embedder(header: Header) -> bool:
    pooling = header.own_integer("pooling_type")
    ends_in_vectors = any(tensor.name.startswith(_DENSE) for tensor in header.tensors)
    is_causal = header.flag(header.own_key("attention.causal")) is not False
    return ends_in_vectors or not is_causal or pooling in POOLINGS


def is_head_alone(header: Header) -> bool:
    """A sidecar (`mtp-NAME.gguf`): the last blocks of a model, which predict further tokens.

    libllama loads one without the blocks below, for a context of heads, and in a plain context dies
    of them. It tells a sidecar by the first norm (src/models/qwen35.cpp and its likes).
    """
    n_heads, n_blocks = header.n_draft_layers, header.own_integer("block_count") or 0
    has_first = header.tensor("blk.0.attn_norm.weight") is not None
    return n_heads > 0 and (not has_first or n_blocks == n_heads)


def check_kind(header: Header) -> FileKind:
    """ModelError unless the file can write text; an architecture may be known here or not."""
    kind = kind_of(header)
    if kind.problem:
        raise header.fail(kind.problem)
    return kind
