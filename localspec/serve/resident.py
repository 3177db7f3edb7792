"""A model that is freed when nobody has asked for long, and loaded again for the next request.

A request holds the model from before it is read until its answer is over, because vocabulary and
template belong to the model, too.
"""

import threading
from collections.abc import Callable
from time import perf_counter

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from localspec.errors import LocalspecError
from localspec.serve.problem import Problem
from localspec.session.session import Session

WITHOUT = frozenset({"/", "/status", "/health", "/v1/health", "/metrics", "/slots", "/models",
                     "/v1/models", "/props", "/v1/stream", "/v1/streams/lookup"})  # fmt: skip
"""Addresses that are answered without the model: whoever watches a server wakes nothing up."""
SOON_S = 0.1
RETRY_S = 10.0


class Resident:
    """The session that is loaded now; `open_again` makes another, which `on_loaded` is given.

    It is freed after `idle_s` seconds in which nobody held it, once the engine `is_idle`. None:
    never.
    """

    def __init__(
        self, session: Session, open_again: Callable[[], Session], idle_s: float | None
    ) -> None:
        self.session, self.is_loaded = session, True
        self.on_loaded: Callable[[Session], None] = lambda session: None
        self.is_idle: Callable[[], bool] = lambda: True
        self.on_freeing: Callable[[], None] = lambda: None
        self._open_again, self.idle_s = open_again, idle_s
        self._n_holding, self._since, self._is_closed = 0, perf_counter(), False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="idle", daemon=True)
        if idle_s is not None:
            self._thread.start()

    def hold(self) -> None:
        """Have the model loaded until `release`. Raises LocalspecError where it cannot be."""
        with self._changed:
            if not self.is_loaded:
                self.session = self._open_again()
                self.is_loaded = True
                self.on_loaded(self.session)
            self._n_holding += 1

    def release(self) -> None:
        """One holds it no longer."""
        with self._changed:
            self._n_holding -= 1
            self._since = perf_counter()
            self._changed.notify_all()

    def close(self) -> None:
        """Free it for good."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        self.session.close()

    def _run(self) -> None:
        with self._changed:
            while not self._is_closed:
                left_s = self._left_s()
                if left_s is None or left_s > 0:
                    self._changed.wait(left_s)
                elif not self.is_idle():
                    self._changed.wait(SOON_S)
                else:
                    self.on_freeing()
                    self.session.close()
                    self.is_loaded = False

    def _left_s(self) -> float | None:
        """Seconds until it is to be freed; None: until something changes."""
        if not self.is_loaded or self._n_holding or self.idle_s is None:
            return None
        return self._since + self.idle_s - perf_counter()


class HeldModel:
    """ASGI middleware: each request that needs the model holds it until its answer is over.

    `refusal`: an error as it is written at an address.
    """

    def __init__(
        self, app: ASGIApp, resident: Resident, refusal: Callable[[str, Problem], Response]
    ) -> None:
        self._app, self._resident, self._refusal = app, resident, refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in WITHOUT:
            await self._app(scope, receive, send)
            return
        try:
            await run_in_threadpool(self._resident.hold)
        except LocalspecError as error:
            problem = Problem(503, f"the model cannot be loaded again ({error})", retry_s=RETRY_S)
            await self._refusal(scope["path"], problem)(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            self._resident.release()
