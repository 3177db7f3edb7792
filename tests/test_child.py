"""A child that hangs, dies or floods must never take the session with it."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from localspec.engine.child import Ending, call
from localspec.errors import UserError

ROOT = str(Path(__file__).parents[1])


def function(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> str:
    """Of a module with that body."""
    body = "".join(f"    {line}\n" for line in code.splitlines())
    (folder / "the_child.py").write_text(f"def work(*arguments):\n{body}")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return "the_child:work"


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str, limit_s: float = 30) -> Ending:
    return call(function(folder, monkeypatch, code), limit_s=limit_s)


def test_what_it_says_and_returns_is_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what a library prints stands among its errors."""
    said: list[str] = []
    code = "path, say = arguments\nprint('noise', flush=True)\nsay(path.name)\nreturn path"
    path = tmp_path / "x"
    ending = call(function(tmp_path, monkeypatch, code), path, hear=said.append)
    assert ending.is_success
    assert said == ["x"]
    assert ending.result == path
    assert ending.errors == "noise\n"


def test_an_error_of_localspec_s_own_is_raised_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from localspec.errors import UserError\nraise UserError('no such file')"
    ending = run(tmp_path, monkeypatch, code)
    assert ending.result is None
    with pytest.raises(UserError, match=r"^no such file$"):
        ending.raise_known()


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
arguments[-1]("written")
time.sleep(60)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_who_is_ended_leaves_no_files_of_a_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A probe writes models of a gigabyte, and its user closes the window."""
    child = function(tmp_path, monkeypatch, WRITES)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = f"from localspec.engine.child import call; call({child!r}, hear=print)"
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


def test_a_child_ends_with_a_killed_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would disturb whoever measures next."""
    code = "import os, time\narguments[-1](os.getpid())\ntime.sleep(60)"
    child = function(tmp_path, monkeypatch, code)
    program = f"from localspec.engine.child import call; call({child!r}, hear=print)"
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), ROOT])},
    ) as process:  # fmt: skip
        assert process.stdout
        pid = int(process.stdout.readline())
        process.kill()
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(10)
