"""What a pass streams and multiplies follows from the header, for every kind of model."""

import time
from dataclasses import replace
from math import isfinite, prod
from pathlib import Path

import numpy as np
import pytest
from babbling import write_babbling_model
from hybrids import MambaShape, write_random_mamba
from hypothesis import given
from hypothesis import strategies as st

from localspec.errors import ModelError
from localspec.gguf.cursor import Array, Value, ValueType
from localspec.gguf.reader import Header, read_header, read_source
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, Typed, array_of, header_bytes, write_gguf
from localspec.model.facts import ModelFacts
from localspec.model.kv import cache_type
from localspec.model.synthetic import Shape, write_random_model
from localspec.model.tokenizer import Tokenizer
from localspec.model.usable import check_usable
from localspec.model.weights import WeightRole, experts_touched

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


def test_the_cache_has_a_key_and_a_value_by_head_and_layer(gguf_smollm2: Path) -> None:
    facts = facts_of(gguf_smollm2)
    assert facts.kv_bytes(256, F16, F16) == 256 * 30 * (2 * 3 * 64 * 2)
    assert facts.kv_bytes(256, Q8_0, F16) == 256 * 30 * (3 * 64 * 34 // 32 + 3 * 64 * 2)


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
    write_babbling_model(tmp_path / "a.gguf", Shape())
    write_babbling_model(tmp_path / "b.gguf", Shape(n_layers=1))
    own = [facts_of(tmp_path / name).tokenizer for name in ("a.gguf", "b.gguf")]
    others = [facts_of(path).tokenizer for path in (gguf_smollm2, gguf_gemma)]
    assert own[0] == own[1]
    assert len({tokenizer.digest for tokenizer in [*own, *others]}) == 3
    assert own[0].difference(own[1]) is None
    fewer = replace(others[0], n_tokens=1000)
    assert others[0].difference(fewer) == "one has 49,152 tokens and the other 1,000"
    assert "tokenizer" in str(others[0].difference(others[1]))


def test_control_tokens_may_have_other_texts(gguf_smollm2: Path) -> None:
    """libllama compares from the sixth on; a changed later one is another vocabulary."""
    header = read_header(gguf_smollm2)
    tokens = header.raw_strings("tokenizer.ggml.tokens") or []

    def changed(at: int) -> Tokenizer:
        texts = [b"other" if i == at else text for i, text in enumerate(tokens)]
        data = b"".join(len(text).to_bytes(8, "little") + text for text in texts)
        array = Array(ValueType.STRING, len(texts), data)
        metadata = dict(header.metadata) | {"tokenizer.ggml.tokens": array}
        return Tokenizer.of(replace(header, metadata=metadata))

    own = Tokenizer.of(header)
    assert own.difference(changed(2)) is None
    assert (own.difference(changed(100)) or "").startswith("token 100 is ")


# --- models too large to have here, by their headers alone --------------------------------------


def header_of(
    architecture: str, own: dict[str, Value | Typed], tensors: dict[str, tuple[int, ...]]
) -> Header:
    """A header without weights: two layers of 64 numbers, if `own` does not say otherwise."""
    sizes: dict[str, Value | Typed] = {
        "block_count": 2, "embedding_length": 64, "context_length": 512,
        "attention.head_count": 4, "attention.head_count_kv": 2, "vocab_size": 100,
    }  # fmt: skip
    general = {"general.architecture": architecture, "tokenizer.ggml.model": "none"}
    keys = {f"{architecture}.{name}": value for name, value in (sizes | own).items()}
    plans = [TensorPlan(name, F16, shape, tuple) for name, shape in tensors.items()]
    return read_source(Bytes(header_bytes(general | keys, plans)))


def of(architecture: str, own: dict[str, Value | Typed], **tensors: tuple[int, ...]) -> ModelFacts:
    return ModelFacts.of(header_of(architecture, own, tensors))


LLAMA_3_70B: dict[str, Value | Typed] = {
    "block_count": 80, "embedding_length": 8192, "context_length": 8192,
    "attention.head_count": 64, "attention.head_count_kv": 8,
}  # fmt: skip


def test_the_cache_of_llama_3_70b() -> None:
    """8192 tokens of 32 users in F16: 85.9 GB, which is the sum in the literature."""
    facts = of("llama", LLAMA_3_70B)
    assert 32 * (facts.kv_bytes(8192, F16, F16) or 0) == 85_899_345_920


def test_a_model_like_gpt_oss_20b_touches_more_experts_with_each_token() -> None:
    facts = of(
        "gpt-oss",
        {"expert_count": 32, "expert_used_count": 4, "attention.sliding_window": 128},
        **{"blk.0.ffn_up_exps.weight": (64, 64, 32), "output.weight": (64, 100)},
    )
    assert [facts.experts_touched(n) for n in (0, 1, 2)] == pytest.approx([0, 4, 7.5])
    assert facts.expert_bytes == 64 * 64 * 32 * 2
    experts = [sum(p.n_bytes for p in facts.streamed(n) if p.role == "experts") for n in (1, 2)]
    assert experts == pytest.approx([facts.expert_bytes / 8, facts.expert_bytes * 7.5 / 32])


def test_latent_attention_stores_one_compressed_key() -> None:
    """DeepSeek-V2: 512 numbers and 64 of position, for all heads together."""
    facts = of(
        "deepseek2",
        {
            "attention.head_count_kv": 1, "attention.key_length": 576,
            "attention.value_length": 512, "attention.key_length_mla": 192,
            "attention.value_length_mla": 128,
        },
    )  # fmt: skip
    assert facts.kv_bytes(256, F16, F16) == 256 * 2 * 576 * 2


def test_a_cache_of_a_kind_of_its_own_is_unknown() -> None:
    assert of("deepseek4", {}).kv_bytes(256, F16, F16) is None


@pytest.mark.parametrize(
    ("name", "role", "is_streamed"),
    [
        ("token_embd.weight", "embedding", False),  # output.weight is there
        ("per_layer_token_embd.weight", "embedding", False),
        ("position_embd.weight", "embedding", False),
        ("ple_embd.weight", "embedding", False),
        ("output.weight", "output", True),
        ("output_norm.weight", "norm", True),
        ("blk.0.attn_qkv.weight", "attention", True),
        ("blk.0.attn_kv_a_mqa.weight", "attention", True),
        ("blk.0.attn_q_norm.weight", "norm", True),
        ("blk.0.indexer.proj.weight", "attention", True),
        ("blk.0.ffn_down.weight", "feed_forward", True),
        ("blk.0.ffn_gate_inp.weight", "feed_forward", True),
        ("blk.0.ffn_gate_shexp.weight", "feed_forward", True),  # every token uses it
        ("blk.0.exp_probs_b.bias", "feed_forward", True),
        ("blk.0.ffn_gate_tid2eid.weight", "feed_forward", False),
        ("blk.0.ffn_gate_exps.weight", "experts", True),
        ("blk.0.ffn_gate_up_exps.weight", "experts", True),
        ("blk.0.ffn_up_exps.bias", "experts", True),
        ("blk.0.ffn_up_chexps.weight", "experts", True),
        ("blk.0.ffn_up.7.weight", "experts", True),  # as the first files of Mixtral had them
        ("blk.0.ssm_in.weight", "recurrent", True),
        ("blk.0.ssm_a", "recurrent", True),
        ("blk.0.time_mix_w1.weight", "recurrent", True),
        ("blk.0.shortconv.conv.weight", "recurrent", True),
        ("blk.0.vis_attn_qkv.weight", "attention", False),  # for images
        ("blk.0.laurel_l.weight", "other", True),
        ("altup_proj.weight", "other", True),
        ("rope_freqs.weight", "other", True),
        ("blk.1.nextn.eh_proj.weight", "other", False),  # predicts the token after the next
        ("blk.1.attn_q.weight", "attention", False),
    ],
)
def test_what_weights_are_for(name: str, role: WeightRole, is_streamed: bool) -> None:
    """One wrong name can be most of a model: 2.3 GB of Gemma-3n are a table."""
    others = {"output.weight": (64, 100), name: (64, 32)}
    facts = of("llama", {"nextn_predict_layers": 1}, **others)
    [group] = [g for g in facts.weights if g.n_elements == prod(others[name]) or g.role == role]
    assert (group.role, group.is_streamed) == (role, is_streamed)
    assert group.is_expert == (role == "experts")


@pytest.mark.parametrize(
    ("architecture", "own", "numbers"),
    [
        ("llama", {}, 0),
        ("mamba2", {"ssm.conv_kernel": 4, "ssm.inner_size": 128, "ssm.state_size": 16,
                    "ssm.group_count": 2}, 2 * (3 * (128 + 2 * 2 * 16) + 16 * 128)),
        ("rwkv6", {"wkv.head_size": 32}, 2 * (2 * 64 + 64 * 32)),
        ("rwkv6qwen2", {"wkv.head_size": 32, "token_shift_count": 1}, 2 * (64 + 64 * 32)),
        ("kimi-linear", {"kda.head_dim": 16, "ssm.conv_kernel": 4,
                         "attention.head_count_kv": array_of(ValueType.UINT32, [0, 4])},
         3 * 3 * 4 * 16 + 4 * 16 * 16),
        ("lfm2", {"shortconv.l_cache": 3,
                  "attention.head_count_kv": array_of(ValueType.UINT32, [0, 4])}, 2 * 64),
        ("mamba", {}, None),
        ("mamba", {"ssm.inner_size": Typed(ValueType.INT32, -5)}, None),
        ("deepseek4", {}, None),
        ("brand-new", {"ssm.inner_size": 64}, None),
    ],
)  # fmt: skip
def test_the_state_by_architecture(
    architecture: str, own: dict[str, Value | Typed], numbers: int | None
) -> None:
    expected = None if numbers is None else 4 * numbers
    assert of(architecture, own).state_bytes == expected


# --- hostile headers ----------------------------------------------------------------------------


class Bytes:
    """A source in memory."""

    name = "damaged.gguf"

    def __init__(self, data: bytes, size_bytes: int | None = None) -> None:
        self.data = data
        self.size_bytes = size_bytes

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
        header = read_source(Bytes(bytes(damaged), len(damaged)))
        check_usable(header)
        facts = ModelFacts.of(header)
    except ModelError:  # anything else fails the test
        return
    assert 0 <= facts.streamed_bytes <= facts.weight_bytes
    assert isfinite(facts.flops(8, 4096))
    assert facts.state_bytes is None or facts.state_bytes >= 0
    assert (facts.kv_bytes(256, F16, Q8_0) or 0) >= 0


@pytest.fixture(scope="module")
def small_headers(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("headers")
    write_babbling_model(folder / "llama.gguf", Shape())
    write_random_mamba(folder / "mamba.gguf", MambaShape())
    moe(folder / "moe.gguf", tied=False)
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def words(text: str) -> list[str]:
    return text.split()


KEYS = words(
    "block_count embedding_length context_length nextn_predict_layers num_loops expert_count"
    " expert_used_count attention.head_count attention.head_count_kv attention.key_length"
    " attention.value_length attention.key_length_mla attention.value_length_mla"
    " attention.sliding_window attention.sliding_window_pattern attention.shared_kv_layers"
    " attention.recurrent_layers full_attention_interval feed_forward_length wkv.head_size"
    " token_shift_count shortconv.l_cache kda.head_dim ssm.inner_size ssm.state_size"
    " ssm.conv_kernel ssm.group_count rope.dimension_count vocab_size"
)
NUMBERS = st.one_of(
    st.integers(-2, 9), st.sampled_from([64, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1])
)
VALUES = st.one_of(
    NUMBERS.map(lambda number: Typed(ValueType.INT64, number)),
    st.lists(NUMBERS, max_size=4).map(lambda numbers: array_of(ValueType.INT64, numbers)),
    st.sampled_from([1.5, True, "text", array_of(ValueType.STRING, ["a"])]),
)
ARCHITECTURES = words(
    "llama gemma3 gemma3n gemma4 gpt-oss qwen3next deepseek2 deepseek4 mamba2 rwkv7 jamba falcon-h1"
    " kimi-linear lfm2 nemotron_h nanbeige minimax-01 llama4 brand-new"
)
NAMES = words(
    "token_embd.weight output.weight blk.0.attn_q.weight blk.1.ffn_up_exps.weight"
    " blk.0.ffn_up.3.weight blk.99999999999999999999.x blk.\u0663.x per_layer_token_embd.weight"
)
SHAPES = (
    st.lists(st.sampled_from([1, 3, 64, 100, 1 << 20, 1 << 40]), max_size=4)
    .filter(lambda shape: prod(shape) < 1 << 60)  # the writer cannot place larger ones
    .map(tuple)
)


@pytest.mark.slow
@given(
    architecture=st.sampled_from(ARCHITECTURES),
    own=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=8),
    tensors=st.dictionaries(st.sampled_from(NAMES), SHAPES, min_size=1, max_size=4),
    is_checked=st.booleans(),
)
def test_impossible_sizes_give_numbers_or_one_sentence_and_soon(
    architecture: str, own: dict[str, Value], tensors: dict[str, tuple[int, ...]], is_checked: bool
) -> None:
    """Whatever a header claims, `predict` ends with figures or a sentence, not with a traceback."""
    start_s = time.process_time()
    try:
        header = header_of(architecture, {**own}, tensors)
        if is_checked:
            check_usable(header)
        facts = ModelFacts.of(header)
    except ModelError:
        return
    finally:
        assert time.process_time() - start_s < 2
    assert 0 <= facts.streamed_bytes <= facts.weight_bytes * (1 + 1e-9)
    assert facts.state_bytes is None or facts.state_bytes >= 0
    assert facts.kv_bytes(4096, F16, Q8_0, n_windowed=512) is None or facts.n_layers <= 512
    assert isfinite(facts.flops(8, 4096))
    assert 0 <= facts.experts_touched(1 << 20) <= max(0, facts.n_experts)
