"""The terminal while an answer comes: keys are not echoed into it, and wait for the next prompt.

Suspended (Ctrl-Z), the terminal goes back to what the shell had, and afterwards the pause is known:
it is not the engine's time.
"""

import os
import signal
import sys
import termios
from collections.abc import Generator
from contextlib import contextmanager
from time import perf_counter
from types import FrameType
from typing import Any

LOCAL_FLAGS = 3


def terminal_size() -> os.terminal_size:
    """Of the terminal as it is now, whatever COLUMNS says. A serial line says 0 x 0."""
    try:
        columns, lines = os.get_terminal_size(sys.stdout.fileno())
    except OSError:
        columns, lines = 0, 0
    return os.terminal_size((columns or 80, lines or 24))


class Quiet:
    """No echo; `paused_s` adds up suspensions."""

    def __init__(self) -> None:
        self.paused_s = 0.0
        self._old: list[Any] | None = None

    def enter(self) -> None:
        """Turn the echo off."""
        try:
            self._old = termios.tcgetattr(sys.stdin)
            quiet = termios.tcgetattr(sys.stdin)
            quiet[0] &= ~termios.ICRNL
            quiet[LOCAL_FLAGS] &= ~(termios.ECHO | termios.ICANON)
            termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)
        except termios.error:
            self._old = None

    def leave(self) -> None:
        """Back to what it was."""
        if self._old is not None:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, self._old)
            self._old = None

    def suspend(self, number: int, frame: FrameType | None) -> None:
        """What SIGTSTP does: give the terminal back, stop, and take it again."""
        self.leave()
        started = perf_counter()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, self.suspend)
        self.paused_s += perf_counter() - started
        self.enter()


@contextmanager
def quiet_terminal() -> Generator[Quiet]:
    """While it lasts, keys are kept for later and Ctrl-Z leaves the terminal in order."""
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
