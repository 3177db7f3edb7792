"""What a file is: its header says so, whatever its name, here and at a distance."""

from collections.abc import Generator
from pathlib import Path

import pytest
from command import localspec
from sparse import KINDS, WRITE_TEXT, layers, write_blocks
from sparse import _bare as bare
from sparse import _keyed as keyed
from sparse import _spec as spec
from web import Server

from localspec.errors import ModelError
from localspec.forecast.forecast import facts_of
from localspec.gguf.reader import read_header
from localspec.gguf.remote import read_remote
from localspec.model.facts import ModelFacts
from localspec.model.kind import HEADS, kind_of
from localspec.session.loading import checked_facts


@pytest.fixture
def server() -> Generator[Server]:
    with Server().running() as running:
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_told_by_the_header(tmp_path: Path, kind: str, server: Server) -> None:
    path = KINDS[kind](tmp_path / "model-Q4_K_M.gguf")
    server.files["/model-Q4_K_M.gguf"] = path.read_bytes()
    for header in (read_header(path), read_remote(f"{server.address}/model-Q4_K_M.gguf")):
        found = kind_of(header)
        assert (found.name, found.is_model) == (kind, kind in WRITE_TEXT)


@pytest.mark.parametrize("kind", KINDS)
def test_no_speed_is_predicted_for_what_cannot_write(tmp_path: Path, kind: str) -> None:
    path = KINDS[kind](tmp_path / "model.gguf")
    if kind in WRITE_TEXT:
        assert facts_of(str(path)).streamed_bytes
        return
    with pytest.raises(ModelError) as caught:
        facts_of(str(path))
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert sentence.endswith("give the path of a whole language model")


def test_an_encoder_inside_is_not_read_for_each_token(tmp_path: Path) -> None:
    """Ollama's own files have one; llama.cpp does not load them, which is said before it tries."""
    path = KINDS["model with encoder"](tmp_path / "m.gguf")
    plain = write_blocks(tmp_path / "p.gguf", layers(*range(5)), "gemma3", nextn_predict_layers=0)
    facts = ModelFacts.of(read_header(path))
    assert facts.streamed_bytes == ModelFacts.of(read_header(plain)).streamed_bytes
    assert facts.encoder_bytes == 3 * 64 * 4
    with pytest.raises(ModelError, match="encoder inside, as Ollama's own files"):
        checked_facts(path)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("gemma9-assistant", "assistant"), ("eagle4", "EAGLE-3 head"), ("newarch", "model")],
)
def test_names_that_are_not_known_yet(tmp_path: Path, architecture: str, kind: str) -> None:
    blocks = layers(*range(5))
    path = write_blocks(tmp_path / "m.gguf", blocks, architecture, nextn_predict_layers=0)
    assert kind_of(read_header(path)).name == kind


@pytest.mark.parametrize(
    ("architecture", "tensor"),
    [
        ("kandinsky5", "time_embeddings.in_layer.weight"),
        ("hunyuan_image", "final_layer.linear.weight"),
        ("", "visual_transformer_blocks.0.cross_attention.key_norm.weight"),
        ("nobody_knows", "time_embeddings.in_layer.weight"),
        ("next-video", "t_embedder.mlp.0.weight"),
    ],
)
def test_what_draws_step_by_step_makes_pictures_or_video(
    tmp_path: Path, architecture: str, tensor: str
) -> None:
    path = bare({"general.architecture": architecture}, tensor)(tmp_path / "m.gguf")
    found = kind_of(read_header(path))
    assert found.name == "image model"
    assert "makes pictures or video and is no language model" in (found.problem or "")


def test_list_shows_the_kind_of_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / ".lmstudio/models/o/r"
    folder.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    for i, write in enumerate(KINDS.values()):
        write(folder / f"file{i}.gguf")
    run = localspec("list", "--all", "--json")
    found = {row["name"]: row for row in run.document["models"]}
    for i, kind in enumerate(KINDS):
        row = found[f"lmstudio:o/r/file{i}.gguf"]
        assert row["kind"] == kind
        assert (row["problem"] is None) == (kind in ("model", "model with MTP head", *HEADS))


def test_what_ends_in_vectors_is_known_without_a_pooling(tmp_path: Path) -> None:
    """LFM2-ColBERT is a language model's architecture with a dense layer behind it."""
    tensors = (spec("token_embd.weight"), spec("blk.0.attn_norm.weight"), spec("dense_2.weight"))
    path = keyed("lfm2", {"pooling_type": 0}, *tensors)(tmp_path / "m.gguf")
    assert kind_of(read_header(path)).name == "embedding model"
