"""What commands make of heads that guess right, nearly, and wrong: each a process of its own."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command import localspec
from heads import write_agreeing

from localspec.engine.interrupt import Interrupt
from localspec.engine.timing import Clock
from localspec.session.session_config import SessionConfig
from localspec.settings import NONE, OWN
from localspec.tuning.duel import Way, tune_drafts
from localspec.tuning.state import SearchState
from localspec.tuning.target import Goal, TuneTarget, candidate_of

RIGHT, NEARLY, WRONG = 0.0, 0.2, 1.0
Written = Callable[[float], Path]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("dense")

    def write(noise: float) -> Path:
        path = folder / f"dense-{noise:g}.gguf"
        return path if path.exists() else write_agreeing(path, noise, "dense")

    return write


def test_tuning_keeps_no_head_that_guesses_wrong(written: Written) -> None:
    """It takes memory, and brings no more than lookups alone; the acceptance test of `tune` has the
    command, and a right one."""
    config = SessionConfig.of(written(WRONG), OWN, ctx=1024, threads=1, gpu_layers=0)
    subject, interrupt = TuneTarget.of(config, lambda message: None), Interrupt()
    work = SearchState(subject, Goal(), Clock(600.0), interrupt, lambda stage, *best: None)
    with work.stack:
        way: Way = tune_drafts(work, candidate_of(subject.config), OWN)
    assert not work.notes
    assert way["draft"] == NONE


QUESTION = "Tell me about the sea, the wind and the stars above them, please."


@pytest.mark.parametrize("noise", [RIGHT, NEARLY, WRONG])
def test_bench_tells_acceptance_by_place(written: Written, tmp_path: Path, noise: float) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"category": "sea", "turns": [QUESTION]}) + "\n")
    run = localspec(
        "bench", written(noise), "--spec", "none,mtp", "--draft", "own", "--draft-max", "4", "-p",
        "0", "-n", "48", "--prompts", questions, "--rounds", "1", "-r", "1", "-t", "1", "--probe",
        "off", "--json", "-o", tmp_path, LOCALSPEC_HOME=str(tmp_path / "home"),
    )  # fmt: skip
    assert run.code == 0, run.stderr
    rows = [row for row in run.document["rows"] if row["acceptance_by_position"]]
    assert rows
    assert {row["spec"] for row in rows} == {"mtp"}
    shares = rows[0]["acceptance_by_position"]
    assert all(0 <= share <= 1 for share in shares)
    if noise == RIGHT:
        assert shares == [1.0] * 4
    elif noise == WRONG:
        assert shares[0] < 0.2
    else:
        assert 0.2 < shares[0] < 0.9
