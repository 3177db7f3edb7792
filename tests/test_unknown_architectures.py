"""Models that are newer than localspec are read by what their headers say of their layers."""

from pathlib import Path

import pytest
from babbling import byte_vocabulary
from sparse import write_sparse

from localspec.gguf.cursor import Array, Value, ValueType
from localspec.gguf.reader import read_header
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import array_of
from localspec.model.facts import ModelFacts
from localspec.model.usable import usable_facts

F16 = BY_NAME["F16"]
N_EMBD, N_VOCAB = 2048, 300


def facts_of(path: Path, name: str, n_layers: int, **keys: Value) -> ModelFacts:
    """Of a model with 32 heads and 8 of keys and values, of 64 numbers, but for other keys."""
    own: dict[str, Value] = {
        "block_count": n_layers,
        "context_length": 131_072,
        "embedding_length": N_EMBD,
        "feed_forward_length": 4096,
        "attention.head_count": 32,
        "attention.head_count_kv": 8,
        "attention.layer_norm_rms_epsilon": 1e-6,
    }
    values = {f"{name}.{key.replace('__', '.')}": value for key, value in (own | keys).items()}
    tensors = [("token_embd.weight", (N_EMBD, N_VOCAB), "F16")]
    tensors += [(f"blk.{i}.attn_norm.weight", (N_EMBD,), "F32") for i in range(n_layers)]
    metadata = {"general.architecture": name} | values | byte_vocabulary(N_VOCAB)
    return usable_facts(read_header(write_sparse(path, metadata, tensors)))


def token_bytes(facts: ModelFacts) -> int:
    """What a token adds to the cache in layers that see all of the past."""
    a, b = (facts.kv_bytes(n, F16, F16, n_windowed=0) or 0 for n in (1024, 2048))
    return (b - a) // 1024


def flags(*values: int) -> Array:
    return array_of(ValueType.BOOL, values)


def ints(*values: int) -> Array:
    return array_of(ValueType.INT32, values)


LAYER = 8 * 64 * 2 * 2  # bytes of keys and values of a token


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf"


@pytest.mark.parametrize(
    "keys",
    [
        {"attention__sliding_window_pattern": flags(1, 1, 1, 1, 1, 0)},
        {"attention__sliding_window_pattern": 6},
        {"full_attention_interval": 6},
    ],
    ids=["array", "period", "interval"],
)
def test_windows_are_read_from_the_header(path: Path, keys: dict[str, Value]) -> None:
    facts = facts_of(path, "newarch", 6, attention__sliding_window=1024, **keys)
    assert [layer.window_tokens for layer in facts.layers] == [1024] * 5 + [None]
    assert token_bytes(facts) == LAYER
    assert facts.kv_bytes(32_768, F16, F16, n_windowed=1024) == LAYER * (32_768 + 5 * 1024)
    assert facts.rolls_back


def test_a_window_that_no_pattern_gives_to_a_layer_is_no_window(path: Path) -> None:
    """Headers of full attention carry the number, too: the safe figure is the larger one."""
    facts = facts_of(path, "newarch", 4, attention__sliding_window=1024)
    assert token_bytes(facts) == 4 * LAYER


@pytest.mark.parametrize(
    ("keys", "n_attending"),
    [
        ({"full_attention_interval": 4}, 2),
        ({"attention.recurrent_layers": flags(1, 1, 0, 1, 1, 1, 1, 0)}, 2),
        ({"attention.head_count_kv": ints(0, 0, 0, 8, 0, 0, 0, 8), "ssm.state_size": 128}, 2),
        ({"full_attention_interval": 4, "attention.sliding_window": 512, "ssm.inner_size": 1}, 2),
    ],
    ids=["interval", "flags", "no heads of keys", "interval beside a window"],
)
def test_recurrent_layers_are_read_from_the_header(
    path: Path, keys: dict[str, Value], n_attending: int
) -> None:
    facts = facts_of(path, "newhybrid", 8, **{k.replace(".", "__"): v for k, v in keys.items()})
    assert sum(layer.has_cache for layer in facts.layers) == n_attending
    assert token_bytes(facts) == n_attending * LAYER
    assert not facts.rolls_back, "a state cannot take back a token"


def test_heads_of_each_layer_and_shared_caches(path: Path) -> None:
    keys: dict[str, Value] = {
        "attention__head_count_kv": ints(8, 4, 2, 8),
        "attention__key_length": 64,
        "attention__value_length": 64,
        "attention__shared_kv_layers": 1,
    }
    facts = facts_of(path, "newarch", 4, **keys)
    assert token_bytes(facts) == LAYER * (8 + 4 + 2) // 8


def test_plamo_2_has_no_heads_in_its_first_layer(path: Path) -> None:
    """A good file: 8 of 16 layers attend, with 4 heads of keys and values of 128 numbers."""
    keys: dict[str, Value] = {
        "attention__head_count": ints(*(0, 32) * 8),
        "attention__head_count_kv": ints(*(0, 4) * 8),
        "attention__key_length": 128,
        "attention__value_length": 128,
        "ssm__state_size": 64,
        "ssm__conv_kernel": 4,
        "ssm__time_step_rank": 16,
        "ssm__inner_size": 2048,
        "ssm__group_count": 0,
    }
    facts = facts_of(path, "plamo2", 16, **keys)
    assert token_bytes(facts) == 16_384
    assert facts.kv_bytes(32_768, F16, F16) == 512 << 20
    assert facts.state_bytes == 8 * 4 * (3 * 2048 + 64 * 2048)


def test_a_first_layer_without_heads_is_no_damage_elsewhere(path: Path) -> None:
    heads = ints(0, 32, 32, 32)
    facts = facts_of(
        path, "newarch", 4, attention__head_count=heads, attention__head_count_kv=ints(0, 8, 8, 8)
    )
    assert token_bytes(facts) == 3 * LAYER
