"""The command as users run it: a process of its own, on real and on small random models."""

import atexit
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
from babbling import write_babbling_model
from hybrids import MambaShape, write_random_mamba

from localspec.model.synthetic import Shape

LOCALSPEC = Path(sys.executable).with_name("localspec")
FORKED = (
    "HF_", "LOCALSPEC_", "XDG_", "OLLAMA_", "NO_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
    "SSL_CERT_", "NO_COLOR", "TERM", "COLUMNS",
)  # fmt: skip
"""Variables that are read when a command runs; others may decide how Python starts."""
ANSWER = ("--threads", "1", "--temp", "0")
SHAPE = Shape(n_layers=2, n_embd=64, n_heads=2, n_kv_heads=1, n_ff=128, n_vocab=320)


@dataclass(frozen=True, slots=True)
class Run:
    """How a command ended and what it said."""

    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> dict[str, Any]:
        """What `--json` printed."""
        return json.loads(self.stdout)


def localspec(
    *arguments: str | bytes | Path,
    stdin: bytes = b"",
    cwd: Path | None = None,
    **environment: str,
) -> Run:
    """Run one command to its end; `environment` is added to what every command gets.

    Where the engine is hidden, from a process that has imported what commands import.
    """
    if _may_fork(environment):
        return _forked(arguments, stdin, cwd, clean_environment() | environment)
    done = subprocess.run(
        [LOCALSPEC, *arguments],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=clean_environment() | environment,
        check=False,
        timeout=120,
    )
    return Run(done.returncode, done.stdout.decode(), done.stderr.decode())


def _may_fork(environment: dict[str, str]) -> bool:
    """Whether nothing is asked for that only a new Python would see: streams, module paths."""
    is_hidden = os.environ.get("PYTHONPATH", "").endswith("without_engine")
    return is_hidden and all(name.startswith(FORKED) for name in environment)


def _forked(
    arguments: Sequence[str | bytes | Path],
    stdin: bytes,
    cwd: Path | None,
    environment: dict[str, str],
) -> Run:
    request = {
        "arguments": [os.fsdecode(argument) for argument in arguments],
        "cwd": str(cwd or Path.cwd()),
        "environment": environment,
    }
    with (
        tempfile.TemporaryFile() as given,
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as err,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        given.write(stdin)
        given.seek(0)
        connection.settimeout(120)
        connection.connect(_server())
        files = [given.fileno(), out.fileno(), err.fileno()]
        socket.send_fds(connection, [json.dumps(request).encode() + b"\n"], files)
        code = int(connection.recv(64))
        out.seek(0)
        err.seek(0)
        return Run(code, out.read().decode(), err.read().decode())


@cache
def _server() -> str:
    """The address of a server of commands, started once for all tests."""
    address = str(folder() / "commands")
    script = Path(__file__).with_name("command_server.py")
    # In a session of its own, so that Ctrl-C at the terminal is not for it.
    process = subprocess.Popen(
        [sys.executable, "-B", script, address],
        stdin=subprocess.DEVNULL,
        env=clean_environment(),
        start_new_session=True,
    )
    atexit.register(process.kill)
    while not Path(address).exists():
        assert process.poll() is None, "the server of commands does not start"
        time.sleep(0.01)
    return address


def start_with_input(*arguments: str | bytes | Path) -> "subprocess.Popen[bytes]":
    """Start one command that a test is going to write to and to interrupt."""
    return start(*arguments, stdin=subprocess.PIPE)


def start(
    *arguments: str | bytes | Path, cwd: Path | None = None, stdin: int = subprocess.DEVNULL
) -> "subprocess.Popen[bytes]":
    """Start one command that a test is going to interrupt, by default without standard input."""
    return subprocess.Popen(
        [LOCALSPEC, *arguments],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=clean_environment(),
    )


def finish(process: "subprocess.Popen[bytes]") -> Run:
    """Wait for what `start` started."""
    stdout, stderr = process.communicate(timeout=60)
    return Run(process.returncode, stdout.decode(), stderr.decode())


def wait_for_cpu(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Return when the process has computed that long, however busy the machine is."""
    watched = psutil.Process(process.pid)
    while sum(watched.cpu_times()[:2]) < seconds:
        assert process.poll() is None, "it ended before it could be interrupted"
        time.sleep(0.01)


def assert_refused(run: Run, code: int, *words: str) -> None:
    """One sentence that says what is wrong, nothing on stdout, and the exit code of its kind."""
    assert run.stdout == ""
    lines = run.stderr.splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("localspec: ")
    assert "a bug in localspec" not in lines[0]
    for word in words:
        assert word in lines[0]
    assert run.code == code, lines[0]


def clean_environment() -> dict[str, str]:
    """No network, no debugging, nothing of the user's; conftest.py gives every test a home."""
    dropped = ("COLUMNS", "NO_COLOR", "LOCALSPEC_DEBUG")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder() / "hub"),
        # Threads that spin while they wait stop one another where the cores are shared.
        "OMP_WAIT_POLICY": "passive",
    }


@cache
def folder() -> Path:
    """Where the models of this test run are."""
    path = Path(tempfile.mkdtemp(prefix="localspec-tests-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@cache
def tiny() -> Path:
    """A model that answers nonsense at once."""
    path = folder() / "tiny.gguf"
    write_babbling_model(path, SHAPE, "F16")
    return path


@cache
def mamba() -> Path:
    """A model whose memory cannot take back a token."""
    path = folder() / "mamba.gguf"
    write_random_mamba(path, MambaShape(n_embd=64, n_vocab=320), "F16")
    return path
