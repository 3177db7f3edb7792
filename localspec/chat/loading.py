"""A model that loads while the prompt already takes input, and who answers once it is there.

Nothing here imports the engine or a session: they are imported in the thread that loads.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from localspec.chat.remote import RemoteModel
from localspec.format import count
from localspec.notify import Progress

if TYPE_CHECKING:
    from localspec.chat.archive import Record
    from localspec.chat.states import States
    from localspec.dialogue.transcript import Transcript
    from localspec.forecast.forecast import Expectation
    from localspec.session.asking import SessionConfig
    from localspec.session.config import ReplyOptions
    from localspec.session.session import Session


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A session with its transcript, its saved caches and the speed it should reach here.

    `n_restored`: tokens of the conversation whose cache came from disk.
    """

    session: "Session"
    config: "SessionConfig"
    transcript: "Transcript"
    states: "States"
    expectation: "Expectation | None"
    n_restored: int

    @property
    def name(self) -> str:
        return self.config.model.name

    @property
    def n_ctx(self) -> int:
        return self.session.n_ctx

    @property
    def n_held(self) -> int:
        """Tokens of the conversation that need not be read again."""
        return len(self.session.context.tokens)

    @property
    def described(self) -> dict[str, Any]:
        """For programs."""
        return {
            "model": str(self.config.model),
            "n_ctx": self.n_ctx,
            "speculation": self.session.speculation,
            "n_restored": self.n_restored,
            "load_s": self.session.load_s,
        }

    def rows(self) -> list[tuple[str, ...]]:
        """For /stats."""
        rows: list[tuple[str, ...]] = [("loading", f"{self.session.load_s:.2f} s")]
        if self.n_restored:
            rows.append(("restored", f"{self.n_restored:,} tokens from disk"))
        return rows

    def size_of(self, text: str) -> str | None:
        """How much of a conversation a text takes."""
        n_tokens = len(self.session.target.vocabulary.tokenize(text, add_special=False))
        return f"{count(n_tokens, 'token')} of {self.n_ctx:,}"

    def reading(self, n_prompt: int) -> str:
        """What an answer waits for."""
        n_held = min(self.n_held, n_prompt)
        return f"reading the conversation: {n_held:,} of {n_prompt:,} tokens"

    def effective(self, options: "ReplyOptions") -> "ReplyOptions":
        """With what the model's file recommends."""
        return self.session.effective(options)

    def restore(self, record: "Record") -> None:
        """Load the cache of a conversation, if it was saved."""
        self.states.restore(record)

    def save(self, record: "Record") -> None:
        """Write the cache to disk, if it holds something new."""
        self.states.save(record)

    def save_behind(self, record: "Record") -> None:
        """Likewise in the background, if that is quick."""
        self.states.save_behind(record)

    def close(self) -> None:
        """Free the models."""
        self.states.settle()
        self.session.close()


Partner = LoadedModel | RemoteModel
"""Who answers: a model that is loaded here, or one that a server has."""


REPORTED_STEP = 0.01


class LoadingModel:
    """A model that loads in a thread of its own, while the prompt already takes input.

    `load` starts at once; it is given a function that it reports its progress to.
    """

    def __init__(
        self,
        load: Callable[[Progress], Partner],
        on_progress: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self.fraction = 0.0
        self._load = load
        self._on_progress = on_progress
        self._on_end = on_end
        self._model = Future[Partner]()
        self._is_abandoned = False
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def is_done(self) -> bool:
        return self._model.done()

    @property
    def failed(self) -> bool:
        return self.is_done and self._model.exception() is not None

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; whether loading has ended."""
        return bool(wait([self._model], seconds).done)

    def result(self) -> Partner:
        """What was loaded; raises what loading raised."""
        return self._model.result()

    def abandon(self) -> None:
        """Close what was loaded, or what will be: nobody waits for it any more."""
        self._is_abandoned = True
        if self.is_done and not self.failed:
            self.result().close()

    def _run(self) -> None:
        try:
            model = self._load(self._report)
            if self._is_abandoned:
                model.close()
            self._model.set_result(model)
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._model.set_exception(error)
        self._on_end()

    def _report(self, fraction: float) -> None:
        if fraction - self.fraction >= REPORTED_STEP or fraction >= 1.0:
            self.fraction = fraction
            self._on_progress()
