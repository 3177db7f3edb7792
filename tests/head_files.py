"""Targets and draft heads of each method with a real header and no weights, right ones to begin
with: a test spoils one thing of a copy.

The shapes follow what `load_arch_tensors` of src/models/*.cpp of llama.cpp reads.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from babbling import byte_vocabulary
from sparse import write_sparse

from localspec.gguf.cursor import Array, Value, ValueType
from localspec.gguf.header import Header
from localspec.gguf.reader import read_header
from localspec.gguf.writer import array_of

N, N_VOCAB, N_LAYERS = 64, 300, 6
Shape = tuple[int, ...]


@dataclass(frozen=True)
class File:
    """What is in a file: keys under the architecture's name, other metadata, tensors by name."""

    architecture: str
    keys: dict[str, Value]
    tensors: dict[str, Shape]
    vocabulary: dict[str, Value]
    kinds: dict[str, str]

    def but(self, **keys: Value | None) -> Self:
        """A copy with other keys (dots as two underscores); None: without that key."""
        renamed = {name.replace("__", "."): value for name, value in keys.items()}
        left = {name: value for name, value in self.keys.items() if name not in renamed}
        new = {name: value for name, value in renamed.items() if value is not None}
        return replace(self, keys=left | new)

    def named(self, architecture: str) -> Self:
        return replace(self, architecture=architecture)

    def without(self, *parts: str) -> Self:
        """A copy without the tensors whose names have one of these parts."""
        left = {n: s for n, s in self.tensors.items() if not any(part in n for part in parts)}
        return replace(self, tensors=left)

    def having(self, kind: str = "F32", **tensors: Shape) -> Self:
        """A copy with more or other tensors (dots as two underscores)."""
        new = {name.replace("__", "."): shape for name, shape in tensors.items()}
        kinds = self.kinds | dict.fromkeys(new, kind)
        return replace(self, tensors=self.tensors | new, kinds=kinds)

    def speaking(self, vocabulary: dict[str, Value]) -> Self:
        return replace(self, vocabulary=vocabulary)

    def write(self, path: Path) -> Path:
        keys = {f"{self.architecture}.{key}": value for key, value in self.keys.items()}
        metadata = {"general.architecture": self.architecture} | keys | self.vocabulary
        kinds = {name: self.kinds.get(name, "F32") for name in self.tensors}
        tensors = [(name, shape, kinds[name]) for name, shape in self.tensors.items()]
        return write_sparse(path, metadata, tensors)

    def header(self, path: Path) -> Header:
        return read_header(self.write(path))


def ints(*numbers: int) -> Array:
    return array_of(ValueType.INT32, numbers)


def bools(*numbers: int) -> Array:
    return array_of(ValueType.BOOL, numbers)


def _keys(n: int, n_layers: int, **more: Value) -> dict[str, Value]:
    own: dict[str, Value] = {
        "block_count": n_layers,
        "context_length": 4096,
        "embedding_length": n,
        "feed_forward_length": 128,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "attention.key_length": 16,
        "attention.value_length": 16,
        "rope.dimension_count": 16,
    }
    return own | {name.replace("__", "."): value for name, value in more.items()}


def _ends(n: int) -> dict[str, Shape]:
    return {"token_embd.weight": (n, N_VOCAB), "output_norm.weight": (n,)}


def _blocks(n: int, *numbers: int) -> dict[str, Shape]:
    names = {"attn_norm": (n,), "attn_q": (n, 64), "ffn_up": (n, 128)}
    return {f"blk.{i}.{name}.weight": shape for i in numbers for name, shape in names.items()}


