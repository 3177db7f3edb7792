"""A model and its context, loaded by a thread while this one imports what will use them.

libllama lets go of Python's lock while it loads, so that both take the time of one. What tells of
progress asks for the lock at each tensor, and Python hands it over after five milliseconds: a
quarter of a second of small files, of which nobody is told.
"""

import sys
import threading
from time import perf_counter

from localspec.engine.base import EngineConfig
from localspec.engine.interrupt import Interrupt
from localspec.engine.llama.binding import Handle, disband, initialise
from localspec.engine.llama.parameters import create_context, free, load_model
from localspec.notify import Progress

_SWITCH_S = 1e-4
"""After which Python hands its lock over, meanwhile."""


class EarlyWeights:
    """What will be an engine's. `taken` hands it over, `drop` frees it unless it was taken."""

    def __init__(
        self, config: EngineConfig, interrupt: Interrupt, on_progress: Progress | None
    ) -> None:
        self.config = config
        self.load_s = 0.0
        self._interrupt, self._on_progress = interrupt, on_progress
        self._model: Handle | None = None
        self._context: Handle | None = None
        self._error: BaseException | None = None
        self._usual_s = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._thread = threading.Thread(target=self._load, name="loading")
        self._thread.start()

    def taken(self) -> tuple[Handle, Handle]:
        """The model and its context, once they are there. Raises what loading raised."""
        self._join()
        model, context, self._model, self._context = self._model, self._context, None, None
        if self._error or not model or not context:
            free(context, model)
            raise self._error or AssertionError("loading ended without a word")
        return model, context

    def drop(self) -> None:
        """End the loading, and free what there is; nothing if it was taken."""
        if self._thread.is_alive():
            self._interrupt.request()
        self._join()
        model, context, self._model, self._context = self._model, self._context, None, None
        free(context, model)

    def _join(self) -> None:
        self._thread.join()
        sys.setswitchinterval(self._usual_s)

    def _load(self) -> None:
        started = perf_counter()
        try:
            initialise()
            self._model = load_model(self.config, self._interrupt, self._on_progress)
            self.load_s = perf_counter() - started
            self._context = create_context(self.config, self._model)
        except BaseException as error:  # noqa: BLE001 - the other thread raises it
            self._error = error
        finally:
            disband()
