"""A worker that is killed at any moment of an answer: nothing said is lost, and the rest goes on.

`LOCALSPEC_KILLS=10` tries as many moments of each command; the default is short.
"""

import json
import os
import random
import subprocess
import time
from collections.abc import Sequence
from itertools import pairwise

import pytest
from command import LOCALSPEC, clean_environment, localspec
from models import smollm2
from working import Running, free_port

from localspec import tune
from localspec.errors import EngineError, UserError
from localspec.session.profile import find_profile
from localspec.session.session_config import SessionConfig
from localspec.settings import Settings
from localspec.tuning.search import tune_model
from localspec.tuning.target import Goal

KILLS = int(os.environ.get("LOCALSPEC_KILLS", "1"))
MOMENTS = [random.Random(i).random() for i in range(KILLS)]
PLAIN = ("--temp", "0", "--spec", "none", "--threads", "1", "--no-repack")
STORY = "Tell me a long story about a fox and a hen."
ENDS_WITHIN_S = 20.0
"""After the kill. A chat has a model to load again."""


def started(running: Running, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [LOCALSPEC, *arguments, "--workers", running.address], env=clean_environment(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def killed_at(share: float, whole_s: float, arguments: Sequence[str], said: str = "") -> list[str]:
    """stdout, stderr and exit code of a command whose worker is killed on the way."""
    running = Running(free_port())
    command = started(running, *arguments)
    try:
        if said and command.stdin:
            command.stdin.write(said)
            command.stdin.close()
            command.stdin = None
        time.sleep(share * whole_s)
        running.kill()
        killed = time.monotonic()
        out, errors = command.communicate(timeout=whole_s + ENDS_WITHIN_S)
        assert command.returncode in (0, 1, 2), errors
        assert "Traceback" not in errors
        assert time.monotonic() - killed < whole_s + ENDS_WITHIN_S
    finally:
        command.kill()
        running.kill()
    return [out, errors, str(command.returncode)]


def whole(arguments: Sequence[str]) -> tuple[str, float]:
    """What a command says with its worker alive, and its seconds."""
    running = Running(free_port())
    begun = time.monotonic()
    try:
        run = localspec(*arguments, "--workers", running.address)
    finally:
        running.kill()
    assert run.code == 0, run.stderr
    return run.stdout, time.monotonic() - begun


def test_generate_keeps_what_it_printed_and_ends_with_a_sentence() -> None:
    arguments = ["generate", smollm2(), *PLAIN, "-p", STORY, "-n", "80"]
    text, seconds = whole(arguments)
    for share in MOMENTS:
        out, errors, code = killed_at(share, seconds, arguments)
        assert text.startswith(out.rstrip("\n"))
        if code != "0":
            assert errors.rstrip().count("localspec: ") >= 1
            assert "worker" in errors or "was lost" in errors


def test_chat_answers_the_next_message_and_forgets_nothing() -> None:
    arguments = ["chat", smollm2(), *PLAIN, "--json-lines", "--no-save", "-n", "60"]
    said = f"{STORY}\nMy name is Ada.\nWhat is my name?\n"
    for share in MOMENTS:
        out, errors, code = killed_at(0.3 + 0.7 * share, 8.0, arguments, said)
        events = [json.loads(line) for line in out.splitlines()]
        answers = [event for event in events if event["event"] == "answer"]
        asked = [answer["n_prompt"] for answer in answers]
        assert all(one < later for one, later in pairwise(asked)), "each turn holds the one before"
        if code == "0":
            assert answers[-1]["finish_reason"] in ("stop", "length")
        else:
            # The worker was lost before the first message, or in the last answer.
            notes = [event["text"] for event in events if event["event"] == "note"]
            reasons = [errors, *notes]
            assert any("worker" in each or "was lost" in each for each in reasons), out[-500:]


@pytest.mark.slow
def test_bench_ends_in_order_and_keeps_its_results() -> None:
    arguments = ["bench", smollm2(), "-p", "32", "-n", "16", "-d", "0,64", "--rounds", "1",
                 "-r", "1", "--threads", "1", "--probe", "off", "--json"]  # fmt: skip
    text, seconds = whole(arguments)
    assert len(json.loads(text)["rows"]) == 2
    for share in MOMENTS:
        out, errors, code = killed_at(share, seconds, arguments)
        if code != "0":
            assert "localspec: " in errors
            assert out == "" or json.loads(out)
        else:
            assert json.loads(out)["rows"]


def test_a_search_in_this_process_raises_and_ends_nothing() -> None:
    """Python's users tune in their own program, which must outlive a worker."""
    running = Running(free_port())
    config = SessionConfig.of(
        smollm2(), ctx=512, threads=1, workers=(running.address,), gpu_layers=5
    )
    stages: list[str] = []

    def listen(stage: str, best: Settings | None, gain: float | None) -> None:
        stages.append(stage)
        if len(set(stages)) == 2:
            running.kill()

    with pytest.raises(EngineError, match=f"{running.address} was lost .* tune again"):
        tune_model(config, Goal(), 20.0, listen=listen)
    assert len(set(stages)) >= 2, "it was lost in the search"
    assert find_profile(smollm2()).profile is None


def test_a_search_on_a_worker_ends_with_a_profile() -> None:
    running = Running(free_port())
    try:
        profile = tune(smollm2(), budget=4.0, ctx=512, draft="none", workers=[running.address])
    finally:
        running.kill()
    assert profile.ratio[1] >= 1.0
    assert find_profile(smollm2()).profile == profile
    with pytest.raises(UserError, match=running.address):
        tune(smollm2(), budget=4.0, ctx=512, draft="none", workers=[running.address])
