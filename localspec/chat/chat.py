"""A conversation with a model: what was said, who answers and how, and where it is kept.

The model may still be loading. Another model can take its place, and the conversation stays: what
was said belongs to the conversation, and a cache can be made again.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from localspec.chat.archive import Record
from localspec.chat.conversation import Asked, Configured, Conversation, Event
from localspec.chat.loading import LoadingModel, Partner
from localspec.chat.remote import Elsewhere
from localspec.errors import UserError
from localspec.fields import Think
from localspec.notify import Notify, Progress
from localspec.session.reply_options import ReplyOptions
from localspec.session.session_config import SessionConfig

if TYPE_CHECKING:
    from localspec.chat.figures import Figures
    from localspec.chat.frontend import Frontend

WhenFull = Literal["ask", "drop", "stop"]
"""What happens to old turns in a full context."""
Where = SessionConfig | Elsewhere
"""A model that is to be loaded here, or one of a server's."""
Open = Callable[[Where, Record, Notify, Progress], Partner]


class Chat:
    """`open_model` loads a model in a thread of its own.

    That thread calls `notify`, `on_progress` and `on_loaded`.
    """

    def __init__(
        self,
        open_model: Open,
        where: Where,
        options: ReplyOptions,
        record: Record,
        when_full: WhenFull,
    ) -> None:
        self.where: Where = where
        self.when_full: WhenFull = when_full
        self.record = record
        self.conversation = Conversation.of(record.events())
        self.notify: Notify = lambda message: None
        self.on_progress: Callable[[], None] = lambda: None
        self.on_loaded: Callable[[], None] = lambda: None
        self._options = options
        self._open_model = open_model
        self._loading: LoadingModel | None = None
        self._unwritten: list[Event] = []
        self._told: set[tuple[str, str]] = set()

    @property
    def config(self) -> SessionConfig:
        """How the model is loaded here. UserError for a server's."""
        if isinstance(self.where, Elsewhere):
            raise UserError(
                f"{self.where.address.url} has the model: that is chosen where the server starts"
            )
        return self.where

    @property
    def model_name(self) -> str:
        """Of the file, or as the server calls it; its address until that is known."""
        if isinstance(self.where, SessionConfig):
            return self.where.model.name
        return self.loaded.name if self.loaded else self.where.name or self.where.address.url

    @property
    def options(self) -> ReplyOptions:
        """How the next answer is made; one that is asked for again takes another seed."""
        options = self.loaded.effective(self._options) if self.loaded else self._options
        seed = options.sampling.seed + self.conversation.n_retries
        return replace(options, sampling=replace(options.sampling, seed=seed))

    @property
    def loading(self) -> LoadingModel:
        """The model, which this begins to load."""
        if self._loading is None:
            where, record = self.where, self.record
            self._loading = LoadingModel(
                lambda report: self._open_model(where, record, self._tell, report),
                lambda: self.on_progress(),
                lambda: self.on_loaded(),
            )
        return self._loading

    def _tell(self, text: str) -> None:
        """What loading notes, once a model: each change of a setting loads it again."""
        said = self.model_name, text
        if said not in self._told:
            self._told.add(said)
            self.notify(text)

    @property
    def loaded(self) -> Partner | None:
        """The model, if it has loaded."""
        loading = self._loading
        return loading.result() if loading and loading.is_done and not loading.failed else None

    @property
    def is_loading(self) -> bool:
        """Whether a model is being loaded."""
        return self._loading is not None and not self._loading.is_done

    @property
    def has_failed(self) -> bool:
        """Whether loading the model failed."""
        return self._loading is not None and self._loading.failed

    def add(self, *events: Event) -> None:
        """Let something happen, and write it down; the file appears with the first message."""
        for event in events:
            self.conversation = self.conversation.after(event)
            self._unwritten.append(event)
        if self.record.path.exists() or any(isinstance(event, Asked) for event in self._unwritten):
            for event in self._unwritten:
                self.record.add(event)
            self._unwritten.clear()

    def begin(self, record: Record) -> None:
        """Go over to another conversation; the old one stays in its file."""
        self.save_state()
        self.record.close()
        self.record = record
        self._unwritten.clear()
        self.conversation = Conversation.of(record.events())
        if self.loaded:
            self.loaded.restore(record)

    def set_sampling(self, **changes: Any) -> None:
        """Sample otherwise from the next answer on."""
        old = self._options
        chosen = None if old.chosen is None else old.chosen | changes.keys()
        sampling = replace(old.sampling, **changes)
        self._options = replace(old, sampling=sampling, chosen=chosen)

    def set_thinking(self, level: Think) -> None:
        """Ask for more or less thinking from the next answer on."""
        self._options = replace(self._options, think=level)

    def reconfigure(
        self, config: SessionConfig, wait: Callable[[LoadingModel], Partner]
    ) -> Partner:
        """Load with other settings. Where that fails, restores the old ones and raises."""
        old = self.where
        self.unload()
        self.where = config
        try:
            return wait(self.loading)
        except BaseException:
            self.unload()
            self.where = old
            raise

    def remember(self, **settings: Any) -> None:
        """Keep settings with the conversation, for when it goes on."""
        self.add(Configured(settings))

    def save_state(self) -> None:
        """Write the cache to disk, if it holds something new."""
        if self.loaded and self.conversation.turns and self.record.is_kept:
            self.loaded.save(self.record)

    def unload(self) -> None:
        """Save the cache and free the model."""
        if self.loaded:
            self.save_state()
            self.loaded.close()
        elif self._loading:
            self._loading.abandon()
        self._loading = None


LOADING_S = 30.0
"""How long `close` waits for a model that still loads."""


def leave(chat: Chat, code: int = 0) -> None:
    """Save the cache and free the model; do not wait for one that is still loading.

    Nothing stops the engine in the middle of loading, and libllama must not be torn down under the
    thread that is in it. So the process ends at once, with `code`; all that was said is on disk.
    """
    if chat.is_loading:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    chat.unload()


def close(chat: Chat) -> None:
    """Save and free as well, in a process that goes on to report an error."""
    if chat.is_loading:
        chat.loading.wait(LOADING_S)
    chat.unload()


@dataclass(slots=True)
class ChatState:
    """The conversation and all that lies beside it.

    `attachments` go before the next message; `last` has the last answer's figures; `unsent` is a
    message that could not be answered; `is_asking`: one is read or answered now, and
    `has_failed`: that failed for one.
    """

    chat: Chat
    frontend: "Frontend"
    attachments: list[str] = field(default_factory=list[str])
    last: "Figures | None" = None
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


def lasting_name(name: str | None) -> str | None:
    """A name or path that means the same model tomorrow, in another folder."""
    if name is None or not Path(name).expanduser().is_file():
        return name
    return str(Path(name).expanduser().resolve())
