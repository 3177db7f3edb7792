"""What a pass streams and multiplies follows from the header, for every kind of model."""

from math import isfinite
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localspec.errors import ModelError
from localspec.model.facts import ModelFacts, cache_type
from localspec.model.ggml_types import BY_NAME
from localspec.model.gguf import read_header, read_source
from localspec.model.synthetic import MambaShape, Shape, write_random_mamba, write_random_model
from localspec.model.usable import check_usable
from localspec.model.values import Value
from localspec.model.weights import experts_touched
from localspec.model.writer import TensorPlan, write_gguf

F16, Q8_0 = cache_type("f16"), cache_type("q8_0")


def facts_of(path: Path) -> ModelFacts:
    return ModelFacts.of(read_header(path))


def floats(name: str, *shape: int) -> TensorPlan:
    data = np.zeros(shape, "<f4").tobytes()
    return TensorPlan(name, BY_NAME["F32"], shape, lambda: [data])


def moe(path: Path, *, tied: bool) -> ModelFacts:
    """Eight experts, of which two are used; embeddings of 64 for 100 tokens."""
    metadata: dict[str, Value] = {
        "general.architecture": "qwen3moe", "qwen3moe.block_count": 2,
        "qwen3moe.embedding_length": 64, "qwen3moe.context_length": 512,
        "qwen3moe.attention.head_count": 4, "qwen3moe.attention.head_count_kv": 2,
        "qwen3moe.expert_count": 8, "qwen3moe.expert_used_count": 2,
    }  # fmt: skip
    tensors = [floats("token_embd.weight", 64, 100), floats("output_norm.weight", 64)]
    if not tied:
        tensors.append(floats("output.weight", 64, 100))
    for i in range(2):
        tensors += [
            floats(f"blk.{i}.attn_q.weight", 64, 64),
            floats(f"blk.{i}.ffn_gate_inp.weight", 64, 8),
            floats(f"blk.{i}.ffn_up_exps.weight", 64, 32, 8),
            floats(f"blk.{i}.ffn_up_shexp.weight", 64, 16),
        ]
    write_gguf(path, metadata, tensors)
    return facts_of(path)


def test_one_token_streams_its_experts_and_no_untied_embedding_table(tmp_path: Path) -> None:
    facts = moe(tmp_path / "moe.gguf", tied=False)
    experts, shared, rest = 2 * 64 * 32 * 8, 2 * 64 * 16, 64 + 6400 + 2 * (64 * 64 + 64 * 8)
    assert facts.streamed_bytes == 4 * (experts / 4 + shared + rest)
    assert facts.expert_bytes == 4 * experts
    assert facts.active_expert_bytes == experts
    assert facts.active_params == experts / 4 + shared + rest
    assert facts.weight_bytes == 4 * (experts + shared + rest + 6400)


def test_a_tied_table_is_streamed_as_the_output(tmp_path: Path) -> None:
    tied, untied = (moe(tmp_path / f"{tied}.gguf", tied=tied) for tied in (True, False))
    assert tied.streamed_bytes == untied.streamed_bytes
    assert tied.weight_bytes < untied.weight_bytes


