"""What llama.cpp would die of is found in a child, once: no process of the user's dies.

The first files break rules that llama.cpp asserts or takes for granted; none is known to localspec.
"""

import math
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from command import assert_refused, localspec, tiny
from hybrids import write_random_limited
from sparse import KINDS, WRITE_TEXT, write_mtp_head

from localspec.engine.base import EngineConfig
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.llama.parameters import EarlyWeights
from localspec.errors import ModelError
from localspec.gguf.cursor import Value
from localspec.gguf.reader import read_header
from localspec.gguf.types import BY_NAME
from localspec.gguf.writer import TensorPlan, header_bytes
from localspec.model.facts import ModelFacts
from localspec.model.tokenizer import Tokenizer
from localspec.notify import silent
from localspec.session.loading import checked_facts
from localspec.session.trial import try_load

Change = tuple[dict[str, Value], dict[str, tuple[str, tuple[int, ...]]]]
DEADLY: dict[str, Change] = {
    "a negative epsilon": ({"llama.attention.layer_norm_rms_epsilon": -1.0}, {}),
    "an epsilon that is no number": ({"llama.attention.layer_norm_rms_epsilon": math.nan}, {}),
    "experts of which none is used": ({"llama.expert_count": 8}, {}),
    "an unknown position scaling": ({"llama.rope.scaling.type": "twisted"}, {}),
    "weights of whole numbers": ({}, {"blk.0.attn_q.weight": ("I16", (64, 64))}),
    "a norm of the wrong type": ({}, {"blk.0.attn_norm.weight": ("F16", (64,))}),
}


def write_changed(path: Path, change: Change) -> Path:
    """The tiny model with other keys and types of tensors, and zeros for weights."""
    header = read_header(tiny())
    plans = {t.name: TensorPlan(t.name, t.type, t.shape, tuple) for t in header.tensors}
    plans |= {
        name: TensorPlan(name, BY_NAME[kind], shape, tuple)
        for name, (kind, shape) in change[1].items()
    }
    path.write_bytes(header_bytes(dict(header.metadata) | change[0], list(plans.values())))
    os.truncate(path, path.stat().st_size + sum(plan.n_bytes + 64 for plan in plans.values()))
    return path


@pytest.mark.parametrize("name", DEADLY)
def test_what_the_engine_would_die_of_is_a_sentence(tmp_path: Path, name: str) -> None:
    path = write_changed(tmp_path / "deadly.gguf", DEADLY[name])
    run = localspec("generate", path, "-p", "Hi", "-n", "1", "--threads", "1")
    assert_refused(run, 1, "deadly.gguf is not loaded", "the engine would die of it")
    assert "stopped itself" not in run.stderr  # threads say it one after the other


