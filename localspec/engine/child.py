"""Engine work in a child process, where a crash, an abort or Ctrl-C ends nothing else."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from localspec import errors as known


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended: its exit code (minus the signal that killed it), and its stderr."""

    code: int
    errors: str

    @property
    def is_success(self) -> bool:
        return self.code == 0

    @property
    def reason(self) -> str:
        """For an error message: the child's own last line, the signal's name, or the code."""
        if self.code < 0:
            return f"it died of {signal.Signals(-self.code).name}"
        return self._last_line.removeprefix("localspec: ") or f"it ended with code {self.code}"

    def raise_known(self) -> None:
        """Raise the error of localspec's own that the child ended with, if it did."""
        name, _, sentence = self._last_line.removeprefix(f"{known.__name__}.").partition(": ")
        kind = getattr(known, name, None) if self.code > 0 and name.isidentifier() else None
        if kind:
            raise kind(sentence)

    @property
    def _last_line(self) -> str:
        return (self.errors.strip().splitlines() or [""])[-1]


def run_module(module: str, arguments: list[str], on_line: Callable[[str], None]) -> Ending:
    """Run `python -m module` to its end and hand on its lines; it never outlives this call."""
    command = [sys.executable, "-m", module, *arguments]
    # Threads that spin while they wait take 60 times as long where another process wants a core.
    environment = {"OMP_WAIT_POLICY": "passive"} | os.environ
    with _kill_raises(), subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="replace", env=environment,
    ) as child:  # fmt: skip
        assert child.stdout
        assert child.stderr
        try:
            for line in child.stdout:
                on_line(line.rstrip("\n"))
            errors = child.stderr.read()
        except BaseException:
            child.kill()
            raise
    return Ending(child.returncode, errors)


@contextmanager
def _kill_raises() -> Generator[None]:
    """Let SIGTERM, which `timeout` sends, end the child and clean up as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