def _nextn(n: int, block: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {"eh_proj": (2 * n, n), "enorm": (n,), "hnorm": (n,)}
    return {f"blk.{block}.nextn.{name}.weight": shape for name, shape in shapes.items()}


def _file(architecture: str, keys: dict[str, Value], tensors: dict[str, Shape]) -> File:
    return File(architecture, keys, tensors, byte_vocabulary(N_VOCAB), {})


def target(architecture: str = "llama", n: int = N) -> File:
    """A whole model."""
    tensors = _ends(n) | _blocks(n, *range(N_LAYERS))
    return _file(architecture, _keys(n, N_LAYERS), tensors)


def with_mtp(architecture: str = "qwen35", n_heads: int = 1) -> File:
    """A whole model with heads behind its layers."""
    file = target(architecture)
    n_all = N_LAYERS + n_heads
    heads = {k: v for i in range(N_LAYERS, n_all) for k, v in _of_head(i).items()}
    keys = file.keys | {"block_count": n_all, "nextn_predict_layers": n_heads}
    return replace(file, keys=keys, tensors=file.tensors | heads)


def _of_head(i: int) -> dict[str, Shape]:
    """With what single architectures want beside."""
    own = ("layer_output_norm", "nextn.shared_head_norm", "ffn_gate_inp")
    own += ("attn_qkv", "ffn_gate", "ffn_down", "ffn_up")
    rest = {f"blk.{i}.{name}.weight": (N, 128) for name in own}
    return _blocks(N, i) | _nextn(N, i) | rest


def mtp(architecture: str = "qwen35", n_heads: int = 1) -> File:
    """A sidecar of it: the same metadata and the blocks of its heads."""
    file = with_mtp(architecture, n_heads).without(*(f"blk.{i}." for i in range(N_LAYERS)))
    return file.having(output__weight=(N, N_VOCAB))


def gemma4() -> File:
    pattern = bools(1, 1, 1, 1, 1, 0)
    return target("gemma4").but(
        attention__sliding_window=512,
        attention__sliding_window_pattern=pattern,
        attention__key_length_swa=8,
        attention__value_length_swa=8,
    )


def assistant() -> File:
    """Of `gemma4()`."""
    n = 32
    keys = _keys(
        n, 4,
        nextn_predict_layers=4,
        embedding_length_out=N,
        attention__sliding_window=512,
        attention__sliding_window_pattern=bools(1, 1, 1, 0),
        attention__key_length_swa=8,
        attention__value_length_swa=8,
        attention__shared_kv_layers=4,
    )  # fmt: skip
    tensors = _ends(n) | _blocks(n, *range(4))
    tensors |= {"nextn.pre_projection.weight": (2 * N, n), "nextn.post_projection.weight": (n, N)}
    return _file("gemma4-assistant", keys, tensors)


def eagle3(n: int = N) -> File:
    """Of `target()`."""
    keys = _keys(n, 1, target_layers=ints(1, 3, 5), target_hidden_size=N)
    tensors = {"fc.weight": (3 * N, n), "output_norm.weight": (n,)} | _blocks(n, 0)
    tensors |= {"blk.0.attn_norm_2.weight": (n,), "output.weight": (n, N_VOCAB)}
    return _file("eagle3", keys, tensors)


def dflash() -> File:
    """Of `target()`."""
    keys = _keys(N, 2, target_layers=ints(1, 3, 4, 5), block_size=8)
    tensors = {"fc.weight": (4 * N, N), "enc.output_norm.weight": (N,), "output_norm.weight": (N,)}
    file = _file("dflash", keys, tensors | _blocks(N, 0, 1))
    return file.speaking(file.vocabulary | {"tokenizer.ggml.mask_token_id": 7})


def dspark() -> File:
    file = dflash().having(markov_w1__weight=(8, N_VOCAB), markov_w2__weight=(8, N_VOCAB))
    return file.having(conf_proj__weight=(N + 8, 1))


def eagle3_of(header: Header, *taps: int) -> File:
    """A whole head for a real target, which libllama loads."""
    n = header.integer(header.own_key("embedding_length")) or 0
    keys = _keys(n, 1, target_layers=ints(*taps), target_hidden_size=n)
    keys |= {"feed_forward_length": 64, "attention.layer_norm_rms_epsilon": 1e-5}
    heads, kv = 4 * 16, 2 * 16
    block: dict[str, Shape] = {
        "attn_norm": (n,), "attn_norm_2": (n,), "ffn_norm": (n,),
        "attn_q": (2 * n, heads), "attn_k": (2 * n, kv), "attn_v": (2 * n, kv),
        "attn_output": (heads, n), "ffn_gate": (n, 64), "ffn_up": (n, 64), "ffn_down": (64, n),
    }  # fmt: skip
    tensors: dict[str, Shape] = {"fc.weight": (3 * n, n), "output_norm.weight": (n,)}
    tensors |= {f"blk.0.{name}.weight": shape for name, shape in block.items()}
    words = {key: v for key, v in header.metadata.items() if key.startswith("tokenizer.")}
    return File("eagle3", keys, tensors, words, {})
