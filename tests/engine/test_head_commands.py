"""What commands say of heads that are right by construction, and of noisy ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command import localspec
from head_reference import arrays, mtp_guess
from heads import ORDER, write_agreeing

from localspec.engine.interrupt import Interrupt
from localspec.session.config import SessionConfig
from localspec.settings import NONE, OWN
from localspec.tuning.duel import Way, tune_drafts
from localspec.tuning.state import Clock, SearchState
from localspec.tuning.target import Goal, TuneTarget, candidate_of

RIGHT, NOISY, WRONG = 0.0, 0.25, 1.0
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


@pytest.mark.parametrize("noise", [RIGHT, NOISY])
def test_bench_tells_acceptance_by_place(written: Written, tmp_path: Path, noise: float) -> None:
    """All of a right head's; of a noisy one the first place as its matrices say."""
    model = written(noise)
    options = ["--draft", "own", "--spec", "mtp", "--draft-max", "3", "-p", "0", "-n", "150"]
    cheap = ["-r", "1", "--rounds", "1", "--probe", "off", "-t", "1", "--ctx", "512"]
    run = localspec("bench", model, *options, *cheap, "-o", tmp_path, "--json")
    assert run.code == 0, run.stderr
    (row,) = (each for each in run.document["rows"] if each["spec"] == "mtp")
    places = row["acceptance_by_position"]
    assert len(places) == 3
    if noise == RIGHT:
        assert places == [1.0, 1.0, 1.0]
    else:
        assert places[0] == pytest.approx(right_share(model), abs=0.12)
    table = localspec("report", tmp_path).stdout
    assert " ".join(f"{100 * place:.0f}" for place in places) in table


def right_share(model: Path) -> float:
    """Of all tokens in their order, how often the head guesses the next one."""
    weights = arrays(model)
    threes = zip(ORDER, ORDER[1:], ORDER[2:], strict=False)
    return float(np.mean([mtp_guess(weights, weights, *pair) == then for *pair, then in threes]))
