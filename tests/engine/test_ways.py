"""The measurement of ways through the real engine, and a draft that is loaded once."""

from collections import Counter
from dataclasses import replace

import pytest
from models import smollm2

from localspec.engine.llama import parameters
from localspec.engine.ways import WayQuestion, measured_ways
from localspec.session.config import SessionConfig
from localspec.session.session import Session


def test_each_way_has_its_times() -> None:
    question = WayQuestion("Q8_0", (9, 3, 64), (1, 2))
    found = measured_ways(question, lambda: None)
    assert {way.key for way in found.weights["Q8_0"]} == {
        (repack, n) for repack in (True, False) for n in (1, 2)
    }
    assert all(0 < way.read_s < way.token_s for way in found.weights["Q8_0"])
    kernels = found.attention["9/3/64"]
    assert {way.key for way in kernels} == {
        (flash, kind) for flash in (True, False) for kind in ("f16", "q8_0")
    }
    assert all(way.deep_token_s > 0 < way.deep_read_s for way in kernels)


def test_target_and_draft_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: Counter[str] = Counter()
    load = parameters.load_model

    def counted(config, *rest):  # type: ignore[no-untyped-def]
        loaded[config.model.name] += 1
        return load(config, *rest)

    monkeypatch.setattr("localspec.engine.llama.engine.load_model", counted)
    opened = frozenset({"flash_attn", "threads", "threads_batch", "repack"})
    config = replace(SessionConfig.of(smollm2(), smollm2(), ctx=256), open=opened)
    with Session.open(config) as session:
        assert session.draft
    assert loaded == {smollm2().name: 2}
