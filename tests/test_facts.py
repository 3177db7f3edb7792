"""Facts of a model from its header, and the refusal of models that would take the engine down."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from babbling import write_babbling_model
from hybrids import MambaShape, write_random_mamba

from localspec.errors import ModelError, UserError
from localspec.gguf.cursor import Value, ValueType
from localspec.gguf.reader import Header, read_header
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, Typed, array_of, header_bytes
from localspec.model.facts import ModelFacts
from localspec.model.kv import cache_type
from localspec.model.layers import Layer
from localspec.model.synthetic import Shape, write_random_model
from localspec.model.usable import check_usable
from localspec.settings import CACHE_TYPES

F16, Q8_0 = BY_NAME["F16"], BY_NAME["Q8_0"]
FULL = Shape(n_layers=3, n_embd=64, n_heads=4, n_kv_heads=2, n_ff=64, n_vocab=300)


@pytest.fixture(scope="session")
def facts_smollm2(gguf_smollm2: Path) -> Header:
    return read_header(gguf_smollm2)


@pytest.fixture(scope="session")
def facts_gemma(gguf_gemma: Path) -> Header:
    return read_header(gguf_gemma)


@pytest.fixture(scope="session")
def facts_tiny(tmp_path_factory: pytest.TempPathFactory) -> Header:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_babbling_model(path, FULL)
    return read_header(path)


Change = dict[str, Value | Typed | None]


class Variant:
    """A header like another but for some keys (None: without it) and tensors."""

    def __init__(self, base: Header, folder: Path) -> None:
        self.base, self.path = base, folder / "variant.gguf"

    def __call__(
        self, change: Change, tensors: dict[str, TensorPlan | None] | None = None
    ) -> Header:
        architecture = change.get("general.architecture", self.base.architecture)
        own = f"{architecture}."  # keys move with the architecture
        base = {re.sub(r"^llama\.", own, key): v for key, v in self.base.metadata.items()}
        values = {key: value for key, value in (base | change).items() if value is not None}
        plans = {t.name: TensorPlan(t.name, t.type, t.shape, tuple) for t in self.base.tensors}
        wanted = [plan for plan in (plans | (tensors or {})).values() if plan is not None]
        self.path.write_bytes(header_bytes(values, wanted))
        os.truncate(self.path, self.path.stat().st_size + sum(p.n_bytes + 64 for p in wanted))
        return read_header(self.path)


@pytest.fixture
def variant(facts_tiny: Header, tmp_path: Path) -> Variant:
    return Variant(facts_tiny, tmp_path)


def refusal(header: Header) -> str:
    """Why a model is refused: one sentence that names the file and what to do."""
    with pytest.raises(ModelError) as caught:
        check_usable(header)
    sentence = str(caught.value)
    assert sentence.startswith(header.name)
    assert "\n" not in sentence
    assert re.search(r"; (download|convert|give|update|name) ", sentence)
    return sentence


# --- facts -------------------------------------------------------------------------------------


def test_smollm2(facts_smollm2: Header):
    check_usable(facts_smollm2)
    facts = ModelFacts.of(facts_smollm2)
    assert (facts.architecture, facts.file_type, facts.n_layers) == ("llama", "Q4_1", 30)
    assert (facts.n_embd, facts.n_ctx_train, facts.n_vocab) == (576, 8192, 49_152)
    assert facts.n_params == 134_515_008
    assert facts.weight_bytes == 96_576_768
    assert set(facts.layers) == {Layer(9, 3, 64, 64, None, True, False)}
    assert not facts.is_recurrent
    assert facts.window_tokens is None
    tokenizer = facts.tokenizer
    assert (tokenizer.model, tokenizer.pre) == ("gpt2", "smollm")
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.adds_bos) == (1, 2, False)
    assert tokenizer.chat_template
    # What libllama logs for 1000 tokens: 22.50 MiB in F16, 11.95 MiB in Q8_0 (1024 cells)
    assert facts.kv_bytes(1000, F16, F16) == 22.5 * 2**20
    assert facts.kv_bytes(1000, Q8_0, Q8_0) == 22.5 * 2**20 * 34 / 64


def test_gemma_has_windows_in_five_of_six_layers(facts_gemma: Header):
    check_usable(facts_gemma)
    facts = ModelFacts.of(facts_gemma)
    assert (facts.file_type, facts.n_layers, facts.n_vocab) == ("Q4_K_M", 18, 262_144)
    assert [layer.window_tokens for layer in facts.layers] == [512, 512, 512, 512, 512, None] * 3
    assert facts.window_tokens == 512
    # libllama: 3.00 MiB for the 3 full layers and 15.00 MiB for the others, if all are kept
    assert facts.kv_bytes(1000, F16, F16) == 18 * 2**20
    # and 1024 tokens of 4096 where windowed layers keep a window and a micro-batch of 512
    assert facts.kv_bytes(4096, F16, F16, n_windowed=1024) == (3 * 4 + 15) * 2**20


def test_mamba_has_no_cache(tmp_path: Path):
    path = tmp_path / "mamba.gguf"
    write_random_mamba(path, MambaShape())
    header = read_header(path)
    check_usable(header)
    facts = ModelFacts.of(header)
    assert facts.is_recurrent
    assert facts.kv_bytes(4096, F16, F16) == 0
    assert facts.kv_problem(Q8_0, Q8_0) is None


def ints(*numbers: int) -> Value:
    return array_of(ValueType.UINT32, numbers)


def windows(header: Header) -> list[int | None]:
    return [layer.window_tokens for layer in ModelFacts.of(header).layers]


def test_heads_by_layer(variant: Variant):
    facts = ModelFacts.of(variant({"llama.attention.head_count_kv": ints(4, 2, 1)}))
    assert [layer.n_kv_heads for layer in facts.layers] == [4, 2, 1]
    assert facts.kv_bytes(256, F16, F16) == 256 * 2 * 2 * 16 * (4 + 2 + 1)
    with pytest.raises(ModelError, match=r"has 2 numbers in .* for 3 layers"):
        ModelFacts.of(variant({"llama.attention.head_count_kv": ints(4, 2)}))


@pytest.mark.parametrize(
    ("architecture", "change", "expected"),
    [
        ("llama", {"attention.sliding_window": 64}, [None, None, None]),  # libllama ignores it
        ("gpt-oss", {"attention.sliding_window": 64}, [64, None, 64]),
        ("gemma2", {}, [4096, None, 4096]),
        ("gemma3", {}, [None, None, None]),
        ("cohere2moe", {"attention.sliding_window": 64}, [None, 64, 64]),
        ("phi3", {"attention.sliding_window": 64}, [None, None, None]),
        ("llama4", {}, [8192, 8192, 8192]),
        ("llama4", {"attention.sliding_window": 0}, [None, None, None]),
        ("exaone4", {"attention.sliding_window": 64}, [None, None, None]),  # only with 64 layers
        (
            "gemma4",
            {"attention.sliding_window": 64, "attention.sliding_window_pattern": ints(1, 0, 1)},
            [64, None, 64],
        ),
        (
            "gemma3",
            {"attention.sliding_window": 64, "attention.sliding_window_pattern": 2},
            [64, None, 64],
        ),
        (
            "lfm2",
            {"attention.sliding_window": 64, "attention.head_count_kv": ints(0, 2, 0)},
            [None, 64, None],
        ),
    ],
)
def test_windows_by_architecture(
    variant: Variant, architecture: str, change: dict[str, Value], expected: list[int | None]
):
    keys: Change = {f"{architecture}.{key}": value for key, value in change.items()}
    assert windows(variant({"general.architecture": architecture} | keys)) == expected


@pytest.mark.parametrize(
    ("architecture", "change", "recurrent", "cached"),
    [
        ("jamba", {"attention.head_count_kv": ints(0, 2, 0)}, [1, 0, 1], 1),
        ("qwen3next", {"full_attention_interval": 3}, [1, 1, 0], 1),
        ("qwen35", {"attention.recurrent_layers": ints(0, 1, 0)}, [0, 1, 0], 2),
        ("falcon-h1", {}, [1, 1, 1], 3),
        (
            "nemotron_h",
            {"attention.head_count_kv": ints(0, 2, 0), "feed_forward_length": ints(0, 0, 64)},
            [1, 0, 0],
            1,
        ),
    ],
)
def test_hybrids(
    variant: Variant,
    architecture: str,
    change: dict[str, Value],
    recurrent: list[int],
    cached: int,
):
    """Which layers have a cache decides its size; that some have none, that nothing rolls back."""
    keys: Change = {f"{architecture}.{key}": value for key, value in change.items()}
    facts = ModelFacts.of(variant({"general.architecture": architecture} | keys))
    assert [layer.is_recurrent for layer in facts.layers] == recurrent
    assert facts.kv_bytes(256, F16, F16) == cached * 256 * 2 * 2 * 16 * 2


def test_latent_attention_keeps_keys_only(variant: Variant):
    change: Change = {
        "general.architecture": "deepseek2",
        "deepseek2.attention.head_count_kv": 1,
        "deepseek2.attention.key_length": 576,
        "deepseek2.attention.value_length": 512,
        "deepseek2.attention.key_length_mla": 192,
        "deepseek2.attention.value_length_mla": 128,
    }
    facts = ModelFacts.of(variant(change))
    assert facts.kv_bytes(256, F16, F16) == 3 * 256 * 576 * 2
    assert "one type for both" in (facts.kv_problem(Q8_0, F16) or "")
    assert facts.kv_problem(Q8_0, Q8_0) is None


def test_layers_that_are_not_used_or_used_twice_or_share_their_cache(variant: Variant):
    assert ModelFacts.of(variant({"llama.nextn_predict_layers": 1})).n_layers == 2
    looped = variant({"general.architecture": "nanbeige", "nanbeige.num_loops": 2})
    assert ModelFacts.of(looped).n_layers == 6
    shared = ModelFacts.of(
        variant(
            {
                "general.architecture": "gemma4",
                "gemma4.attention.sliding_window": 64,
                "gemma4.attention.sliding_window_pattern": ints(1, 0, 1),
                "gemma4.attention.shared_kv_layers": 1,
            }
        )
    )
    assert [layer.has_cache for layer in shared.layers] == [True, True, False]


def test_cache_of_a_kind_of_its_own_is_unknown(variant: Variant):
    facts = ModelFacts.of(variant({"general.architecture": "deepseek4"}))
    assert facts.kv_bytes(256, F16, F16) is None


def test_file_type_without_a_name_is_that_of_most_bytes(variant: Variant):
    assert ModelFacts.of(variant({})).file_type == "F16"
    assert ModelFacts.of(variant({"general.file_type": 4})).file_type == "F16"
    assert ModelFacts.of(variant({"general.file_type": 18})).file_type == "Q6_K"


def test_kv_types(variant: Variant):
    facts = ModelFacts.of(variant({}))
    assert cache_type("Q8_0") is Q8_0
    with pytest.raises(UserError, match=r"'q6_k' .* choose one of f32, f16,"):
        cache_type("q6_k")
    assert "needs flash attention" in (facts.kv_problem(F16, Q8_0, flash_attention=False) or "")
    assert facts.kv_problem(F16, F16, flash_attention=False) is None
    # keys of 16 numbers, blocks of 32
    for kind in map(cache_type, CACHE_TYPES):
        problem = facts.kv_problem(kind, F16)
        assert (problem is None) == (not kind.is_quantized)
        assert problem is None or "16" in problem


# --- refusals ----------------------------------------------------------------------------------


def test_random_models_are_usable(variant: Variant, tmp_path: Path):
    check_usable(variant({}))
    path = tmp_path / "ids.gguf"
    write_random_model(path, FULL)
    check_usable(read_header(path))


def test_an_unknown_architecture_is_not_refused(variant: Variant):
    """libllama may know it; it says so if not."""
    check_usable(variant({"general.architecture": "brand-new"}))
    recurrent: Change = {
        "general.architecture": "brand-new-rnn",
        "brand-new-rnn.attention.head_count": 0,
        "brand-new-rnn.attention.head_count_kv": 0,
        "brand-new-rnn.rope.dimension_count": None,
        "brand-new-rnn.ssm.state_size": 16,
    }
    check_usable(variant(recurrent))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"general.type": "adapter"}, "is a LoRA adapter"),
        ({"general.type": "imatrix"}, "importance matrix"),
        ({"general.type": "mmproj"}, "image or sound encoder"),
        ({"general.architecture": None}, "does not say its architecture"),
        ({"general.architecture": "clip"}, "no language model"),
        ({"general.architecture": "bert"}, "embeddings"),
        ({"general.architecture": "nomic-bert"}, "embeddings"),
        ({"general.architecture": "t5encoder"}, "embeddings"),
        ({"general.architecture": "t5"}, "with an encoder"),
        ({"general.architecture": "llada"}, "diffusion"),
        ({"general.architecture": "eagle3"}, "cannot write alone"),
        ({"llama.pooling_type": 1}, "embeddings"),
        ({"llama.attention.causal": False}, "embeddings"),
    ],
)
def test_not_a_language_model(variant: Variant, change: Change, words: str):
    assert words in refusal(variant(change))


def test_a_vocabulary_alone(variant: Variant):
    assert "has no weights" in refusal(
        variant({}, dict.fromkeys(t.name for t in variant.base.tensors))
    )


HUGE = 2**32 - 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(({"llama.block_count": n}, "layers") for n in (None, 0, 2, 513, HUGE)),
        *(({"llama.context_length": n}, "context_length") for n in (None, 0, HUGE)),
        *(({"llama.embedding_length": n}, "embedding") for n in (None, 0, 63, 128, HUGE)),
        *(({"llama.attention.head_count": n}, "heads") for n in (None, 0, 3, HUGE)),
        *(({"llama.attention.head_count_kv": n}, "heads") for n in (3, 8, HUGE)),
        ({"llama.attention.head_count": 64, "llama.attention.key_length": 0}, "keys of 0"),
        *(({"llama.rope.dimension_count": n}, "rotates") for n in (15, 18, HUGE)),
        ({"llama.nextn_predict_layers": 3}, "layers"),
        ({"llama.nextn_predict_layers": HUGE}, "layers"),
        ({"general.architecture": "nanbeige", "nanbeige.num_loops": HUGE}, "layers"),
        ({"llama.block_count": "three"}, "a whole number"),
    ],
)
def test_impossible_sizes(variant: Variant, change: Change, words: str):
    """libllama asserts, divides by or allocates these; each would end the user's session."""
    assert words in refusal(variant(change))


