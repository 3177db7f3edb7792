"""Engine work in a child process, where a crash, an abort or Ctrl-C ends nothing else."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from localspec import errors as known

STOPPED = "the engine stopped itself"
"""How a process begins its last words when libllama asserts."""
PYTHON_M = (sys.executable, "-P", "-m")
"""Not from the current folder, which may hold another localspec."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended: its exit code (minus the signal that killed it), and its stderr."""

    code: int
    errors: str
    is_timeout: bool = False

    @property
    def is_success(self) -> bool:
        return self.code == 0

    @property
    def reason(self) -> str:
        """For an error message: the child's own last line, the signal's name, or the code."""
        if self.is_timeout:
            return "it did not end"
        if self.code < 0:
            return f"it died of {signal.Signals(-self.code).name}"
        return self._last_line.removeprefix("localspec: ") or f"it ended with code {self.code}"

    @property
    def is_killed(self) -> bool:
        """Whether somebody else ended it: the user, `timeout`, or the system for want of memory."""
        return not self.is_timeout and -self.code in (
            signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP,
        )  # fmt: skip

    def raise_known(self) -> None:
        """Raise the error of localspec's own that the child ended with, if it did."""
        name, _, sentence = self._last_line.removeprefix(f"{known.__name__}.").partition(": ")
        kind = getattr(known, name, None) if self.code > 0 and name.isidentifier() else None
        if kind:
            raise kind(sentence)

    @property
    def _last_line(self) -> str:
        return (self.errors.strip().splitlines() or [""])[-1]


def run_module(
    module: str, arguments: list[str], on_line: Callable[[str], None], limit_s: float | None = None
) -> Ending:
    """Run `python -m module` to its end and hand on its lines; it never outlives this call, nor do
    its temporary files: models of a gigabyte are among them.

    After `limit_s` it is killed, which `Ending.is_timeout` tells.
    """
    command = [*PYTHON_M, module, *arguments]
    late = threading.Event()
    with _kill_raises(), tempfile.TemporaryDirectory(prefix="localspec-") as folder, \
            tempfile.TemporaryFile("w+", errors="replace") as errors, subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
        text=True, errors="replace", env=os.environ | {"TMPDIR": folder},
    ) as child:  # fmt: skip
        assert child.stdout
        watch = threading.Timer(limit_s or 0, lambda: (late.set(), child.kill()))
        try:
            if limit_s is not None:
                watch.start()
            for line in child.stdout:
                on_line(line.rstrip("\n"))
            child.wait()
        except BaseException:
            child.kill()
            raise
        finally:
            watch.cancel()
        errors.seek(0)
        return Ending(child.returncode, errors.read(), is_timeout=late.is_set())


@contextmanager
def _kill_raises() -> Generator[None]:
    """Let SIGTERM, which `timeout` sends, and a terminal that closes end the child and clean up as
    Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [each for each in numbers if signal.getsignal(each) != signal.SIG_IGN]
    previous = {each: signal.signal(each, _interrupt) for each in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
