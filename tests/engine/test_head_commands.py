"""What commands make of a head that guesses wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest
from heads import write_agreeing

from localspec.engine.interrupt import Interrupt
from localspec.engine.timing import Clock
from localspec.session.config import SessionConfig
from localspec.settings import NONE, OWN
from localspec.tuning.duel import Way, tune_drafts
from localspec.tuning.state import SearchState
from localspec.tuning.target import Goal, TuneTarget, candidate_of

WRONG = 1.0
Written = Callable[[float], Path]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("deep")

    def write(noise: float) -> Path:
        path = folder / f"deep-{noise:g}.gguf"
        return path if path.exists() else write_agreeing(path, noise, "deep")

    return write


def test_tuning_keeps_no_head_that_guesses_wrong(written: Written) -> None:
    """It takes memory, and brings no more than lookups alone."""
    config = SessionConfig.of(written(WRONG), OWN, ctx=1024, threads=1, gpu_layers=0)
    subject, interrupt = TuneTarget.of(config, lambda message: None), Interrupt()
    work = SearchState(subject, Goal(), Clock(600.0), interrupt, lambda stage, *best: None)
    with work.stack:
        way: Way = tune_drafts(work, candidate_of(subject.config), OWN)
    assert not work.notes
    assert way["draft"] == NONE