def test_a_window_that_no_layer_has(variant: Variant):
    change: Change = {
        "general.architecture": "gemma4",
        "gemma4.attention.sliding_window": 64,
        "gemma4.attention.sliding_window_pattern": ints(0, 0, 0),
    }
    assert "no layer to use it" in refusal(variant(change))
    change["gemma4.attention.sliding_window_pattern"] = None
    assert "which layers look back" in refusal(variant(change))


def plan(name: str, kind: str, *shape: int) -> dict[str, TensorPlan | None]:
    return {name: TensorPlan(name, BY_NAME[kind], shape, tuple)}


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        (plan("token_embd.weight", "F16", 32, 300), "embeddings of shape"),
        (plan("token_embd.weight", "F16", 64, 301), "300 tokens for 301 embeddings"),
        (plan("blk.3.attn_norm.weight", "F32", 64), "of 4 layers but says 3"),
    ],
)
def test_impossible_tensors(variant: Variant, tensors: dict[str, TensorPlan | None], words: str):
    assert words in refusal(variant({}, tensors))


def texts(*tokens: str | bytes) -> Value:
    return array_of(ValueType.STRING, tokens)


def tokens_of(header: Header) -> list[bytes]:
    return header.raw_strings("tokenizer.ggml.tokens") or []


def test_impossible_vocabularies(variant: Variant):
    key, tokens = "tokenizer.ggml.tokens", tokens_of(variant.base)
    assert "the token 'A' twice" in refusal(variant({key: texts(*tokens[:-1], "A")}))
    zero = refusal(variant({key: texts(*tokens[:-1], b"A\0B")}))
    assert "the token 'A' twice" in zero  # libllama stops at the zero byte
    check_usable(variant({key: texts(*tokens[:-2], "", "")}))  # it names empty ones itself
    assert "299 tokens for 300" in refusal(variant({key: texts(*tokens[:-1])}))
    assert "0 tokens" in refusal(variant({key: texts()}))
    assert "0 tokens" in refusal(variant({key: None}))
    assert "an array of texts" in refusal(variant({key: ints(*range(300))}))
    assert "for the byte 0" in refusal(variant({"tokenizer.ggml.model": "llama"}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokenizer.ggml.bos_token_id": 300}, "begins every text with token 300"),
        ({"tokenizer.ggml.bos_token_id": None, "tokenizer.ggml.model": "rwkv"}, "token None"),
        (
            {"tokenizer.ggml.add_eos_token": True, "tokenizer.ggml.eos_token_id": HUGE},
            "ends every text",
        ),
        ({"tokenizer.ggml.model": "no_vocab", "llama.vocab_size": HUGE}, "token ids"),
        ({"tokenizer.ggml.model": "no_vocab", "llama.vocab_size": None}, "token ids"),
    ],
)
def test_impossible_ends_of_text(variant: Variant, change: Change, words: str):
    assert words in refusal(variant(change))


