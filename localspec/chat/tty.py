"""The terminal while an answer comes: keys are not echoed into it, and wait for the next prompt.

When the user suspends the program (Ctrl-Z), the terminal goes back to what the shell had. The pause
is measured, because it is not the engine's time.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from time import perf_counter
from types import FrameType
from typing import Any, TextIO

from localspec.chat.answering import AnswerView
from localspec.decode.step import Step
from localspec.dialogue.markup import AnswerPart, Opening
from localspec.display import printable

LOCAL_FLAGS = 3


def terminal_size() -> os.terminal_size:
    """The terminal's size now, whatever COLUMNS says; 80 x 24 for a serial line, which has none."""
    try:
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns, lines = 0, 0
    return os.terminal_size((columns or 80, lines or 24))


class Quiet:
    """Turns the echo of keys off; `paused_s` adds up suspensions."""

    def __init__(self) -> None:
        self.paused_s = 0.0
        self._old: list[Any] | None = None

    def enter(self) -> None:
        """Turn the echo off."""
        import termios  # noqa: PLC0415 - of Unix alone, as are chats in a terminal

        try:
            self._old = termios.tcgetattr(sys.stdin)
            quiet = termios.tcgetattr(sys.stdin)
            quiet[0] &= ~termios.ICRNL
            quiet[LOCAL_FLAGS] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
        except termios.error:
            self._old = None

    def leave(self) -> None:
        """Turn the echo on again, if it was."""
        if self._old is not None:
            import termios  # noqa: PLC0415

            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._old)
            self._old = None

    def suspend(self, number: int, frame: FrameType | None) -> None:
        """Obey SIGTSTP: give the terminal back, stop, and take it again."""
        self.leave()
        started = perf_counter()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self.suspend)
        self.paused_s += perf_counter() - started
        self.enter()


@contextmanager
def quiet_terminal() -> Generator[Quiet]:
    """Keep keys for later while it lasts; Ctrl-Z leaves the terminal in order."""
    quiet = Quiet()
    quiet.enter()
    before = signal.getsignal(signal.SIGTSTP)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGTSTP, quiet.suspend)
    try:
        yield quiet
    finally:
        if before != signal.SIG_IGN:
            signal.signal(signal.SIGTSTP, before)
        quiet.leave()


DELAY_S = 0.4
INTERVAL_S = 0.2
ERASE = "\r\x1b[K"


class Waiting:
    """A dim line that says what the program waits for: `text()`, after a moment, until `stop`."""

    def __init__(self, out: TextIO, text: Callable[[], str]) -> None:
        self._out = out
        self._text = text
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Erase the line; a second call does nothing."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._thread.join()

    def _run(self) -> None:
        if self._stopped.wait(DELAY_S):
            return
        while True:
            self._write(f"\r\x1b[2m{printable(self._text())}\x1b[0m\x1b[K")
            if self._stopped.wait(INTERVAL_S):
                break
        self._write(ERASE)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


class WatchedView:
    """A `view` at a terminal: keys are quiet, and a line says what is waited for at first.

    `quiet` is closed by whoever reads the next keys, so that none is echoed below the answer.
    """

    def __init__(self, view: AnswerView, wait: Callable[[int], Waiting], quiet: ExitStack) -> None:
        self._view = view
        self._wait = wait
        self._waiting: Waiting | None = None
        self._terminal = quiet
        self._quiet: Quiet | None = None

    @property
    def paused_s(self) -> float:
        """Seconds in which the program was suspended meanwhile."""
        return self._quiet.paused_s if self._quiet else 0.0

    def begin(self, opening: Opening, n_prompt: int) -> None:
        """The engine begins to read the prompt."""
        self._quiet = self._terminal.enter_context(quiet_terminal())
        self._view.begin(opening, n_prompt)
        self._waiting = self._wait(n_prompt)

    def write(self, parts: Sequence[AnswerPart], step: Step | None) -> None:
        """Show them; the wait is over."""
        self._stop_waiting()
        self._view.write(parts, step)

    def end(self) -> None:
        """The answer is over."""
        self._stop_waiting()
        self._view.end()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.stop()
            self._waiting = None
