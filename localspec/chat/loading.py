"""A model that loads while the prompt already takes input, and what it is once it has loaded.

Nothing here imports the engine, the session or NumPy: they are imported in the thread that loads.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from localspec.notify import Progress

if TYPE_CHECKING:
    from localspec.chat.models import States
    from localspec.dialogue.transcript import Transcript
    from localspec.forecast.forecast import Expectation
    from localspec.session.config import SessionConfig
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

    def close(self) -> None:
        """Free the models."""
        self.states.settle()
        self.session.close()


REPORTED_STEP = 0.01


class LoadingModel:
    """A model that loads in a thread of its own, while the prompt already takes input.

    `load` starts at once; it is given a function that it reports its progress to.
    """

    def __init__(
        self,
        load: Callable[[Progress], LoadedModel],
        on_progress: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        self.fraction = 0.0
        self._load = load
        self._on_progress = on_progress
        self._on_end = on_end
        self._model = Future[LoadedModel]()
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

    def result(self) -> LoadedModel:
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
