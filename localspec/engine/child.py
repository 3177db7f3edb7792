"""Functions called in a child process, where a crash, an abort or Ctrl-C ends nothing else.

One way for all that is measured, tried or written apart: a function of any module gets its
arguments and `say`; what it says arrives at once, and what it returns at its end. Plain values
cross, pickled. The child ends with its input, and so does not outlive this process, not even one
that is killed.
"""

import importlib
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any, NoReturn

from localspec import errors as known

STOPPED = "the engine stopped itself"
"""How a process begins its last words when libllama asserts."""
PYTHON = (sys.executable, "-P")
"""Not from the current folder, which may hold another localspec."""
_PROGRAM = "from localspec.engine.child import answer; answer()"

Say = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Ending:
    """How a child ended: its exit code (minus the signal that killed it), its stderr, and what the
    function returned."""

    code: int
    errors: str
    is_timeout: bool = False
    result: Any = None

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

    def raise_unmeasured(self) -> NoReturn:
        """Raise why nothing was measured."""
        self.raise_known()
        raise known.EngineError(
            f"the engine could not be measured ({self.reason}): `localspec doctor` explains it"
        )

    @property
    def _last_line(self) -> str:
        return (self.errors.strip().splitlines() or [""])[-1]


def call(
    function: str,
    *arguments: Any,
    hear: Say = lambda *_: None,
    limit_s: float | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Ending:
    """Call `module:function` in a child, with `say` as its last argument; `hear` gets what it says.

    Its temporary files never outlive this call: models of a gigabyte are among them. After
    `limit_s` it is killed, which `Ending.is_timeout` tells. `meanwhile` is done here once it runs.
    """
    late = threading.Event()
    with _kill_raises(), tempfile.TemporaryDirectory(prefix="localspec-") as folder, \
            tempfile.TemporaryFile("w+", errors="replace") as errors, subprocess.Popen(
        [*PYTHON, "-c", _PROGRAM, function], env=os.environ | {"TMPDIR": folder},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
    ) as child:  # fmt: skip
        assert child.stdin
        assert child.stdout
        watch = threading.Timer(limit_s or 0, lambda: (late.set(), child.kill()))
        try:
            if limit_s is not None:
                watch.start()
            with suppress(BrokenPipeError):  # a child that has died says why at its end
                os.write(child.stdin.fileno(), pickle.dumps(arguments))
            meanwhile()
            result = _heard(child.stdout, hear)
            child.wait()
        except BaseException:
            child.kill()
            raise
        finally:
            watch.cancel()
        errors.seek(0)
        return Ending(child.returncode, errors.read(), late.is_set(), result)


def _heard(output: IO[bytes], hear: Say) -> Any:
    """What the function returned; None where it did not come that far."""
    while True:
        try:
            is_end, values = pickle.load(output)
        except (EOFError, pickle.UnpicklingError):  # the latter in the middle of a word
            return None
        if is_end:
            return values
        hear(*values)


def answer() -> None:
    """The child's side: do what the first argument and the input ask for."""
    # What anybody else prints must not stand among the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as output:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

        def tell(*word: Any) -> None:
            pickle.dump(word, output)
            output.flush()

        arguments = pickle.load(sys.stdin.buffer)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        module, _, name = sys.argv[1].partition(":")
        function = getattr(importlib.import_module(module), name)
        tell(True, function(*arguments, lambda *values: tell(False, values)))


def _end_with_parent() -> None:
    """A killed parent cannot end this process, which would disturb others."""
    os.read(0, 1)
    os._exit(1)


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
