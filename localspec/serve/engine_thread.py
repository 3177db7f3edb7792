"""The one thread that owns the engine; others leave messages for it.

Between two passes the thread takes what has come, and tells each request's listener what became of
it. A listener is called in the engine's thread and must only pass the event on.

Without a server `Many` drives the scheduler: many replies at once, in the order of their prompts.
They are requests like others, so a beginning that prompts share is read once. Each reply is the one
that it would be alone. It is given away when all before it have been.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from queue import SimpleQueue
from time import perf_counter
from typing import Any, Generic, TypeVar

from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.errors import EngineError, LocalspecError
from localspec.serve.messages import (
    END,
    Abort,
    BusyError,
    Delta,
    Done,
    Drain,
    Event,
    Failed,
    Message,
    Pass,
    Submit,
)
from localspec.serve.metrics import Metrics, Recent
from localspec.serve.scheduler import Scheduler
from localspec.session.reply import Reply
from localspec.session.session import Session

Listener = Callable[[Event], None]
T = TypeVar("T")
_log = logging.getLogger("localspec.serve")
COUNTED_S = 0.2
"""How late a pass may be counted."""
MOST_BUGS = 3
"""Passes in a row that fail in an unknown way, before the server calls itself broken."""


@dataclass(frozen=True, slots=True)
class _Call(Generic[T]):
    run: Callable[[Scheduler], T]
    future: Future[T]

    def answer(self, scheduler: Scheduler) -> None:
        """Whatever goes wrong is the caller's."""
        try:
            self.future.set_result(self.run(scheduler))
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            self.future.set_exception(error)


class EngineThread:
    """Starts with `start`. `submit` and `abort` are safe from any thread.

    `remake`: the scheduler of another session.
    """

    def __init__(
        self, scheduler: Scheduler, remake: Callable[[Session], Scheduler] | None = None
    ) -> None:
        self.scheduler, self.clock = scheduler, perf_counter
        self.remake = remake or (lambda session: self.scheduler)
        self.metrics, self.recent = Metrics(), Recent()
        self.began = self.clock()
        self._messages = SimpleQueue[tuple[Message | _Call[Any], Listener | None]]()
        self._listeners: dict[int, Listener] = {}
        self._ids = count(1)
        self._n_bugs = 0
        self._is_stopped = False
        self._passes: list[tuple[Pass, float, float]] = []
        """With their starts and ends: those that are not counted yet."""
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why no request can be answered now."""
        if self._n_bugs >= MOST_BUGS or not self._thread.is_alive():
            return "the engine has failed: start the server again"
        return "the server is closing" if self.scheduler.is_closing else None

    def new_id(self) -> int:
        """For a request."""
        return next(self._ids)

    def submit(self, asked: Submit, listener: Listener) -> None:
        """Ask for a reply; `listener` hears the events of it, the last one a Done or Failed."""
        if not self._thread.is_alive():
            busy = BusyError("the server is closing: ask another one", 1.0, is_closing=True)
            listener(Failed(asked.id, busy))
            return
        self._messages.put((asked, listener))

    def abort(self, wanted: int) -> None:
        """Nobody listens to that request any more."""
        self._messages.put((Abort(wanted), None))

    def call(self, run: Callable[[Scheduler], T]) -> Future[T]:
        """Have something done in the engine's thread, between two passes."""
        call = _Call(run, Future[T]())
        if self._thread.is_alive():
            self._messages.put((call, None))
        else:
            call.future.set_exception(BusyError("the server is closing", 1.0, is_closing=True))
        return call.future

    def drain(self) -> None:
        """Take no more requests; the thread ends with those that are here."""
        self._messages.put((Drain(), None))

    def cut(self) -> None:
        """End what runs, with the next pass."""
        self._is_stopped = True
        self.drain()  # wakes the thread up

    def close(self, wait_s: float) -> None:
        """Drain for at most `wait_s` seconds, then end what still runs."""
        self.drain()
        if self._thread.ident is not None:
            self._thread.join(wait_s)
            self.cut()
            self._thread.join()
        self._receive(is_patient=False)  # what came between its last look and its end

    # in the thread

    def _run(self) -> None:
        while not self._is_stopped:
            if is_idle := self.scheduler.is_idle:
                if self.scheduler.is_closing:
                    break
                self._count_passes()
            self._receive(is_patient=is_idle)
            if not self.scheduler.is_idle:
                self._pass()
        self._tell(self.scheduler.fail_all(EngineError("the server was stopped")))
        self._receive(is_patient=False)

    def _receive(self, *, is_patient: bool) -> None:
        """Take all messages that are there; wait for one if there is nothing else to do."""
        while is_patient or not self._messages.empty():
            message, listener = self._messages.get()  # nobody else takes any
            is_patient = False
            if isinstance(message, _Call):
                message.answer(self.scheduler)
                continue
            if listener and isinstance(message, Submit):
                self._listeners[message.id] = listener
            if isinstance(message, Abort):
                self.metrics.n_aborted += self._listeners.pop(message.id, None) is not None
            self._tell(self.scheduler.take(message))

    def _pass(self) -> None:
        started = self.clock()
        try:
            events = self.scheduler.step()
        except Exception as error:  # noqa: BLE001 - one bug must not end the server
            self._n_bugs += 1
            _log.exception("a pass failed")
            self._tell(self.scheduler.fail_all(EngineError(f"a bug in localspec ({error!r})")))
            return
        self._n_bugs = 0
        if passed := self.scheduler.last:
            self._passes.append((passed, started, ended := self.clock()))
            if ended - self._passes[0][1] > COUNTED_S:
                self._count_passes()
        self._tell(events)

    def _tell(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, END):
                self._count_passes()  # who hears of an end may ask for the counts at once
                self._count(event)
                listener = self._listeners.pop(event.id, None)
            else:
                listener = self._listeners.get(event.id)
            if listener:
                listener(event)

    def _count_passes(self) -> None:
        """Many at once: one after another they would meet cold caches each time."""
        for passed, started, ended in self._passes:
            self.metrics.add_pass(passed)
            self.recent.add(passed, started, ended)
        self._passes.clear()

    def _count(self, event: Done | Failed) -> None:
        if isinstance(event, Done):
            self.metrics.add(event.account)
        else:
            is_busy = isinstance(event.error, BusyError)
            self.metrics.n_refused += is_busy
            self.metrics.n_failed += not is_busy


