"""What is known of models without a network agrees with what is published of their files."""

from dataclasses import replace

import pytest
from research.catalog.build import TARGET, encoded, facts

from localspec.forecast.known_models import header_sources, known_facts
from localspec.model.kv import types_of
from localspec.registry.catalog import Entry, load_catalog
from localspec.settings import Attention

CATALOG = load_catalog()
GIB = 2**30


def entry(name: str) -> Entry:
    return CATALOG[name]


def test_the_shipped_file_is_what_the_configurations_give() -> None:
    """Each count is held against the published number of parameters on the way."""
    assert TARGET.read_text("utf-8") == encoded(facts())


def test_every_entry_has_facts_with_sources() -> None:
    assert len(CATALOG) >= 45
    for known in CATALOG.values():
        found = known_facts(known)
        assert found, known.name
        assert header_sources(known), known.name
        assert found.n_ctx_train
        assert found.n_params / 1e9 == pytest.approx(known.params_b, rel=0.02), known.name
        assert known.released, known.name
        for kind in known.quants:
            assert known_facts(known, kind), (known.name, kind)


def test_sizes_are_those_of_the_published_files() -> None:
    """Mixtures with an importance matrix may keep some weights better; the table knows none."""
    sized = [known for known in CATALOG.values() if known.file_bytes]
    assert len(sized) >= 10
    for known in sized:
        computed = known_facts(replace(known, file_bytes=None))
        rel = 0.06 if "qwen3" in known.name else 0.02
        assert computed.weight_bytes == pytest.approx(known.file_bytes, rel=rel), known.name
        assert known_facts(known).weight_bytes == known.file_bytes


@pytest.mark.parametrize(
    ("name", "kind", "gib"),
    [
        ("qwen3.5-9b", "Q8_0", 8.86), ("qwen3.5-4b", "Q8_0", 4.16), ("qwen3-8b", None, 4.68),
        ("gpt-oss-20b", None, 11.27), ("gpt-oss-120b", None, 59.02), ("llama3.1-8b", None, 4.58),
        ("gemma4-31b", None, 17.04), ("qwen3-coder-30b-a3b", None, 17.35),
        ("gemma4-12b", "Q5_K_M", 7.84), ("gemma4-12b", "Q6_K", 9.11), ("gemma4-12b", "Q8_0", 11.80),
        ("gemma4-31b", "Q6_K", 23.47), ("gemma4-31b", "Q8_0", 30.39),
    ],
)  # fmt: skip
def test_sizes_that_llama_bench_prints(name: str, kind: str | None, gib: float) -> None:
    """From public runs of 2025 and 2026; the table of quantizations is within 3 %."""
    size = known_facts(replace(entry(name), file_bytes=None), kind).weight_bytes
    assert size / GIB == pytest.approx(gib, rel=0.03)


@pytest.mark.parametrize(
    ("name", "streamed", "file"),
    [("gpt-oss-20b", 0.25, 12.1e9), ("qwen3.5-35b-a3b", 0.11, 21e9), ("llama3.1-8b", 0.95, 4.9e9)],
)
def test_a_mixture_streams_what_a_token_uses(name: str, streamed: float, file: float) -> None:
    found = known_facts(entry(name))
    assert found.weight_bytes == pytest.approx(file, rel=0.03)
    assert found.streamed_bytes / found.weight_bytes == pytest.approx(streamed, rel=0.2)


def test_caches_are_those_of_the_layers_that_have_one() -> None:
    """Bytes a token at f16: public figures of vLLM and llama.cpp for the same models."""
    types = types_of(Attention())

    def per_token(name: str) -> float:
        found = known_facts(entry(name))
        return (found.kv_bytes(8192, *types) - found.kv_bytes(4096, *types)) / 4096

    assert per_token("ministral3-3b") == 106_496
    assert per_token("qwen3.5-9b") == 8 * 2 * 2 * 4 * 256
    assert per_token("glm4.7-flash") == 47 * 2 * 576
    assert per_token("llama3.1-8b") == 131_072


def test_a_head_is_in_the_file_and_not_streamed() -> None:
    plain, own = known_facts(entry("qwen3.5-9b")), known_facts(entry("qwen3.5-9b-mtp"))
    assert own.weight_bytes > plain.weight_bytes
    assert own.streamed_bytes == plain.streamed_bytes


def test_nothing_is_known_of_an_unknown_name() -> None:
    assert known_facts(replace(entry("starter"), name="unknown")) is None
