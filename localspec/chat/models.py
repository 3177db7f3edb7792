"""Everything that a conversation needs of one loaded model.

A model that loads in a thread of its own, while the prompt already takes input.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from localspec.chat.archive import Record
from localspec.chat.states import States
from localspec.dialogue.transcript import Transcript
from localspec.forecast.forecast import Expectation
from localspec.model.facts import ModelFacts
from localspec.notify import Progress
from localspec.session import Session, SessionConfig


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A session with its transcript, its saved states and what it should reach here.

    `n_restored`: tokens of the conversation whose cache came from disk.
    """

    session: Session
    config: SessionConfig
    facts: ModelFacts
    transcript: Transcript
    states: States
    expectation: Expectation | None
    n_restored: int

    def close(self) -> None:
        """Free the models."""
        self.states.settle()
        self.session.close()


def open_model(
    config: SessionConfig,
    record: Record,
    notify: Callable[[str], None],
    on_progress: Callable[[float], None],
) -> LoadedModel:
    """Load, and restore the conversation's cache where it was saved. Raises LocalspecError."""
    session = Session.open(config, notify, on_progress)
    try:
        facts = session.plan.facts
        states = States(session)
        return LoadedModel(
            session=session,
            config=config,
            facts=facts,
            transcript=Transcript(session.prompts, facts.tokenizer.digest),
            states=states,
            expectation=Expectation.of(session.plan.target, facts),
            n_restored=states.restore(record),
        )
    except BaseException:
        session.close()
        raise


class Closable(Protocol):
    """What holds something that must be given back."""

    def close(self) -> None: ...


T = TypeVar("T", bound=Closable)
REPORTED_STEP = 0.01


class LoadingModel(Generic[T]):
    """`load` runs at once in a thread; it is given a function that it reports its progress to."""

    def __init__(
        self,
        load: Callable[[Progress], T],
        on_progress: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self.fraction = 0.0
        self._load = load
        self._on_progress = on_progress
        self._on_end = on_end
        self._result: T | None = None
        self._error: BaseException | None = None
        self._is_abandoned = False
        self._done = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def is_done(self) -> bool:
        return self._done.is_set()

    @property
    def failed(self) -> bool:
        return self._error is not None

    def wait(self, seconds: float) -> bool:
        """Wait at most so long; whether it has ended."""
        return self._done.wait(seconds)

    def result(self) -> T:
        """What was loaded; raises what loading raised."""
        self._done.wait()
        if self._error is not None:
            raise self._error
        assert self._result is not None
        return self._result

    def abandon(self) -> None:
        """Nobody waits for it any more: what was loaded is closed when it is there."""
        self._is_abandoned = True
        if self.is_done and self._result is not None:
            self._result.close()

    def _run(self) -> None:
        try:
            self._result = self._load(self._report)
            if self._is_abandoned:
                self._result.close()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            self._error = error
        self._done.set()
        self._on_end()

    def _report(self, fraction: float) -> None:
        is_news = fraction - self.fraction >= REPORTED_STEP or fraction >= 1.0
        if is_news:
            self.fraction = fraction
            self._on_progress()
