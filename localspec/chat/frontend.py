"""What a conversation asks of the place where it is held: a terminal, a pipe, or a program."""

from collections.abc import Sequence
from typing import Protocol

from localspec.chat.answer_run import Shortage
from localspec.chat.answering import AnswerView, RoomDecision
from localspec.chat.figures import Figures
from localspec.chat.models import LoadedModel, LoadingModel


class Frontend(Protocol):
    """Where messages come from and answers go."""

    @property
    def can_edit(self) -> bool:
        """Whether `read` lets somebody change its draft."""
        ...

    def read(self, draft: str) -> str:
        """The next message, `draft` being there to edit.

        Raises EOFError at the end, KeyboardInterrupt, and UserError for what is no text.
        """
        ...

    def wait(self, loading: LoadingModel[LoadedModel]) -> LoadedModel:
        """The model, when it has loaded; raises what loading raised, or KeyboardInterrupt."""
        ...

    def view(self, opened: LoadedModel) -> AnswerView:
        """Where the next answer appears."""
        ...

    def finished(self, figures: Figures, *, is_first: bool) -> None:
        """An answer is over."""
        ...

    def say(self, text: str) -> None:
        """A note to the user, from any thread."""
        ...

    def table(self, rows: Sequence[tuple[str, ...]]) -> None:
        """Something that was asked for, in columns."""
        ...

    def decide(self, found: Shortage) -> RoomDecision:
        """What to do where the context is nearly full."""
        ...
