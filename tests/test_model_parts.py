"""Mixtures, hybrids, latent attention, windows and draft heads: bytes counted by hand."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from localspec.gguf.cursor import Value
from localspec.gguf.reader import read_header
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, header_bytes
from localspec.model.facts import ModelFacts
from localspec.prediction.experts import COPY_BYTES_PER_S, HOP_S, experts_elsewhere
from localspec.prediction.memory import memory_of
from localspec.prediction.rates import IdealRates
from localspec.prediction.roofline import Roofline, Share
from localspec.settings import Attention

F16, Q8_0 = BY_NAME["F16"], BY_NAME["Q8_0"]
N_EMBD, N_VOCAB, N_CTX = 64, 300, 4096
GPU, HOST = IdealRates(1e12, None), IdealRates(1e10, None)
Shapes = Mapping[str, tuple[int, ...]]


def facts_of(
    folder: Path, architecture: str, keys: Mapping[str, Value], shapes: Shapes, kind: str = "F16"
) -> ModelFacts:
    """Of a header whose bodies are holes."""
    values: dict[str, Value] = {
        "general.architecture": architecture,
        f"{architecture}.context_length": N_CTX,
        f"{architecture}.embedding_length": N_EMBD,
        f"{architecture}.vocab_size": N_VOCAB,
        **{f"{architecture}.{key}": value for key, value in keys.items()},
    }
    tables = {f"{name}.weight": (N_EMBD, N_VOCAB) for name in ("token_embd", "output")}
    plans = [
        TensorPlan(name, BY_NAME[kind], shape, tuple)
        for name, shape in (tables | dict(shapes)).items()
    ]
    path = folder / "model.gguf"
    path.write_bytes(header_bytes(values, plans))
    os.truncate(path, path.stat().st_size + sum(plan.n_bytes + 64 for plan in plans))
    return ModelFacts.of(read_header(path))


ATTENTION = {"attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16,
             "attention.value_length": 16}  # fmt: skip
TABLE = 2 * N_EMBD * N_VOCAB


@pytest.fixture
def mixture(tmp_path: Path) -> ModelFacts:
    """Four layers, the first of them dense; eight experts of 64 x 32, of which two are used."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i in range(4):
        shapes |= {f"blk.{i}.attn_q.weight": (64, 64), f"blk.{i}.attn_output.weight": (64, 64)}
        if i:
            shapes |= {f"blk.{i}.ffn_{part}_exps.weight": (64, 32, 8) for part in ("up", "gate")}
            shapes |= {f"blk.{i}.ffn_down_exps.weight": (32, 64, 8)}
            shapes |= {f"blk.{i}.ffn_up_shexp.weight": (64, 32)}
        else:
            shapes |= {f"blk.{i}.ffn_up.weight": (64, 128)}
    keys = {"block_count": 4, "expert_count": 8, "expert_used_count": 2, **ATTENTION}
    return facts_of(tmp_path, "qwen2moe", keys, shapes)


EXPERTS = 2 * 3 * 64 * 32 * 8
"""Bytes of all experts of one layer."""
BESIDE = TABLE + 4 * 2 * 2 * 64 * 64 + 2 * 64 * 128 + 3 * 2 * 64 * 32
"""Bytes that every token streams: output, attention, the dense layer, shared experts."""


def test_a_token_streams_what_it_uses(mixture: ModelFacts) -> None:
    assert mixture.streamed_bytes == BESIDE + 3 * EXPERTS * 2 / 8
    assert sum(part.n_bytes for part in mixture.streamed(4)) == pytest.approx(
        BESIDE + 3 * EXPERTS * (1 - 0.75**4)
    )
    assert mixture.expert_layer_bytes == (0, EXPERTS, EXPERTS, EXPERTS)


@pytest.mark.parametrize(("n_layers", "kept"), [(0, 0), (1, 0), (2, 1), (4, 3), (99, 3)])
def test_experts_on_the_processor_are_streamed_there(
    mixture: ModelFacts, n_layers: int, kept: int
) -> None:
    """`--n-cpu-moe N` keeps those of the first N layers, of which the first has none."""
    rates = experts_elsewhere(GPU, HOST, mixture, n_layers)
    found = Roofline(mixture, (Share(rates, 4),), Attention()).pass_time(1, 0)
    used = EXPERTS * 2 / 8
    on_gpu = BESIDE + (3 - kept) * used
    assert found.weights_s == pytest.approx(on_gpu / 1e12 + kept * used / 1e10)
    hops = 2 * HOP_S * min(n_layers, 4) if kept else 0.0
    assert found.overhead_s == pytest.approx(hops)


def test_a_long_prompt_has_its_experts_copied_to_the_gpu(mixture: ModelFacts) -> None:
    """From 32 tokens on, where the processor would compute longer than the copy takes."""
    slow = IdealRates(1e10, 1e6)
    rates = experts_elsewhere(GPU, slow, mixture, 4)
    found = Roofline(mixture, (Share(rates, 4),), Attention()).pass_time(512, 0)
    everything = BESIDE + 3 * EXPERTS
    expected = everything / 1e12 + 3 * EXPERTS / COPY_BYTES_PER_S
    assert found.weights_s == pytest.approx(expected, rel=1e-6)


