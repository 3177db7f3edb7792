"""`tune --draft own` keeps a head that is right and drops one that is wrong. A machine left alone
shows it: the command compares replies by the clock."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command import Run, localspec
from heads import write_agreeing

pytestmark = pytest.mark.engine


@pytest.fixture
def one_core() -> Iterator[None]:
    """Threads that wait for each other take ten times as long beside other programs."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)


N_VOCAB = 4096


def tuned(folder: Path, noise: float) -> Run:
    """The settings are found without time for caches, so that drafts get all of it. The model says
    each token of a large vocabulary before it comes back: of few tokens lookups learn all."""
    order = np.random.default_rng(11).permutation(N_VOCAB).tolist()
    path = write_agreeing(folder / "deep.gguf", noise, "deep", n_vocab=N_VOCAB, order=order)
    run = localspec(
        "tune", path, "--draft", "own", "--ctx", "512", "--for", "quality", "--budget", "60",
        "--json", LOCALSPEC_HOME=str(folder),
    )  # fmt: skip
    assert run.code == 0, run.stderr
    return run


@pytest.mark.usefixtures("one_core")
def test_tuning_keeps_a_head_that_guesses_right(tmp_path: Path) -> None:
    """Whole drafts stand, and a wide pass takes hardly longer than a narrow one."""
    run = tuned(tmp_path, 0.0)
    assert run.document["settings"].get("draft") == "own"


@pytest.mark.usefixtures("one_core")
def test_tuning_keeps_no_head_that_guesses_wrong(tmp_path: Path) -> None:
    """It takes memory, and brings no more than lookups alone."""
    run = tuned(tmp_path, 1.0)
    assert "draft" in run.document["settings"]
    assert run.document["settings"]["draft"] is None
