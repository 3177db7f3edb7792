"""What a slash command is, what it works on, and what follows from it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from localspec.chat.chat import Chat
from localspec.chat.figures import Figures
from localspec.chat.frontend import Frontend
from localspec.session.config import SessionConfig


class Models(Protocol):
    """The models that the command line knows by name."""

    def resolve(self, name: str) -> Path:
        """The model's file. Raises UserError or ModelError."""
        ...

    def draft_for(self, model: Path, name: str) -> str:
        """Who drafts for a named model, of what is here, as `Settings.draft` has it."""
        ...

    def names(self) -> Sequence[str]:
        """The models that have names."""
        ...

    def check(self, config: SessionConfig) -> None:
        """Raises UserError or ModelError where loading would fail."""
        ...

    def tune(self, config: SessionConfig, seconds: float | None) -> SessionConfig:
        """Find better settings for this machine within `seconds`. Raises LocalspecError."""
        ...


def lasting_name(name: str | None) -> str | None:
    """A name or path that means the same model tomorrow, in another folder."""
    if name is None or not Path(name).expanduser().is_file():
        return name
    return str(Path(name).expanduser().resolve())


@dataclass(slots=True)
class ChatState:
    """The conversation and all that lies beside it.

    `attachments` go before the next message; `last` has the last answer's figures; `unsent` is a
    message that could not be answered; `is_asking`: one is read or answered now, and
    `has_failed`: that failed for one.
    """

    chat: Chat
    frontend: Frontend
    models: Models
    attachments: list[str] = field(default_factory=list[str])
    last: Figures | None = None
    unsent: str = ""
    is_asking: bool = False
    has_failed: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """Send this message."""

    text: str


@dataclass(frozen=True, slots=True)
class AnswerPending:
    """Answer the message that has no answer."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Let the user edit this message and send it."""

    text: str


Next = Ask | AnswerPending | Edit
Handler = Callable[[ChatState, str], Next | None]
Completions = Callable[[Models], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Command:
    """`usage` follows the name in `/help`; `choices`: what can complete its argument.

    `shows` is what it says without an argument, instead of `run`; `takes_path`: it takes a file;
    `is_here`: it is for a model that is loaded here, not for a server's.
    """

    name: str
    usage: str
    help: str
    run: Handler
    choices: Completions = lambda models: ()
    shows: Callable[[ChatState], str] | None = None
    takes_path: bool = False
    is_here: bool = False
