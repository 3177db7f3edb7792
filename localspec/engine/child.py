"""Engine work in a child process, where a crash, an abort or Ctrl-C ends nothing else."""

import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass


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
        last = self.errors.strip().splitlines()[-1:]
        return last[0].removeprefix("localspec: ") if last else f"it ended with code {self.code}"


def run_module(module: str, arguments: list[str], on_line: Callable[[str], None]) -> Ending:
    """Run `python -m module` to its end and hand on its lines; it never outlives this call."""
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="replace",
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
