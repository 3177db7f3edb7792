"""One line that says what is waited for, from a thread, until there is something better to show."""

import threading
from collections.abc import Callable
from typing import TextIO

DELAY_S = 0.4
INTERVAL_S = 0.2
ERASE = "\r\x1b[K"


class Waiting:
    """Draws `text()` dimly on the current line after a moment; `stop` takes it away."""

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
            self._write(f"\r\x1b[2m{self._text()}\x1b[0m\x1b[K")
            if self._stopped.wait(INTERVAL_S):
                break
        self._write(ERASE)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()