def test_layers_on_the_gpu_alone_keep_experts_elsewhere(mixture: ModelFacts) -> None:
    """The processor has two layers whole; of the GPU's two, one keeps its experts there."""
    rates = experts_elsewhere(GPU, HOST, mixture, 3, first_layer=2)
    assert mixture.expert_share(2, 3) == pytest.approx(1 / 3)
    assert rates.share == pytest.approx(1 / 2)  # type: ignore[union-attr]
    assert experts_elsewhere(GPU, HOST, mixture, 2, first_layer=2) is GPU
    assert experts_elsewhere(GPU, None, mixture, 4) is GPU


def test_a_hybrid_reads_and_writes_its_state_for_each_sequence(tmp_path: Path) -> None:
    """Three of four layers are recurrent: 3 (2 * 2 * 16 + 32) + 16 * 32 numbers of 4 bytes each."""
    keys = {
        "block_count": 4, "full_attention_interval": 4, "ssm.conv_kernel": 4, "ssm.inner_size": 32,
        "ssm.state_size": 16, "ssm.group_count": 2, **ATTENTION,
    }  # fmt: skip
    shapes = {f"blk.{i}.attn_q.weight": (64, 64) for i in range(4)}
    facts = facts_of(tmp_path, "qwen35", keys, shapes)
    state = 3 * 4 * (3 * (32 + 2 * 2 * 16) + 16 * 32)
    assert facts.state_bytes == state
    weights = TABLE + 4 * 2 * 64 * 64
    for n_sequences in (1, 8):
        found = Roofline(facts, (Share(HOST, 4),), Attention()).pass_time(1, 0, n_sequences)
        assert found.weights_s * 1e10 == pytest.approx(weights + 2 * n_sequences * state)
    halves = Roofline(facts, (Share(HOST, 2), Share(GPU, 2)), Attention()).pass_time(1, 0)
    beside = 2 * 2 * 64 * 64
    assert halves.weights_s == pytest.approx(
        (beside + 2 * state * 2 / 3) / 1e10 + (TABLE + beside + 2 * state / 3) / 1e12
    )


def test_a_head_for_drafts_in_the_file_takes_memory_and_is_not_streamed(tmp_path: Path) -> None:
    keys = {"block_count": 3, "nextn_predict_layers": 1, **ATTENTION}
    shapes = {f"blk.{i}.attn_q.weight": (64, 64) for i in range(3)}
    shapes |= {"blk.2.nextn.eh_proj.weight": (128, 64)}
    facts = facts_of(tmp_path, "qwen35", keys | {"full_attention_interval": 1}, shapes)
    assert facts.n_layers == 2
    assert facts.streamed_bytes == TABLE + 2 * 2 * 64 * 64
    assert facts.weight_bytes == 2 * TABLE + 3 * 2 * 64 * 64 + 2 * 128 * 64


def test_latent_attention_reads_one_key_that_is_the_value_too(tmp_path: Path) -> None:
    keys = {
        "block_count": 2, "attention.head_count": 4, "attention.head_count_kv": 1,
        "attention.key_length": 576, "attention.value_length": 512,
        "attention.key_length_mla": 192, "attention.value_length_mla": 128,
    }  # fmt: skip
    facts = facts_of(tmp_path, "deepseek2", keys, {"blk.0.attn_q.weight": (64, 64)})
    found = Roofline(facts, (Share(HOST, 2),), Attention()).pass_time(1, 1000)
    assert found.attention_s * 1e10 == pytest.approx(2 * 1001 * 576 * 2)
    computes = Roofline(facts, (Share(IdealRates(1e15, 1e10), 2),), Attention()).pass_time(1, 1000)
    assert computes.attention_s * 1e10 == pytest.approx(2 * 2 * 1001 * 4 * 2 * 576)
    assert memory_of(facts, Attention(), N_CTX).cache_bytes == 2 * N_CTX * 576 * 2


def test_windows_bound_what_is_read_and_what_is_kept(tmp_path: Path) -> None:
    """Every second of four layers sees 128 tokens; kept are the window and a micro-batch of 512."""
    keys = {"block_count": 4, "attention.sliding_window": 128, **ATTENTION}
    facts = facts_of(tmp_path, "gpt-oss", keys, {"blk.0.attn_q.weight": (64, 64)})
    token = 2 * (16 + 16) * 2
    found = Roofline(facts, (Share(HOST, 4),), Attention()).pass_time(1, 2000)
    assert found.attention_s * 1e10 == pytest.approx(token * (2 * 128 + 2 * 2001))
    assert memory_of(facts, Attention(), N_CTX).cache_bytes == token * (2 * 768 + 2 * N_CTX)
    eight = Attention("q8_0", "q8_0")
    assert memory_of(facts, eight, N_CTX).cache_bytes == token // 2 * 34 // 32 * (1536 + 2 * N_CTX)
