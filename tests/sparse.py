"""Files of every kind that people have, with a real header and a hole where the weights would be.

The shapes follow what converters write: conversion/*.py of llama.cpp, its src/models/*.cpp, and for
images ComfyUI-GGUF. A head of 27B takes some kilobytes of disk.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from babbling import byte_vocabulary

from localspec.gguf.cursor import Value, ValueType
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, array_of, header_bytes

N_EMBD, N_VOCAB, N_BLOCKS = 64, 300, 5
HEAD = ("attn_norm", "attn_q", "nextn.eh_proj", "nextn.enorm", "nextn.hnorm")
Spec = tuple[str, tuple[int, ...], str]
"""Of a tensor: name, shape with the length of a row first, type."""


def write_sparse(path: Path, metadata: dict[str, Value], tensors: Iterable[Spec]) -> Path:
    """A file with this header; its weights are zeros that take no disk."""
    plans = [TensorPlan(name, BY_NAME[kind], shape, tuple) for name, shape, kind in tensors]
    with path.open("wb") as file:
        file.write(header_bytes(metadata, plans))
        os.truncate(file.fileno(), file.tell() + sum(plan.n_bytes + 64 for plan in plans))
    return path


def write_blocks(
    path: Path,
    blocks: dict[int, tuple[str, ...]],
    architecture: str = "qwen35",
    shared: tuple[str, ...] = ("token_embd", "output_norm"),
    **keys: Value,
) -> Path:
    """A file with the metadata of a model of five blocks, of which `blocks` have those weights."""
    own: dict[str, Value] = {
        "block_count": N_BLOCKS,
        "nextn_predict_layers": 1,
        "context_length": 4096,
        "embedding_length": N_EMBD,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 16,
        "attention.value_length": 16,
        "full_attention_interval": 4,
        "rope.dimension_count": 16,
    }
    names = [f"{name}.weight" for name in shared]
    names += [f"blk.{i}.{name}.weight" for i, block in blocks.items() for name in block]
    metadata = {f"{architecture}.{key}": value for key, value in (own | keys).items()}
    metadata = {"general.architecture": architecture} | metadata | byte_vocabulary(N_VOCAB)
    return write_sparse(path, metadata, [_spec(name) for name in names])


def _spec(name: str) -> Spec:
    is_table = name.startswith(("token_embd", "output."))
    return name, (N_EMBD, N_VOCAB) if is_table else (N_EMBD,), "F32"


def layers(*numbers: int) -> dict[int, tuple[str, ...]]:
    return dict.fromkeys(numbers, ("attn_norm", "attn_q"))


def write_mtp_head(path: Path) -> Path:
    """As `mtp-MODEL-Q4_0.gguf` in repositories: the model's metadata, the last block only.

    libllama loads it, and dies of it in a context for text.
    """
    n, keys = 256, dict.fromkeys(("attention.key_length", "attention.value_length"), 64)
    own: dict[str, Value] = {
        "block_count": N_BLOCKS,
        "nextn_predict_layers": 1,
        "context_length": 4096,
        "embedding_length": n,
        "feed_forward_length": 512,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "full_attention_interval": 4,
        "ssm.conv_kernel": 4,
        "ssm.inner_size": 256,
        "ssm.state_size": 64,
        "ssm.group_count": 2,
        "ssm.time_step_rank": 4,
        "rope.dimension_count": 64,
        "rope.dimension_sections": array_of(ValueType.INT32, (11, 11, 10, 0)),
        **keys,
    }
    block: dict[str, tuple[int, ...]] = {
        "attn_q": (n, 512), "attn_k": (n, 128), "attn_v": (n, 128), "attn_output": (n, n),
        "attn_q_norm": (64,), "attn_k_norm": (64,),
        "ffn_gate": (n, 512), "ffn_up": (n, 512), "ffn_down": (512, n), "nextn.eh_proj": (2 * n, n),
        **dict.fromkeys(("attn_norm", "post_attention_norm"), (n,)),
        **dict.fromkeys(("nextn.enorm", "nextn.hnorm", "nextn.shared_head_norm"), (n,)),
    }  # fmt: skip
    tensors = [("token_embd.weight", (n, N_VOCAB), "F32"), ("output_norm.weight", (n,), "F32")]
    tensors += [(f"blk.4.{name}.weight", shape, "F32") for name, shape in block.items()]
    metadata = {f"qwen35.{key}": value for key, value in own.items()} | byte_vocabulary(N_VOCAB)
    return write_sparse(path, {"general.architecture": "qwen35"} | metadata, tensors)


def _with_head(path: Path) -> Path:
    return write_blocks(path, {**layers(0, 1, 2, 3), 4: HEAD})


def _model(path: Path) -> Path:
    return write_blocks(path, layers(*range(5)), "llama", nextn_predict_layers=0)


def _with_encoder(path: Path) -> Path:
    """A blob of Ollama's own engine: text, image and sound in one file."""
    shared = ("token_embd", "output_norm", "v.blk.0.attn_q", "a.blk.0.attn_q", "mm.input")
    return write_blocks(path, layers(*range(5)), "gemma3", shared, nextn_predict_layers=0)


