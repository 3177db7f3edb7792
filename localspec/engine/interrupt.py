"""A request to stop that leaves everything consistent.

Ctrl-C normally raises KeyboardInterrupt between any two instructions, perhaps between an engine
call and the record of its result. While an `Interrupt` listens, the first Ctrl-C only sets a flag;
the engine looks at it between micro-batches (on CPU also inside them), the driver between steps. A
second one raises as usual.
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupted(Exception):
    """Work stopped on request; the context holds what had been evaluated and stays usable."""


class Interrupt:
    """A flag that Ctrl-C, or any thread, can set.

    As a context manager it listens for SIGINT (in the main thread only; elsewhere it is just the
    flag); a request counts until it is left. It may be entered again while it listens. Where
    another thread leaves it, Ctrl-C raises, and the main thread's next turn gives SIGINT back.
    """

    def __init__(self) -> None:
        self.requested = False
        self._depth = 0
        self._previous: Any = None

    def request(self) -> None:
        """Ask for a stop; safe from any thread."""
        self.requested = True

    def __enter__(self) -> Self:
        if self._depth == 0:
            self.requested = False
            # A job in the background has SIGINT ignored by its shell, and means it; None: not
            # Python's own.
            now = signal.getsignal(signal.SIGINT) if _is_main() else None
            if self._previous is None and now not in (signal.SIG_IGN, None):
                self._previous = signal.signal(signal.SIGINT, self._on_signal)
        self._depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.requested = False
            if self._previous is not None and _is_main():
                signal.signal(signal.SIGINT, self._previous)
                self._previous = None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested or self._depth == 0:
            raise KeyboardInterrupt
        self.requested = True


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
