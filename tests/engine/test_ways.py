"""The measurement of ways through the real engine, and a draft that is loaded once."""

from collections import Counter
from dataclasses import replace

import pytest
from models import smollm2

from localspec.engine.llama import parameters
from localspec.engine.ways import TRIES, WayQuestion, measured_ways
from localspec.session.config import SessionConfig
from localspec.session.session import Session


def test_each_way_has_its_times() -> None:
    question = WayQuestion("Q8_0", (9, 3, 64), (1, 2))
    found = measured_ways(question, lambda: None)
    assert {way.key for way in found.weights["Q8_0"]} == {
        (*loading, n) for loading in question.loadings for n in (1, 2)
    }
    assert all(0 < way.read_s < way.token_s for way in found.weights["Q8_0"])
    kernels = found.attention["9/3/64"]
    assert {way.key for way in kernels} == {
        (flash, kind, "f16") for flash in (True, False) for kind in ("f16", "q8_0")
    }
    assert all(way.deep_token_s > 0 < way.deep_read_s for way in kernels)


def test_types_that_somebody_chose_are_measured_beside_the_usual() -> None:
    usual = WayQuestion(None, (9, 3, 64), (1,))
    chosen = replace(usual, types=("bf16", "q8_0"))
    measured_ways(usual, lambda: None)
    asked: list[bool] = []
    for question in (chosen, chosen, usual):
        found = measured_ways(question, lambda: asked.append(True))
    keys = {way.key for way in found.attention["9/3/64"]}
    assert (True, "bf16", "q8_0") in keys
    assert (False, "bf16", "q8_0") not in keys, "the plain kernel has no quantized values"
    assert (False, "f16", "f16") in keys
    assert len(asked) <= TRIES


def test_target_and_draft_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: Counter[str] = Counter()
    load = parameters.load_model

    def counted(config, *rest):  # type: ignore[no-untyped-def]
        loaded[config.model.name] += 1
        return load(config, *rest)

    for module in ("engine", "early"):
        monkeypatch.setattr(f"localspec.engine.llama.{module}.load_model", counted)
    opened = frozenset({"flash_attn", "threads", "threads_batch", "repack", "mmap"})
    config = replace(SessionConfig.of(smollm2(), smollm2(), ctx=256), open=opened)
    with Session.open(config) as session:
        assert session.draft
    assert loaded == {smollm2().name: 2}