def _keyed(architecture: str, values: dict[str, Value], *tensors: Spec) -> Callable[[Path], Path]:
    """A file with a vocabulary and the keys of an architecture."""
    own: dict[str, Value] = {
        "block_count": 1,
        "context_length": 4096,
        "embedding_length": N_EMBD,
        "feed_forward_length": 128,
        "attention.head_count": 4,
    }
    keys = {f"{architecture}.{key}": value for key, value in (own | values).items()}
    metadata = {"general.architecture": architecture} | keys | byte_vocabulary(N_VOCAB)
    return lambda path: write_sparse(path, metadata, tensors)


def _bare(metadata: dict[str, Value], *names: str) -> Callable[[Path], Path]:
    return lambda path: write_sparse(path, metadata, [_spec(name) for name in names])


_TAPS = array_of(ValueType.INT32, (2, 10, 20))
_FEATURES = (_spec("fc.weight"), _spec("output_norm.weight"), _spec("blk.0.attn_q.weight"))
KINDS: dict[str, Callable[[Path], Path]] = {
    "model": _model,
    "model with MTP head": _with_head,
    "model with encoder": _with_encoder,
    "MTP head": write_mtp_head,
    "assistant": _keyed(
        "gemma4-assistant",
        {"nextn_predict_layers": 1, "embedding_length_out": 128},
        _spec("token_embd.weight"),
        _spec("nextn.pre_projection.weight"),
        _spec("blk.0.attn_q.weight"),
    ),
    "EAGLE-3 head": _keyed(
        "eagle3", {"target_layers": _TAPS, "target_hidden_size": 128}, *_FEATURES
    ),
    "DFlash head": _keyed("dflash", {"target_layers": _TAPS, "block_size": 8}, *_FEATURES),
    "DSpark head": _keyed(
        "dflash", {"target_layers": _TAPS, "block_size": 8}, *_FEATURES, _spec("markov_w1.weight")
    ),
    "projector": _bare(
        {
            "general.architecture": "clip",
            "general.type": "mmproj",
            "clip.has_vision_encoder": True,
            "clip.projector_type": "gemma3",
        },
        "v.blk.0.attn_q.weight",
        "mm.input_projection.weight",
    ),
    "image model": _bare(
        {"general.architecture": "flux", "general.quantization_version": 2},
        "double_blocks.0.img_attn.qkv.weight",
        "img_in.weight",
    ),
    "adapter": _bare(
        {
            "general.architecture": "llama",
            "general.type": "adapter",
            "adapter.type": "lora",
            "adapter.lora.alpha": 16.0,
        },
        "blk.0.attn_q.weight.lora_a",
        "blk.0.attn_q.weight.lora_b",
    ),
    "importance matrix": _bare(
        {"general.type": "imatrix", "imatrix.chunk_count": 10},
        "blk.0.attn_q.weight.in_sum2",
        "blk.0.attn_q.weight.counts",
    ),
    "control vector": _bare(
        {"general.architecture": "controlvector", "controlvector.layer_count": 2}, "direction.1"
    ),
    "vocabulary": _keyed("llama", {}),
    "embedding model": _keyed(
        "qwen3", {"pooling_type": 3}, _spec("token_embd.weight"), _spec("blk.0.attn_q.weight")
    ),
    "reranker": _keyed(
        "qwen3", {"pooling_type": 4}, _spec("token_embd.weight"), _spec("cls.output.weight")
    ),
    "no language model": _bare({"general.architecture": "kokoro"}, "kokoro.albert.embd.weight"),
    "speech model": _keyed("wavtokenizer-dec", {}, _spec("token_embd.weight")),
    "diffusion model": _keyed("llada", {}, _spec("token_embd.weight")),
    "encoder-decoder": _keyed("t5", {}, _spec("token_embd.weight")),
}
"""A writer of a file of each kind, by the kind's name."""
WRITE_TEXT = ("model", "model with MTP head", "model with encoder")
"""Those that `predict` answers for."""