def test_more_tokens_touch_more_experts_and_no_more_than_there_are(tmp_path: Path) -> None:
    facts = moe(tmp_path / "moe.gguf", tied=True)
    sizes = [sum(part.n_bytes for part in facts.streamed(n)) for n in (1, 2, 8, 10_000)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == pytest.approx(facts.weight_bytes)
    assert all(sum(p.n_elements for p in facts.streamed(n)) == facts.active_params for n in (1, 9))


def test_experts_touched() -> None:
    assert experts_touched(32, 4, 1) == pytest.approx(4)
    assert experts_touched(32, 4, 2) == pytest.approx(7.5)
    assert experts_touched(0, 0, 5) == 0


@given(st.integers(1, 512), st.data(), st.integers(1, 1000))
def test_experts_touched_stays_within_bounds(n: int, data: st.DataObject, n_tokens: int) -> None:
    used = data.draw(st.integers(1, n))
    assert used <= experts_touched(n, used, n_tokens) * (1 + 1e-9)
    assert experts_touched(n, used, n_tokens) <= min(n, used * n_tokens) * (1 + 1e-9)


def test_what_the_packaged_models_stream(gguf_smollm2: Path, gguf_gemma: Path) -> None:
    """Both tie the output to the embeddings, so that every byte is streamed."""
    for path in (gguf_smollm2, gguf_gemma):
        facts = facts_of(path)
        assert facts.streamed_bytes == facts.weight_bytes
        assert facts.active_params == facts.n_params
        assert facts.state_bytes == 0
        assert sum(group.n_bytes for group in facts.weights) == facts.weight_bytes


def test_cache_bytes_a_token_by_layer(gguf_smollm2: Path) -> None:
    facts = facts_of(gguf_smollm2)
    assert facts.kv_bytes_per_token(F16, F16) == (2 * 3 * 64 * 2,) * 30
    assert facts.kv_bytes_per_token(Q8_0, F16)[0] == 3 * 64 * 34 // 32 + 3 * 64 * 2
    assert sum(facts.kv_bytes_per_token(F16, F16)) * 256 == facts.kv_bytes(256, F16, F16)


def test_operations_grow_with_tokens_and_depth(gguf_gemma: Path) -> None:
    facts = facts_of(gguf_gemma)
    assert facts.flops(1, 0) == 2 * facts.active_params
    assert facts.flops(8, 100) == 8 * facts.flops(1, 100)
    windowed = [facts.flops(1, depth) for depth in (512, 513, 514)]
    assert windowed[1] - windowed[0] == windowed[2] - windowed[1]  # full layers alone still grow


def test_the_state_of_a_recurrent_model(tmp_path: Path) -> None:
    shape = MambaShape()
    write_random_mamba(tmp_path / "mamba.gguf", shape)
    facts = facts_of(tmp_path / "mamba.gguf")
    inner = 2 * shape.n_embd
    numbers = (shape.n_conv - 1) * inner + shape.n_state * inner
    assert facts.state_bytes == 4 * shape.n_layers * numbers


def test_a_random_model_streams_its_file(tmp_path: Path) -> None:
    write_random_model(tmp_path / "random.gguf", Shape(), "Q4_0")
    facts = facts_of(tmp_path / "random.gguf")
    assert facts.streamed_bytes == facts.weight_bytes


def test_tokenizers_are_told_apart_by_their_texts(
    gguf_smollm2: Path, gguf_gemma: Path, tmp_path: Path
) -> None:
    write_random_model(tmp_path / "a.gguf", Shape(), with_text=True)
    write_random_model(tmp_path / "b.gguf", Shape(n_layers=1), with_text=True)
    own = [facts_of(tmp_path / name).tokenizer for name in ("a.gguf", "b.gguf")]
    others = [facts_of(path).tokenizer for path in (gguf_smollm2, gguf_gemma)]
    assert own[0] == own[1]
    assert len({tokenizer.digest for tokenizer in [*own, *others]}) == 3


class Bytes:
    """A source in memory."""

    name = "damaged.gguf"

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size_bytes = len(data)

    def read(self, offset: int, n_bytes: int) -> bytes:
        return self.data[offset : offset + n_bytes]

    def sibling(self, file_name: str) -> "Bytes":
        raise ModelError(f"{file_name} does not exist")

    def close(self) -> None:
        pass


@given(st.data())
def test_damaged_headers_give_finite_costs_or_one_sentence(
    small_headers: list[bytes], data: st.DataObject
) -> None:
    damaged = bytearray(data.draw(st.sampled_from(small_headers)))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, 3000)) % len(damaged)] = data.draw(st.integers(0, 255))
    try:
        header = read_source(Bytes(bytes(damaged)))
        check_usable(header)
        facts = ModelFacts.of(header)
    except ModelError:  # anything else fails the test
        return
    assert 0 <= facts.streamed_bytes <= facts.weight_bytes
    assert isfinite(facts.flops(8, 4096))
    assert facts.state_bytes is None or facts.state_bytes >= 0
    assert all(n >= 0 for n in facts.kv_bytes_per_token(F16, Q8_0))


@pytest.fixture(scope="module")
def small_headers(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("headers")
    write_random_model(folder / "llama.gguf", Shape(), with_text=True)
    write_random_mamba(folder / "mamba.gguf", MambaShape())
    moe(folder / "moe.gguf", tied=False)
    return [path.read_bytes() for path in sorted(folder.iterdir())]
