"""What a command is given, what it is, and what it can lead to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from localspec.chat.chat import Chat
from localspec.chat.figures import Figures
from localspec.chat.frontend import Frontend
from localspec.session import SessionConfig


class Models(Protocol):
    """Names to files, which is the command line's business."""

    def resolve(self, name: str) -> Path:
        """The model's file. Raises UserError or ModelError."""
        ...

    def draft_of(self, name: str) -> Path | None:
        """The draft that goes with a named model, if it is here."""
        ...

    def names(self) -> Sequence[str]:
        """Models that have names."""
        ...

    def tune(self, config: SessionConfig, seconds: float | None) -> SessionConfig:
        """Find better settings for this machine, in so long. Raises LocalspecError."""
        ...


def lasting_name(name: str | None) -> str | None:
    """A model's name that means the same tomorrow, in another folder."""
    if name is None or not Path(name).expanduser().is_file():
        return name
    return str(Path(name).expanduser().resolve())


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that goes with the next message."""

    name: str
    text: str


@dataclass(slots=True)
class ChatState:
    """The conversation and all that lies beside it: files for the next message, what the last
    answer came to and was preceded by, and a message that could not be sent."""

    chat: Chat
    frontend: Frontend
    models: Models
    attachments: list[Attachment] = field(default_factory=list[Attachment])
    last: Figures | None = None
    thought: str = ""
    unsent: str = ""


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


@dataclass(frozen=True, slots=True)
class Leave:
    """End the chat."""


Next = Ask | AnswerPending | Edit | Leave
Handler = Callable[[ChatState, str], Next | None]
Completions = Callable[[Models], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Command:
    """`usage` follows the name in `/help`; `choices` are what an argument can be completed to,
    `takes_path` says that it is a file."""

    name: str
    usage: str
    help: str
    run: Handler
    choices: Completions = lambda models: ()
    takes_path: bool = False