@pytest.mark.parametrize("architecture", ["gemma3", "lfm2", "qwen35"])
def test_what_the_engine_would_hang_at_is_a_sentence(
    tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time: a machine that was busy is no verdict. The patience is shortened for the test."""
    monkeypatch.setattr("localspec.session.trial.PATIENCE_S", 3.0)
    path = tmp_path / "endless.gguf"
    write_random_limited(path, architecture)
    key = f"{architecture}.rope.dimension_count".encode()
    before, after = path.read_bytes().split(key)
    path.write_bytes(before + key + after[:4] + bytes(4) + after[8:])  # 32 bits behind their type
    facts = checked_facts(path)
    for _ in range(2):
        with pytest.raises(ModelError, match=r"endless.*hang \(a trial did not end within 3 s\)"):
            try_load(path, "endless.gguf", facts, silent)


def test_it_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the next time, when no child is needed."""
    path = write_changed(tmp_path / "deadly.gguf", DEADLY["a negative epsilon"])
    facts = checked_facts(path)
    with pytest.raises(ModelError, match=r"GGML_ASSERT"):
        try_load(path, "it", facts, silent)
    monkeypatch.setattr("localspec.session.trial.call", _never)
    with pytest.raises(ModelError, match=r"GGML_ASSERT"):
        try_load(path, "it", facts, silent)


def _never(*_: object, **__: object) -> None:
    raise AssertionError("a child was started for a file that is known")


def test_a_known_file_starts_without_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = checked_facts(tiny())
    try_load(tiny(), "it", facts, silent)
    monkeypatch.setattr("localspec.session.trial.call", _never)
    started = time.perf_counter()
    try_load(tiny(), "it", facts, silent)
    assert time.perf_counter() - started < 0.3


def test_a_child_that_somebody_else_ended_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory says nothing about the file: the engine may still load it."""
    facts = replace(checked_facts(tiny()), path="other")
    calls = 0

    def killed(*_: object, **__: object) -> object:
        nonlocal calls
        calls += 1
        return type("Killed", (), {"is_success": False, "is_killed": True, "is_timeout": False})

    monkeypatch.setattr("localspec.session.trial.call", killed)
    other = tiny().with_name("other.gguf")
    other.write_bytes(tiny().read_bytes() + b"other")
    for _ in range(2):
        try_load(other, "it", facts, silent)
    assert calls == 2


@pytest.mark.parametrize("kind", WRITE_TEXT)
def test_a_model_with_half_of_its_weights_ends_no_process(tmp_path: Path, kind: str) -> None:
    """Its header passes every check, and its layers lack what the graph takes for granted."""
    path = KINDS[kind](tmp_path / "file.gguf")
    run = localspec("generate", path, "-p", "Hi", "-n", "1", "--threads", "1")
    assert run.code == 1
    assert run.stderr.splitlines()[-1].startswith("localspec: ")
    assert "a bug in localspec" not in run.stderr
    assert "stopped itself" not in run.stderr


@pytest.mark.parametrize("free_bytes", [1 << 40, 0], ids=["evaluated", "built"])
def test_a_head_that_no_check_saw_dies_in_the_child(
    tmp_path: Path, free_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A segmentation fault of a file whose header is refused today, as of next month's heads; also
    where the memory is too small to touch its weights.
    """
    monkeypatch.setattr("localspec.session.trial.available_memory_bytes", lambda: free_bytes)
    path = write_mtp_head(tmp_path / f"mtp-Tiny-{free_bytes}.gguf")
    facts = ModelFacts.of(read_header(path))
    with path.open("ab") as file:  # a file of its own, of which no verdict is known
        file.write(b"0" * (1 + (free_bytes > 0)))
    with pytest.raises(ModelError, match="SIGSEGV"):
        try_load(path, "it", facts, silent)


def test_a_model_that_is_too_large_to_be_touched_is_let_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localspec.session.trial.available_memory_bytes", lambda: 0)
    path = tmp_path / "large.gguf"
    path.write_bytes(tiny().read_bytes() + b"large")
    try_load(path, "it", checked_facts(path), silent)
    monkeypatch.setattr("localspec.session.trial.call", _never)
    try_load(path, "it", checked_facts(path), silent)


def test_a_vocabulary_is_looked_at_until_the_engine_has_loaded_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(
        "localspec.model.usable.check_vocabulary",
        lambda header: looked.append(header.name) or Tokenizer.of(header),
    )
    monkeypatch.setattr("localspec.session.loading.has_loaded", lambda path: False)
    untried = checked_facts(tiny())
    monkeypatch.setattr("localspec.session.loading.has_loaded", lambda path: True)
    assert checked_facts(tiny()) == untried
    assert looked == [str(tiny())]


def test_weights_that_fail_to_load_early_tell_why(tmp_path: Path) -> None:
    """Loading is silent, so that it takes no lock; who fails tries again aloud."""
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny().read_bytes()[:4096])
    early = EarlyWeights(EngineConfig.of(path, ctx=256, threads=1), Interrupt(), None)
    with pytest.raises(ModelError, match=r"m\.gguf does not load: \w"):
        early.taken()
    early.drop()
    whole = EarlyWeights(EngineConfig.of(tiny(), ctx=256, threads=1), Interrupt(), None)
    whole.drop()
    with pytest.raises((Interrupted, AssertionError)):
        whole.taken()
