"""Runs one long command: its output to a log, one line of progress to the user, no survivors.

The command gets its own process group, so that Ctrl-C, a failure or a closed terminal ends the
compilers that it started as well.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

TAIL_LINES = 20
_LINE_WIDTH = 160
_PIP_EPILOGUE = "error: subprocess-exited-with-error"
_POLL_S = 0.2
_QUIET_LINE_S = 30.0
_GRACE_S = 10.0
# Set for the caller's Python, wrong for another one's pip.
_NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "__PYVENV_LAUNCHER__", "PIP_USER", "PIP_TARGET")


class SetupError(Exception):
    """One sentence for the user, perhaps with the end of a log below it."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command line, what it is for, and the variables it needs beside the user's own."""

    label: str
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()

    def as_shell(self) -> str:
        """The line that does the same when pasted into a shell."""
        assignments = [f"{name}={shlex.quote(value)}" for name, value in self.environment]
        return " ".join([*assignments, shlex.join(self.argv)])


def say(text: str) -> None:
    """Talk goes to stderr; stdout is for what other programs read."""
    print(text, file=sys.stderr, flush=True)


def output_of(*command: str) -> str | None:
    """What a short command prints; None where it is absent, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def run(command: Command, log: Path) -> None:
    """Run to the end, or raise SetupError with the last lines of the log and where it is kept."""
    log.parent.mkdir(parents=True, exist_ok=True)
    inherited = {k: v for k, v in os.environ.items() if k not in _NOT_INHERITED}
    with log.open("w", encoding="utf-8") as output:
        output.write(f"$ {command.as_shell()}\n")
        output.flush()
        try:
            process = subprocess.Popen(
                command.argv,
                env=inherited | dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise SetupError(f"{command.label} could not start: {error}.") from error
        with _no_survivors(process), _Progress(command.label, log) as progress:
            while process.poll() is None:
                progress.show()
                time.sleep(_POLL_S)
    if process.returncode != 0:
        raise SetupError(f"{command.label} failed; the whole log is {log}\n{_tail(log)}")


@contextlib.contextmanager
def _no_survivors(process: subprocess.Popen[bytes]) -> Generator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask first, as Ctrl-C would: pip then removes its own temporary folders."""
    if os.name == "nt":
        process.kill()
        process.wait()
        return
    for number in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_S)
    # The leader may be gone while a compiler still runs: the second signal above reached it.


class _Progress:
    """`label ... 1:23 (120 of 144)`: rewritten in place on a terminal, now and then elsewhere."""

    def __init__(self, label: str, log: Path) -> None:
        self._label = label
        self._log = log
        self._started_s = time.monotonic()
        self._next_s = 1.0 if sys.stderr.isatty() else _QUIET_LINE_S

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def show(self) -> None:
        elapsed_s = time.monotonic() - self._started_s
        if elapsed_s < self._next_s:
            return
        minutes, seconds = divmod(int(elapsed_s), 60)
        line = f"  {self._label} ... {minutes}:{seconds:02d}{self._files_done()}"
        if sys.stderr.isatty():
            self._next_s = elapsed_s + 1.0
            sys.stderr.write(f"\r\033[K{line}")
            sys.stderr.flush()
        else:
            self._next_s = elapsed_s + _QUIET_LINE_S
            say(line)

    def _files_done(self) -> str:
        """Ninja's last `[120/144]`, if the command is a build that writes it."""
        with self._log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 2**16))
            marks = re.findall(rb"^\s*\[(\d+)/(\d+)\] ", log.read(), re.MULTILINE)
        return f" ({int(marks[-1][0])} of {int(marks[-1][1])} files)" if marks else ""


def _tail(log: Path) -> str:
    """The last lines that say something: pip's own epilogue to a failed build is not among them."""
    text = log.read_text(encoding="utf-8", errors="replace").partition(_PIP_EPILOGUE)[0]
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(f"    {line[:_LINE_WIDTH]}" for line in lines[-TAIL_LINES:])
