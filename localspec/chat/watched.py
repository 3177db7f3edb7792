"""A view whose answer is waited for: keys are quiet, and the wait is over with the first text."""

from collections.abc import Callable
from contextlib import ExitStack

from localspec.chat.answering import View
from localspec.chat.tty import Quiet, quiet_terminal
from localspec.chat.waiting import Waiting
from localspec.speculate.step import Step


class WatchedView:
    """Hands everything to `view`."""

    def __init__(self, view: View, wait: Callable[[int], Waiting]) -> None:
        self._view = view
        self._wait = wait
        self._waiting: Waiting | None = None
        self._terminal = ExitStack()
        self._quiet: Quiet | None = None

    @property
    def thought(self) -> str:
        return self._view.thought

    @property
    def paused_s(self) -> float:
        """How long the program was suspended meanwhile."""
        return self._quiet.paused_s if self._quiet else 0.0

    def begin(self, *, in_thought: bool, n_prompt: int) -> None:
        """The engine starts to read."""
        self._quiet = self._terminal.enter_context(quiet_terminal())
        self._view.begin(in_thought=in_thought, n_prompt=n_prompt)
        self._waiting = self._wait(n_prompt)

    def write(self, text: str, step: Step | None) -> None:
        """Text comes."""
        self._stop_waiting()
        self._view.write(text, step)

    def end(self) -> None:
        """The terminal is as it was."""
        self._stop_waiting()
        self._view.end()
        self._terminal.close()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.stop()
            self._waiting = None