def test_bytes_of_a_sentencepiece_vocabulary(variant: Variant):
    tokens = [b"<0x%02X>" % i for i in range(256)] + [b"w%d" % i for i in range(44)]
    change: Change = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": texts(*tokens),
        "tokenizer.ggml.bos_token_id": None,
    }
    check_usable(variant(change))
    change["tokenizer.ggml.tokens"] = texts(*tokens[:7], b"x", *tokens[8:])
    assert "for the byte 7" in refusal(variant(change))


@pytest.mark.slow
def test_flipped_bytes_are_refused_or_let_through(facts_tiny: Header, tmp_path: Path):
    """Only ModelError comes out of a damaged header, of facts and checks as of the reader."""
    original = np.fromfile(facts_tiny.name, np.uint8)
    n_header = facts_tiny.parts[0].data_offset_bytes
    rng, path = np.random.default_rng(1), tmp_path / "flipped.gguf"
    n_refused = 0
    for _ in range(300):
        content = original.copy()
        where = rng.integers(0, n_header, rng.integers(1, 4))
        content[where] = rng.integers(0, 256, len(where))
        content.tofile(path)
        try:
            header = read_header(path)
            check_usable(header)
            ModelFacts.of(header)
        except ModelError:
            n_refused += 1
    assert 0 < n_refused < 300
