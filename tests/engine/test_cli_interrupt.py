"""Ctrl-C: whatever a command is doing, it stops soon, says so, and keeps what it has."""

import signal
import time
from pathlib import Path

import psutil
import pytest
from command import ANSWER, assert_refused, finish, start, wait_for_cpu
from models import smollm2

from localspec.cli import main
from localspec.cli import main as app

PLAIN = (*ANSWER, "--spec", "none")
"""Nothing is calibrated at load, so that the reply is under way when it is interrupted."""
WELL_UNDER_WAY_S = 1.8
"""Of computing: starting and loading take half a second."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_quantize_leaves_nothing_when_it_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    process = start("quantize", smollm2(), "--to", "Q4_K_M", "-o", "x.gguf", cwd=tmp_path)
    while not list(tmp_path.glob(".x.gguf*")):
        assert process.poll() is None
        time.sleep(0.01)
    children = psutil.Process(process.pid).children()
    process.send_signal(number)
    assert_refused(finish(process), 1, "interrupted")
    assert not any(child.is_running() for child in children)
    assert not list(tmp_path.glob("*x.gguf*"))


@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.3, 0.4])
def test_ctrl_c_while_it_starts_is_a_sentence(tmp_path: Path, seconds: float) -> None:
    """Importing, loading or answering, which takes long: there is never a traceback."""
    asked = ("-p", "x", "--ignore-eos", "--json")
    process = start("generate", smollm2(), *PLAIN, *asked, cwd=tmp_path)
    wait_for_cpu(process, seconds)
    process.send_signal(signal.SIGINT)
    run = finish(process)
    assert (run.code, run.stderr) == (1, "localspec: interrupted\n")
    assert run.stdout == "" or run.document["finish_reason"] == "interrupted"


def test_ctrl_c_in_the_making_of_a_class_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python 3.11 wraps what a descriptor raises there, a Ctrl-C too."""

    def interrupted(_: list[str]) -> int:
        raise RuntimeError("Error calling __set_name__") from KeyboardInterrupt()

    monkeypatch.setattr(app, "invoke", interrupted)
    assert main.run(["list"]) == 1
    assert capsys.readouterr().err == "localspec: interrupted\n"


def test_ctrl_c_stops_a_long_prefill_at_once(tmp_path: Path) -> None:
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("The quick brown fox jumps over the lazy dog. " * 700)
    options = ("--ctx", "8192", "-f", prompt, "--json")
    process = start("generate", smollm2(), *PLAIN, *options, cwd=tmp_path)
    wait_for_cpu(process, WELL_UNDER_WAY_S)
    process.send_signal(signal.SIGINT)
    sent = time.monotonic()
    run = finish(process)
    assert time.monotonic() - sent < 3, "the rest of the prompt takes far longer"
    assert (run.code, run.stderr) == (1, "localspec: interrupted\n")
    document = run.document
    assert document["finish_reason"] == "interrupted"
    assert (document["tokens"], document["timings"]["ttft_s"]) == ([], None)


def test_ctrl_c_keeps_what_was_answered(tmp_path: Path) -> None:
    question = ("-p", "Tell me a long story.", "--ignore-eos")
    process = start("generate", smollm2(), *PLAIN, *question, "--json", cwd=tmp_path)
    wait_for_cpu(process, WELL_UNDER_WAY_S)
    process.send_signal(signal.SIGINT)
    run = finish(process)
    assert (run.code, run.stderr) == (1, "localspec: interrupted\n")
    document = run.document
    assert document["finish_reason"] == "interrupted"
    assert document["completion_tokens"] == len(document["tokens"]) > 0
    assert document["text"]


def test_ctrl_c_shows_what_was_answered(tmp_path: Path) -> None:
    question = ("-p", "Tell me a long story.", "--ignore-eos")
    process = start("generate", smollm2(), *PLAIN, *question, cwd=tmp_path)
    assert process.stdout
    begun = process.stdout.read1(100).decode()
    process.send_signal(signal.SIGINT)
    run = finish(process)
    assert run.code == 1
    assert begun
    assert run.stdout.endswith("\n")
    summary, last = run.stderr.splitlines()
    assert summary.endswith("ended by interrupted")
    assert last == "localspec: interrupted"
