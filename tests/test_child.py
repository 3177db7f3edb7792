"""A child that hangs, dies or floods must never take the session with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from localspec.engine.child import Ending, run_module

ROOT = str(Path(__file__).parents[1])


def module(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> str:
    (folder / "the_child.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "the_child"


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, limit_s: float = 30) -> Ending:
    name = module(folder, monkeypatch, code)
    return run_module(name, [], lambda line: None, limit_s)


def test_lines_are_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    name = module(tmp_path, monkeypatch, "import sys\nprint(1)\nprint(sys.argv[1])")
    assert run_module(name, ["x"], lines.append).is_success
    assert lines == ["1", "x"]


def test_a_child_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending = run(tmp_path, monkeypatch, "import time\ntime.sleep(60)", limit_s=0.5)
    assert ending.is_timeout
    assert not ending.is_success
    assert not ending.is_killed
    assert ending.reason == "it did not end"


def test_a_flood_of_errors_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys\nsys.stderr.write('x' * 1_000_000 + '\\nlast words\\n')\nsys.exit(3)"
    assert run(tmp_path, monkeypatch, code).reason == "last words"


@pytest.mark.parametrize(("number", "by_others"), [("SIGKILL", True), ("SIGSEGV", False)])
def test_a_crash_is_told_from_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str, by_others: bool
) -> None:
    """Out of memory says nothing about a build; a segmentation fault does."""
    code = f"import os, signal\nos.kill(os.getpid(), signal.{number})"
    ending = run(tmp_path, monkeypatch, code)
    assert ending.code == -signal.Signals[number]
    assert ending.is_killed == by_others
    assert ending.reason == f"it died of {number}"


WRITES = """
import pathlib, sys, tempfile, time
pathlib.Path(tempfile.mkdtemp(), "probe.gguf").write_bytes(b"x" * 1000)
print("written", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_who_is_ended_leaves_no_files_of_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A probe writes models of a gigabyte, and its user closes the window."""
    child = module(tmp_path, monkeypatch, WRITES)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = f"from localspec.engine.child import run_module; run_module({child!r}, [], print)"
    environment = {"TMPDIR": str(temporary), "PYTHONPATH": os.pathsep.join([str(tmp_path), ROOT])}
    # A shell that ignores Ctrl-C for its jobs, or nohup, would have them ignored here, too.
    with subprocess.Popen(
        [sys.executable, "-u", "-c", f"import signal\nsignal.signal(signal.{name},"
         f" signal.default_int_handler if {name!r} == 'SIGINT' else signal.SIG_DFL)\n{code}"],
        env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == b"written\n"
        assert list(temporary.rglob("probe.gguf"))
        process.send_signal(signal.Signals[name])
        process.wait(30)
    assert not list(temporary.iterdir())
