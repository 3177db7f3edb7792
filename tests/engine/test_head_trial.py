"""A draft head that the engine would die of dies in a child, once, beside its target."""

import json
from pathlib import Path

import pytest
from command import tiny
from head_files import File, eagle3_of
from heads import write_agreeing

from localspec.errors import ModelError
from localspec.gguf.reader import read_header
from localspec.model.facts import HeadFacts, ModelFacts
from localspec.model.head_fit import head_of
from localspec.notify import silent
from localspec.session.loading import checked_facts
from localspec.session.trial import try_head
from localspec.store import document_of, value_of

OTHER = "a process of its own tries it beside"


@pytest.fixture
def target() -> tuple[Path, ModelFacts]:
    return tiny(), checked_facts(tiny())


def head_for(target: Path, file: File, path: Path) -> HeadFacts:
    facts = head_of(read_header(target), file.header(path))
    assert isinstance(facts, HeadFacts), facts
    return facts


@pytest.fixture(params=[1 << 40, 0], ids=["evaluated", "built"])
def free_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Memory for a try: enough to evaluate with the head, or only to build it."""
    monkeypatch.setattr("localspec.session.trial.available_memory_bytes", lambda: request.param)
    return request.param


def right() -> File:
    return eagle3_of(read_header(tiny()), 0, 1, 1)


def test_a_right_head_is_tried_once(
    tmp_path: Path,
    target: tuple[Path, ModelFacts],
    free_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = right().but(rope__freq_base=float(10_000 + free_bytes % 7))
    head, said = head_for(target[0], file, tmp_path / "head.gguf"), list[str]()
    monkeypatch.setattr("localspec.session.trial.SAID_BYTES", 0)
    try_head(*target, head, said.append)
    assert said == [f"head.gguf is new here: {OTHER} tiny.gguf first"]
    monkeypatch.setattr("localspec.session.trial.call", _never)
    try_head(*target, head, said.append)
    assert len(said) == 1


def _never(*_: object) -> None:
    raise AssertionError("a child was started for a file that is known")


def test_what_the_engine_would_die_of_is_a_sentence(
    tmp_path: Path, target: tuple[Path, ModelFacts], free_bytes: int
) -> None:
    """Tokens numbered in halves, of a header that nobody judged."""
    n = target[1].n_embd
    file = right().having(output__weight=(n, 100)).having("I32", d2t=(100,))
    path = file.but(rope__freq_base=float(1 + bool(free_bytes))).write(tmp_path / "h")
    head = HeadFacts("eagle3", path, taps=(0, 1, 1))
    with pytest.raises(ModelError, match=r"^h does not .* would die of it .*GGML_ASSERT"):
        try_head(*target, head, silent)


def test_a_head_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localspec.session.trial.SAID_BYTES", 0)
    path = write_agreeing(tmp_path / "m.gguf", 0.0625)
    facts, head = checked_facts(path), head_of(read_header(path))
    assert isinstance(head, HeadFacts)
    said: list[str] = []
    try_head(path, facts, head, said.append)
    assert said == [f"the draft head in m.gguf is new here: {OTHER} m.gguf first"]


def test_facts_cross_to_the_child(tmp_path: Path, target: tuple[Path, ModelFacts]) -> None:
    for facts in (HeadFacts("mtp"), head_for(target[0], right(), tmp_path / "head.gguf")):
        assert value_of(HeadFacts, json.loads(json.dumps(document_of(facts)))) == facts
