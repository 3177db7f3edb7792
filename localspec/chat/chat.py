"""A conversation with a model: what was said, who answers and how, and where it is kept.

The model may still be loading, and may be changed for another one without the conversation being
lost: what was said belongs to the conversation, and caches can be made again.

The end of a conversation: its cache goes to disk, the models are freed.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from localspec.chat.archive import Record
from localspec.chat.conversation import Asked, Configured, Conversation, Event
from localspec.chat.models import LoadedModel, LoadingModel
from localspec.notify import Notify, Progress
from localspec.session import ReplyOptions, SessionConfig

WhenFull = Literal["ask", "drop", "stop"]
"""What happens to old turns in a full context."""
Open = Callable[[SessionConfig, Record, Notify, Progress], LoadedModel]


class Chat:
    """`open_model` loads a model; `notify`, `on_progress` and `on_loaded` are called from its
    thread."""

    def __init__(
        self,
        open_model: Open,
        config: SessionConfig,
        options: ReplyOptions,
        record: Record,
        when_full: WhenFull,
    ) -> None:
        self.config = config
        self.when_full: WhenFull = when_full
        self.record = record
        self.conversation = Conversation.of(record.events())
        self.notify: Notify = lambda message: None
        self.on_progress: Callable[[], None] = lambda: None
        self.on_loaded: Callable[[], None] = lambda: None
        self._options = options
        self._open_model = open_model
        self._loading: LoadingModel[LoadedModel] | None = None
        self._unwritten: list[Event] = []

    @property
    def options(self) -> ReplyOptions:
        """How the next answer is made: each one that is asked for again takes another seed."""
        sampling = self._options.sampling
        seed = sampling.seed + self.conversation.n_retries
        return replace(self._options, sampling=replace(sampling, seed=seed))

    @property
    def loading(self) -> LoadingModel[LoadedModel]:
        """The model on its way, or there."""
        if self._loading is None:
            config, record = self.config, self.record
            self._loading = LoadingModel(
                lambda report: self._open_model(config, record, self._say, report),
                lambda: self.on_progress(),
                lambda: self.on_loaded(),
            )
        return self._loading

    @property
    def loaded(self) -> LoadedModel | None:
        """The model, if it is there."""
        loading = self._loading
        return loading.result() if loading and loading.is_done and not loading.failed else None

    @property
    def is_loading(self) -> bool:
        """Whether a model is on its way."""
        return self._loading is not None and not self._loading.is_done

    @property
    def has_failed(self) -> bool:
        """Whether the model could not be loaded."""
        return self._loading is not None and self._loading.failed

    def add(self, *events: Event) -> None:
        """Let something happen, and keep it; a file appears with the first message."""
        for event in events:
            self.conversation = self.conversation.after(event)
            self._unwritten.append(event)
        if self.record.path.exists() or any(isinstance(event, Asked) for event in self._unwritten):
            for event in self._unwritten:
                self.record.add(event)
            self._unwritten.clear()

    def begin(self, record: Record) -> None:
        """Go over to another conversation; the old one stays where it is kept."""
        self.save_state()
        self.record.close()
        self.record = record
        self._unwritten.clear()
        self.conversation = Conversation.of(record.events())
        if self.loaded:
            self.loaded.states.restore(record)

    def set_sampling(self, **changes: Any) -> None:
        """Other sampling from the next answer on."""
        self._options = replace(self._options, sampling=replace(self._options.sampling, **changes))

    def reconfigure(
        self, config: SessionConfig, wait: Callable[[LoadingModel[LoadedModel]], LoadedModel]
    ) -> LoadedModel:
        """Load with other settings; where that fails, the old ones come back and it is raised."""
        old = self.config
        self.unload()
        self.config = config
        try:
            return wait(self.loading)
        except BaseException:
            self.unload()
            self.config = old
            raise

    def remember(self, **settings: Any) -> None:
        """Keep settings with the conversation, for the day when it goes on."""
        self.add(Configured(settings))

    def save_state(self) -> None:
        """Write the cache to disk, if there is something new in it."""
        if self.loaded and self.conversation.turns and self.record.is_kept:
            self.loaded.states.save(self.record)

    def _say(self, message: str) -> None:
        self.notify(message)

    def unload(self) -> None:
        """Save the cache and free the model."""
        if self.loaded:
            self.save_state()
            self.loaded.close()
        elif self._loading:
            self._loading.abandon()
        self._loading = None


LOADING_S = 30.0
"""How long a model that loads is waited for before an error is told."""


def leave(chat: Chat) -> None:
    """Save and close; a model that is still loading is not waited for.

    Nothing stops the engine in the middle of loading, and libllama must not be torn down under the
    thread that is in it: then the process goes at once, with all that was said on disk.
    """
    if chat.is_loading:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    chat.unload()


def close(chat: Chat) -> None:
    """The same where an error is still to be told."""
    if chat.is_loading:
        chat.loading.wait(LOADING_S)
    chat.unload()
