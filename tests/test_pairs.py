"""A draft that cannot draft is refused before a gigabyte moves; one that can comes along."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from babbling import write_babbling_model
from command import Run, assert_refused, localspec
from hub import Hub
from hybrids import MambaShape, write_random_mamba

from localspec import paths
from localspec.gguf.cursor import ValueType
from localspec.gguf.header import FilePart, Header
from localspec.gguf.reader import read_header
from localspec.gguf.remote import LARGEST_READ_BYTES
from localspec.gguf.writer import array_of
from localspec.model.facts import ModelFacts
from localspec.model.synthetic import Shape
from localspec.model.tokenizer import Tokenizer, pair_problem

TARGET, DRAFT = "big/target-GGUF", "small/draft-GGUF"
SHAPE = Shape(n_layers=2, n_embd=64, n_heads=2, n_kv_heads=1, n_ff=128, n_vocab=320)
CATALOG = f"""
[models.big]
title = "Big"
repository = "{TARGET}"
file = "big-F16.gguf"
license = "MIT"
draft = "small"
aliases = ["large"]

[models.small]
title = "Small"
repository = "{DRAFT}"
file = "small-F16.gguf"
license = "MIT"
"""


@pytest.fixture
def command(hub: Hub, tmp_path: Path) -> Callable[..., Run]:
    (paths.config_dir() / "models.toml").write_text(CATALOG)

    def run(*arguments: str, **more: str) -> Run:
        return localspec(*arguments, **(hub.environment(tmp_path / "hf") | more))

    return run


def model(tmp_path: Path, shape: Shape = SHAPE) -> bytes:
    path = tmp_path / "made.gguf"
    write_babbling_model(path, shape)
    return path.read_bytes()


@pytest.mark.slow
def test_a_clash_stops_the_pull_after_the_headers(
    hub: Hub, command: Callable[..., Run], tmp_path: Path
) -> None:
    large = replace(SHAPE, n_layers=8, n_embd=512, n_ff=1024, n_heads=8, n_kv_heads=4)
    big = hub.add(TARGET, "big-F16.gguf", model(tmp_path, large))
    hub.add(DRAFT, "small-F16.gguf", model(tmp_path, replace(large, n_vocab=320 + 129)))
    run = command("pull", "big")
    assert_refused(run, 1, "cannot draft", "320 tokens", "449", "--no-draft")
    n_header = read_header(tmp_path / "made.gguf").parts[0].data_offset_bytes
    assert hub.n_stored_sent <= 2 * (n_header + LARGEST_READ_BYTES) < len(big) / 8
    assert not list((tmp_path / "hf").rglob("blobs/*"))
    alone = command("pull", "big", "--no-draft", "--json")
    assert [file["role"] for file in alone.document["files"]] == ["model"]


@pytest.mark.engine
def test_a_pair_comes_whole_and_drafts_by_itself(
    hub: Hub, command: Callable[..., Run], tmp_path: Path
) -> None:
    hub.add(TARGET, "big-F16.gguf", model(tmp_path))
    hub.add(DRAFT, "small-F16.gguf", model(tmp_path, replace(SHAPE, n_layers=1)))
    files = command("pull", "large", "--json").document["files"]
    assert [file["role"] for file in files] == ["model", "draft"]
    answer = command(
        "generate", "big", "-p", "x", "-n", "4", "--threads", "1", "--json", HF_HUB_OFFLINE="1"
    )
    assert answer.code == 0, answer.stderr
    assert answer.document["config"]["model"] == files[0]["path"]
    assert answer.document["config"]["draft"] == files[1]["path"]
    again = command("pull", "big", "--offline", "--json")
    assert [file["path"] for file in again.document["files"]] == [f["path"] for f in files]
    listed = command("list", "--json").document["models"]
    assert {row["name"]: row["draft"] for row in listed if row["origin"] == "pulled"} == {
        "big": "small",
        "small": None,
    }
    assert next(row for row in listed if row["name"] == "big")["last_used"]
    known = {row["name"]: row for row in command("list", "--known", "--json").document["models"]}
    assert [name for name, row in known.items() if row["verified"]] == ["starter", "big", "small"]


def test_a_name_that_is_not_here_says_how_to_get_it(command: Callable[..., Run]) -> None:
    run = command("generate", "big", "-p", "x", HF_HUB_OFFLINE="1")
    assert_refused(run, 1, "big is not here", "`localspec pull big`")
    assert_refused(command("pull", "bgi"), 2, "did you mean 'big'?")


@pytest.mark.engine
def test_the_quantization_that_is_named_is_pulled(
    hub: Hub, command: Callable[..., Run], tmp_path: Path
) -> None:
    hub.add(TARGET, "big-F16.gguf", model(tmp_path))
    hub.add(TARGET, "big-Q8_0.gguf", model(tmp_path))
    run = command("pull", "big:Q8_0", "--no-draft", "--json")
    assert Path(run.document["files"][0]["path"]).name == "big-Q8_0.gguf"
    assert_refused(command("pull", "big:Q2_K", "--no-draft"), 2, "has no Q2_K", "F16", "Q8_0")
    used = command("generate", "big", "-p", "x", "-n", "1", "--json", HF_HUB_OFFLINE="1")
    assert used.document["config"]["model"].endswith("big-Q8_0.gguf")


# --- the rules ---------------------------------------------------------------------------------


def test_real_tokenizers(gguf_smollm2: Path, gguf_gemma: Path) -> None:
    smollm2, gemma = (Tokenizer.of(read_header(path)) for path in (gguf_smollm2, gguf_gemma))
    assert smollm2.difference(smollm2) is None
    assert "different types" in (smollm2.difference(gemma) or "")


def header(n: int, changed: dict[int, str] | None = None, **keys: Any) -> Header:
    tokens = [f"token {i}" for i in range(n)]
    for i, text in (changed or {}).items():
        tokens[i] = text
    named = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    metadata = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": array_of(ValueType.STRING, tokens),
    }
    return Header((FilePart("x.gguf", None, 0),), 3, 32, metadata | named, ())


@pytest.mark.parametrize(
    ("target", "draft", "word"),
    [
        (header(300), header(300 - 128), None),
        (header(300), header(300 + 128), None),
        (header(300), header(300 + 129), "300 tokens"),
        (header(300), header(300, {4: "other"}), None),
        (header(300), header(300, {5: "other"}), "token 5"),
        (header(300), header(300, {299: "other"}), "token 299"),
        (header(300), header(200, {199: "other"}), "token 199"),
        (header(300), header(300, model="llama"), "different types"),
        (header(300, add_bos_token=True), header(300, add_bos_token=False), "BOS"),
        (header(300, add_bos_token=True), header(300), None),  # it may be the same by default
        (
            header(300, add_bos_token=True, bos_token_id=1),
            header(300, add_bos_token=True, bos_token_id=2),
            "BOS is token 1 in one and 2",
        ),
        (header(300, bos_token_id=1), header(300, bos_token_id=2), None),  # it is not added
        (header(300, pre="llama-bpe"), header(300, add_bos_token=False), "BOS"),
        (
            header(300, add_eos_token=True, eos_token_id=1),
            header(300, add_eos_token=True, eos_token_id=2),
            "EOS",
        ),
    ],
)
def test_the_rules_are_those_of_the_engine(target: Header, draft: Header, word: str | None) -> None:
    problem = Tokenizer.of(target).difference(Tokenizer.of(draft))
    assert problem is None if word is None else word in (problem or "")


@cache
def made(folder: Path, kind: str) -> Header:
    path = folder / f"{kind}.gguf"
    if kind == "mamba":
        write_random_mamba(path, MambaShape(n_embd=64, n_vocab=320), "F16")
    else:
        write_babbling_model(path, SHAPE)
    return read_header(path)


def test_a_recurrent_draft_is_refused(tmp_path: Path) -> None:
    target, draft = (ModelFacts.of(made(tmp_path, kind)) for kind in ("llama", "mamba"))
    tokenizers = target.tokenizer, draft.tokenizer
    assert "recurrent" in (pair_problem(*tokenizers, rolls_back=draft.rolls_back) or "")
    assert pair_problem(*tokenizers, rolls_back=target.rolls_back) is None


@pytest.mark.engine
def test_what_is_spelled_out_is_fetched_when_it_is_used(
    hub: Hub, command: Callable[..., Run], tmp_path: Path
) -> None:
    """And the catalog's draft for that repository is used, if it is here."""
    hub.add(TARGET, "big-F16.gguf", model(tmp_path))
    hub.add(DRAFT, "small-F16.gguf", model(tmp_path, replace(SHAPE, n_layers=1)))
    draft = command("pull", "small", "--json").document["files"][0]["path"]
    name = f"hf:{TARGET}/big-F16.gguf"
    run = command("generate", name, "-p", "x", "-n", "2", "--threads", "1", "--json")
    assert run.code == 0, run.stderr
    assert run.document["config"]["draft"] == draft
    assert "fetching big-F16.gguf" in run.stderr
