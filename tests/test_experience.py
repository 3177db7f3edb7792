"""Runs of this machine correct its predictions, held to the probe by how few they are."""

from dataclasses import replace
from math import inf
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localspec.bench import prediction
from localspec.bench.case import Case, Work
from localspec.bench.sample import Measurement, Sample
from localspec.forecast.experience import Experience
from localspec.forecast.machine import PredictedMachine
from localspec.gguf.reader import read_header
from localspec.model.facts import ModelFacts
from localspec.model.synthetic import Shape, write_random_model
from localspec.prediction.rates import IdealRates
from localspec.session.session_config import SessionConfig
from localspec.settings import Attention, Settings

MACHINE = PredictedMachine("made up", "made up", IdealRates(1e10, 1e12), 1e10)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> ModelFacts:
    path = tmp_path_factory.mktemp("model") / "small.gguf"
    write_random_model(path, Shape(n_layers=4, n_ctx=8192))
    return ModelFacts.of(read_header(path))


def test_nothing_that_ran_changes_nothing(facts: ModelFacts) -> None:
    assert Experience().factor(facts) == 1.0
    assert Experience().notes == ()


@given(st.floats(0.6, 1.9))
def test_more_runs_move_a_prediction_further(facts: ModelFacts, ratio: float) -> None:
    experience, before = Experience(), 1.0
    for i in range(4):
        experience = experience.with_run(replace(facts, name=f"model {i}"), ratio)
        factor = experience.factor(facts)
        assert min(before, ratio) - 1e-9 <= factor <= max(before, ratio) + 1e-9
        before = factor
    own = experience.with_run(facts, ratio).factor(facts)
    assert abs(own - ratio) <= abs(before - ratio) + 1e-9


def test_the_prediction_is_corrected_and_says_so(facts: ModelFacts) -> None:
    slow = Experience().with_run(facts, 1.5)
    machine = replace(MACHINE, experience=slow)
    plain = MACHINE.roofline(facts, Attention()).decode(0).mid
    corrected = machine.roofline(facts, Attention()).decode(0).mid
    assert corrected == pytest.approx(plain / slow.factor(facts))
    assert plain / 1.5 < corrected < plain
    assert "50 %" in slow.notes[0].replace("\u00a0", " ")
    assert "longer" in slow.notes[0]


def test_what_is_kept_comes_back_and_damage_is_refused(facts: ModelFacts) -> None:
    known = Experience().with_run(facts, 1.25)
    assert Experience.from_json(known.to_json()) == known
    for ratio in (0.0, -1.0, inf):
        with pytest.raises(ValueError, match="positive"):
            Experience.from_json({"ratios": {"a": ratio}})


def test_a_bench_of_plain_decoding_corrects_later_predictions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By the time in the engine; drafts and several users say nothing of plain passes."""
    path = tmp_path / "small.gguf"
    write_random_model(path, Shape(n_layers=4, n_ctx=8192))
    roofline = MACHINE.roofline(prediction.facts_of(path), Attention())
    taught: list[tuple[float, float]] = []
    monkeypatch.setattr(
        prediction.Expectation, "of", classmethod(lambda cls, *_: cls(roofline, None))
    )
    monkeypatch.setattr(prediction, "remember", lambda _, __, *found: taught.append(found))
    for spec, batch in (("none", 1), ("lookup", 1), ("none", 2)):
        case = Case(SessionConfig(path, Settings(spec=spec, threads=1)), Work(batch=batch))
        prediction.learn(case, Measurement((Sample(engine_s=3.0, n_passes=6),)).plain_s)
    assert taught == [(roofline.seconds(1, 64), 0.5)]
    assert Measurement((Sample(engine_s=3.0, n_passes=6, drafted=2),)).plain_s is None
