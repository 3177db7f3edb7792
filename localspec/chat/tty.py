"""The terminal while an answer comes: lines that may still change, and keys that wait.

The lines that may change are a `Region`; all above them is history. Drawing again writes only what
differs, usually the end of the last line, so nothing flickers and a slow connection carries little
more than the text. Lines that have scrolled out of reach stay as they are. After a resize a
`Region` works out how many rows its old lines take in a terminal that reflows them.

Keys are not echoed into an answer, and wait for the next prompt. When the user suspends the program
(Ctrl-Z), the terminal goes back to what the shell had. The pause is measured, because it is not the
engine's time.
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

from rich.cells import cell_len
from rich.text import Text

from localspec.chat.frontend import AnswerView
from localspec.decode.step import Step
from localspec.dialogue.markup import AnswerPart, Opening
from localspec.display import printable

LOCAL_FLAGS = 3
PASTE_MARKED, PASTE_BARE = "\x1b[?2004h", "\x1b[?2004l"
"""Whether the terminal marks where a paste begins and ends, so that its lines are one message."""


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
            _order(PASTE_MARKED)
        except termios.error:
            self._old = None

    def leave(self) -> None:
        """Turn the echo on again, if it was."""
        if self._old is not None:
            import termios  # noqa: PLC0415

            _order(PASTE_BARE)
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


def _order(order: str) -> None:
    sys.stdout.write(order)
    sys.stdout.flush()


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
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Erase the line; a second call does nothing."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._thread.join()

    def above(self, write: Callable[[], None]) -> None:
        """Have `write` called in place of the line, which comes again below what it wrote."""
        with self._turn:
            self._out.write(ERASE)
            write()

    def _run(self) -> None:
        if self._stopped.wait(DELAY_S):
            return
        while True:
            self._write(f"\r\x1b[2m{printable(self._text())}\x1b[0m\x1b[K")
            if self._stopped.wait(INTERVAL_S):
                break
        self._write(ERASE)

    def _write(self, text: str) -> None:
        with self._turn:
            self._out.write(text)
            self._out.flush()


class WatchedView(AnswerView):
    """A `view` at a terminal: keys are quiet, and a line says what is waited for at first.

    `quiet` goes on until the next line is read, so that no key is echoed below the answer.
    """

    def __init__(self, view: AnswerView, wait: Callable[[int], Waiting], quiet: ExitStack) -> None:
        self._view = view
        self._wait = wait
        self._waiting: Waiting | None = None
        self._terminal = quiet
        self._quiet: Quiet | None = None

    @property
    def paused_s(self) -> float:
        return self._quiet.paused_s if self._quiet else 0.0

    def begin(self, opening: Opening, n_prompt: int) -> None:
        """The engine begins to read the prompt."""
        self._terminal.close()
        self._quiet = self._terminal.enter_context(quiet_terminal())
        self._view.begin(opening, n_prompt)
        self._waiting = self._wait(n_prompt)

    def write(self, parts: Sequence[AnswerPart], step: Step | None) -> None:
        """Show them; the wait is over."""
        self._stop_waiting()
        self._view.write(parts, step)

    def end(self) -> None:
        self._stop_waiting()
        self._view.end()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.stop()
            self._waiting = None


BEGIN_UPDATE, END_UPDATE = "\x1b[?2026h", "\x1b[?2026l"
"""Synchronised output: terminals that know it show an update at once, others ignore it."""
Size = Callable[[], os.terminal_size]
ERASE_LINE, ERASE_BELOW = "\x1b[K", "\x1b[J"


class Region:
    """The last lines on a screen, which may change; each must be narrower than the screen."""

    def __init__(self, out: TextIO, size: Size) -> None:
        self._out = out
        self._size = size
        self._shown: list[str] = []
        self._columns = 0

    def show(self, lines: Sequence[str]) -> None:
        """Draw `lines` in place of what was shown."""
        size = self._size()
        if self._shown and size.columns != self._columns:
            update = self._erase(size) + "\r\n".join(lines)
        else:
            update = self._difference(lines, size.lines)
        self._columns, self._shown = size.columns, list(lines)
        if update:
            self._write(update)

    def commit(self, lines: Sequence[str]) -> None:
        """Draw `lines` for good and go on below them."""
        self.show(lines)
        if lines:
            self._write("\r\n")
        self._shown = []

    def _difference(self, lines: Sequence[str], n_rows: int) -> str:
        old = self._shown
        if not old:
            return "\r\n".join(lines)
        both = zip(old, lines, strict=False)
        same = next((i for i, (a, b) in enumerate(both) if a != b), min(len(old), len(lines)))
        first = max(0, min(same, len(old) - 1, len(lines) - 1), len(old) - (n_rows - 1))
        if first >= len(lines):
            return self._up(len(old) - 1 - first) + "\r" + ERASE_BELOW
        last_only = first == len(old) - 1
        if last_only and lines[first].startswith(old[first]):
            grown = lines[first][len(old[first]) :]
            return "\r\n".join([grown, *lines[first + 1 :]])
        redrawn = ("\r\n").join(line + ERASE_LINE for line in lines[first:])
        below = ERASE_BELOW if len(lines) < len(old) else ""
        return self._up(len(old) - 1 - first) + "\r" + redrawn + below

    def _erase(self, size: os.terminal_size) -> str:
        widths = [cell_len(Text.from_ansi(line).plain) for line in self._shown]
        n_rows = sum(max(1, -(-width // size.columns)) for width in widths)
        return self._up(min(n_rows, size.lines) - 1) + "\r" + ERASE_BELOW

    @staticmethod
    def _up(n: int) -> str:
        return f"\x1b[{n}A" if n > 0 else ""

    def _write(self, update: str) -> None:
        is_plain = "\x1b" not in update
        self._out.write(update if is_plain else BEGIN_UPDATE + update + END_UPDATE)
        self._out.flush()


SHARE = 0.006
MIN_REST_S = 0.04


class FrameLimiter:
    """When to draw next, so that drawing takes a small share of the time whatever it costs.

    On a processor the engine wants every core, so each millisecond of drawing is one less of
    decoding. After a drawing of c seconds the screen rests for c / SHARE.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def is_due(self) -> bool:
        return perf_counter() >= self._next

    def drew(self, started: float) -> None:
        """A drawing that began at `started` is done."""
        now = perf_counter()
        self._next = now + max(MIN_REST_S, (now - started) / SHARE)
