"""A conversation through pipes: a message a line, answers on stdout, notes on stderr.

Lines from a terminal that can do no more than write (TERM=dumb): in an editor's shell, say.
"""

import os
import sys
from collections.abc import Iterator, Sequence

from localspec.chat.answer_run import Shortage
from localspec.chat.answering import RoomDecision
from localspec.chat.figures import Figures, line
from localspec.chat.models import LoadedModel, LoadingModel
from localspec.chat.rendering.screen import PlainView
from localspec.notify import Notify


class PipeFrontend:
    """`messages` are read one by one; what is no text raises UserError when its turn comes."""

    def __init__(self, messages: Iterator[str], notify: Notify) -> None:
        self._messages = messages
        self._notify = notify

    @property
    def can_edit(self) -> bool:
        """Nobody is there."""
        return False

    def read(self, draft: str) -> str:
        """The next message; a draft is sent as it is, because nobody can edit it."""
        if draft:
            return draft
        try:
            return next(self._messages)
        except StopIteration:
            raise EOFError from None

    def say(self, text: str) -> None:
        """A note."""
        self._notify(text)

    def wait(self, loading: LoadingModel[LoadedModel]) -> LoadedModel:
        """Wait in silence, so that Ctrl-C is heard meanwhile."""
        while not loading.wait(0.2):
            pass
        return loading.result()

    def view(self, opened: LoadedModel) -> PlainView:
        """Plain text on stdout."""
        return PlainView(sys.stdout)

    def finished(self, figures: Figures, *, is_first: bool) -> None:
        """The line below goes to stderr."""
        self.say(line(figures, with_first_token=is_first))

    def table(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Columns, as notes."""
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.say("  ".join(cells).rstrip())

    def decide(self, found: Shortage) -> RoomDecision:
        """Nobody can be asked: old turns stay and the answer stops where the context is full."""
        return "stop"


def is_dumb() -> bool:
    """Whether the terminal is such a one."""
    return os.environ.get("TERM", "dumb").lower() in ("dumb", "unknown", "")


class TypedLines:
    """A message a line; the second Ctrl-C in a row leaves."""

    def __iter__(self) -> "TypedLines":
        return self

    def __next__(self) -> str:
        try:
            return self._line()
        except EOFError:
            raise StopIteration from None

    def _line(self) -> str:
        try:
            return input("> ")
        except KeyboardInterrupt:
            print("\nCtrl-C again leaves; so does Ctrl-D")  # noqa: T201
        try:
            return input("> ")
        except KeyboardInterrupt:
            raise EOFError from None
