"""A real terminal and what a person sees on it: pexpect runs a command, pyte is the screen."""

import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pexpect
import pyte
from command import LOCALSPEC, clean_environment

TIMEOUT_S = 60


class Terminal:
    """A command in a pseudo-terminal."""

    def __init__(
        self,
        *arguments: str | Path,
        columns: int = 100,
        rows: int = 30,
        program: str = str(LOCALSPEC),
        **variables: str,
    ) -> None:
        environment = clean_environment() | {"TERM": "xterm-256color", "COLORTERM": ""}
        environment |= {"PROMPT_TOOLKIT_NO_CPR": "1"} | variables
        self.screen = pyte.HistoryScreen(columns, rows, history=2000, ratio=0.01)
        self._stream = pyte.Stream(self.screen)
        self.raw = ""
        self.child = pexpect.spawn(
            program,
            [str(argument) for argument in arguments],
            env=environment,
            encoding="utf-8",
            timeout=TIMEOUT_S,
            dimensions=(rows, columns),
            # Ignored by what runs in the background; a person at a terminal has it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        self.screen.write_process_input = self.child.send

    def read(self, seconds: float = 0.05) -> None:
        """Take what has come."""
        try:
            while True:
                text = self.child.read_nonblocking(100_000, seconds)
                self.raw += text
                self._stream.feed(text)
                seconds = 0
        except (pexpect.TIMEOUT, pexpect.EOF):
            pass

    def text(self) -> str:
        """All lines, those that scrolled away included, without what fills them."""
        top = ["".join(c.data for _, c in sorted(line.items())) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*top, *self.screen.display]).rstrip()

    def wait(self, what: str | Callable[[str], bool], seconds: float = TIMEOUT_S) -> str:
        """The text, when it matches."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.read()
            text = self.text()
            if what(text) if callable(what) else re.search(what, text):
                return text
            if not self.child.isalive():
                self.read()
                break
        text = self.text()
        assert what(text) if callable(what) else re.search(what, text), f"{what}\n{text}"
        return text

    def ready(self, n: int = 1) -> str:
        """The text, when the n-th prompt takes input: the last line but the toolbar is empty."""
        return self.wait(lambda text: self.raw.count("\x1b[?2004h") >= n)

    def send(self, keys: str) -> None:
        """Type."""
        self.child.send(keys)

    def resize(self, columns: int, rows: int = 30) -> None:
        """Another size, as by dragging a window."""
        self.read()
        self.screen.resize(rows, columns)
        self.child.setwinsize(rows, columns)

    def kill(self) -> None:
        """kill -9."""
        self.child.kill(signal.SIGKILL)
        self.child.wait()
        self.child.close()

    def leave(self) -> int | None:
        """Ctrl-D, and the exit code."""
        self.send("\x04")
        return self.end()

    def end(self) -> int | None:
        """The exit code, when it has ended."""
        self.child.expect(pexpect.EOF)
        self.child.close()
        return self.child.exitstatus
