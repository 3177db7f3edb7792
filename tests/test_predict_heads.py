"""`predict --draft HEAD` says from headers what a head costs, from where it pays, for how many."""

from collections.abc import Generator
from pathlib import Path

import pytest
from head_files import N_VOCAB, N, assistant, dflash, eagle3, gemma4, mtp, target, with_mtp
from heads import write_agreeing
from web import Server

from localspec.cli.predict import document
from localspec.errors import ModelError
from localspec.forecast.forecast import Forecast
from localspec.forecast.head_forecast import head_model
from localspec.forecast.question import answer, read_question
from localspec.gguf.reader import read_header
from localspec.model.facts import HeadFacts
from localspec.model.head_fit import head_of
from localspec.notify import silent
from localspec.prediction.speculation import DraftCosts

FLOAT = 4


def predicted(model: Path | str, draft: Path | str | None, **more: object) -> Forecast:
    words = {"device": "RTX 4090", "kv_k": "f16", "depth": 0, "draft": draft and str(draft)} | more
    return answer(str(model), *read_question(**words), silent)


@pytest.fixture
def server() -> Generator[Server]:
    with Server().running() as running:
        yield running


def test_a_head_inside(tmp_path: Path):
    """Its block is counted by hand; what it reads a step is that and the matrix for scores."""
    path = with_mtp().write(tmp_path / "m.gguf")
    head = predicted(path, "own").head
    assert head
    block = sum(t.n_bytes for t in read_header(path).tensors if t.name.startswith("blk.6."))
    table = FLOAT * N * N_VOCAB
    assert (head.method, head.is_inside, head.weight_bytes) == ("mtp", True, block)
    assert head.step_bytes == block + table
    assert head.token_bytes == 2 * 2 * (2 * 16)  # f16: two heads of keys and values of 16
    assert head.memory_bytes < block + 10_000_000


def test_the_states_of_a_hybrid_are_counted(tmp_path: Path):
    path = write_agreeing(tmp_path / "m.gguf")
    plain, found = predicted(path, None), predicted(path, "own")
    head = found.head
    assert head
    assert head.snapshot_bytes == found.facts.state_bytes
    assert head.n_snapshots >= 1
    extra = found.rows[0].memory.total_bytes - plain.rows[0].memory.total_bytes
    assert extra >= head.context_bytes + 3 * (head.snapshot_bytes or 0)
    users = predicted(path, "own", batch=(1, 4)).rows
    assert users[1].memory.draft_bytes > users[0].memory.draft_bytes


def test_a_head_beside_brings_its_weights(tmp_path: Path):
    model, head = target().write(tmp_path / "m.gguf"), eagle3().write(tmp_path / "h.gguf")
    found = predicted(model, head)
    assert found.head
    weights = sum(t.n_bytes for t in read_header(head).tensors)
    assert (found.head.weight_bytes, found.head.is_inside) == (weights, False)
    assert found.rows[0].memory.draft_bytes > weights
    assert found.head.file == str(head)


def test_a_head_that_is_far_away(tmp_path: Path, server: Server):
    for name, file in (("m.gguf", target()), ("h.gguf", eagle3())):
        server.files[f"/{name}"] = file.write(tmp_path / name).read_bytes()
    found = predicted(f"{server.address}/m.gguf", f"{server.address}/h.gguf")
    assert found.head
    assert found.head.method == "eagle3"


def test_one_that_reads_the_target_s_cache_has_none(tmp_path: Path):
    model, head = gemma4().write(tmp_path / "m.gguf"), assistant().write(tmp_path / "h.gguf")
    found = predicted(model, head).head
    assert found
    assert (found.method, found.token_bytes, found.n_snapshots) == ("gemma4-assistant", 0, 0)


def test_a_block_costs_the_same_whatever_its_length(tmp_path: Path):
    model, head = target().write(tmp_path / "m.gguf"), dflash().write(tmp_path / "h.gguf")
    found = predicted(model, head)
    assert found.head
    costs = found.speculation[0].costs
    assert (costs.max_draft, costs.draft_cost) == (7, 0.0)
    assert costs.block_cost > 0
    assert costs.cost(7) - costs.verify(8) == pytest.approx(costs.cost(1) - costs.verify(2))


def test_a_step_reads_one_of_several_heads(tmp_path: Path):
    header = with_mtp("step35", 3).header(tmp_path / "m.gguf")
    facts = head_of(header)
    assert isinstance(facts, HeadFacts)
    model = head_model(header, None, facts)
    assert model.streamed_bytes == model.weight_bytes / 3 + FLOAT * N * N_VOCAB


def test_what_is_asked_of_it_in_words(tmp_path: Path):
    """`auto` takes the head inside, and is no fault without one; a wrong head is a sentence."""
    own, none = with_mtp().write(tmp_path / "m.gguf"), target().write(tmp_path / "n.gguf")
    assert predicted(own, "auto").head
    found = predicted(none, "auto")
    assert (found.head, found.draft) == (None, None)
    with pytest.raises(ModelError, match=r"n.gguf has no draft head \(MTP\) inside"):
        predicted(none, "own")
    with pytest.raises(ModelError, match="is of a model of 'qwen35'"):
        predicted(none, mtp().write(tmp_path / "h.gguf"))


def test_auto_finds_a_head_beside_the_model(tmp_path: Path):
    """As where it is loaded; a head of another model there is passed over."""
    model = target().write(tmp_path / "model-Q8_0.gguf")
    eagle3().but(target_hidden_size=128).write(tmp_path / "dflash-model-Q8_0.gguf")
    assert predicted(model, "auto").head is None
    right = eagle3().write(tmp_path / "eagle3-model-Q8_0.gguf")
    found = predicted(model, "auto").head
    assert found
    assert (found.method, found.file) == ("eagle3", str(right))


def test_the_document(tmp_path: Path):
    head = document(predicted(with_mtp().write(tmp_path / "m.gguf"), "own"))["head"]
    assert [each["n_users"] for each in head["users"]] == [1, 2, 4, 8, 16, 32]
    paying = [each["n_draft"] > 0 for each in head["users"]]
    n_paying = paying.index(False) if False in paying else len(paying)
    expected = head["users"][n_paying - 1]["n_users"] if n_paying else 0
    assert head["pays_for_users"] == expected
    assert document(predicted(tmp_path / "m.gguf", None))["head"] is None


def test_a_block_in_the_costs():
    costs = DraftCosts(0.0, lambda n: 1.0, 8, block_cost=0.5)
    assert costs.speedup(1.0, 8) == 9 / 1.5
    assert costs.cost(0) == 1.0