AHEAD = 64
"""Replies that are made or wait while the oldest of them is not done."""


class Many:
    """The replies of a row; each of `asked` has not begun, or is why there is none. `interrupt`:
    the engine's, which Ctrl-C sets."""

    def __init__(
        self, scheduler: Scheduler, interrupt: Interrupt, asked: Iterable[Reply | LocalspecError]
    ) -> None:
        self._scheduler, self._interrupt, self._asked = scheduler, interrupt, iter(asked)
        self._row = deque[int]()
        self._replies: dict[int, Reply] = {}
        self._done: dict[int, Reply | LocalspecError] = {}
        self._ids = count()

    def answered(self) -> Iterator[tuple[int, Reply | LocalspecError]]:
        """All of them in order, with their places from 0. On Ctrl-C those that are done, then
        KeyboardInterrupt."""
        with self._interrupt as interrupt:
            try:
                while self._fill():
                    yield from self._first()
                    for event in self._scheduler.step():
                        self._hear(event)
                    if interrupt.requested:
                        raise Interrupted
                yield from self._first()
            except Interrupted:
                self._row = deque(each for each in self._row if each in self._done)
                yield from self._first()
                raise KeyboardInterrupt from None

    def _fill(self) -> bool:
        """Ask for more, as far as there is room; whether anything is to be done yet."""
        while len(self._row) < AHEAD:
            asked = next(self._asked, None)
            if asked is None:
                break
            place = next(self._ids)
            self._row.append(place)
            if isinstance(asked, Reply):
                self._submit(place, asked)
            else:
                self._done[place] = asked
        return not self._scheduler.is_idle

    def _submit(self, place: int, reply: Reply) -> None:
        self._replies[place] = reply
        for event in self._scheduler.take(Submit(place, *reply.parts_to_make)):
            self._hear(event)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Delta):
            self._replies[event.id].hear(event.parts)
        elif isinstance(event, Failed):
            self._done[event.id] = event.error
            del self._replies[event.id]
        elif isinstance(event, Done):
            self._done[event.id] = reply = self._replies.pop(event.id)
            reply.settle(event.account.stats, event.account.timings)

    def _first(self) -> Iterator[tuple[int, Reply | LocalspecError]]:
        while self._row and self._row[0] in self._done:
            place = self._row.popleft()
            yield place, self._done.pop(place)
