"""What is heard of one order's replies: from the engine's thread to its request's task.

A token costs its request one wake-up at most, and what came meanwhile is heard together. A
`LoopBell` wakes all requests that a pass has something for at once.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from starlette.types import Receive

from localspec.serve.engine_thread import EngineThread
from localspec.serve.messages import END, Event, Failed
from localspec.serve.order import Order

Heard = list[tuple[int, Event]]


class LoopBell:
    """Calls functions in the loop's thread, from any other; calls that are due together cost one
    wake-up of the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = deque[Callable[[], None]]()
        self._is_rung = False

    def ring(self, call: Callable[[], None]) -> None:
        """From another thread."""
        self._due.append(call)
        if not self._is_rung:
            self._is_rung = True
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._answer)

    def _answer(self) -> None:
        self._is_rung = False  # before the look: who comes later rings again
        while self._due:
            self._due.popleft()()


class Listening:
    """The events of an order's replies, with the places of their choices.

    `wait_s`: what they may wait in the queue. `silence_s`: after so long without an event `next`
    returns nothing, and None: never. Leaving it with `close` ends those that run.
    """

    def __init__(
        self,
        engine_thread: EngineThread,
        bell: LoopBell,
        order: Order,
        wait_s: float | None,
        silence_s: float | None,
    ) -> None:
        self._engine_thread, self._bell, self._silence_s = engine_thread, bell, silence_s
        self._loop = asyncio.get_running_loop()
        self._came = deque[Event]()
        self._is_called = False
        self._waiter: asyncio.Future[None] | None = None
        self._heard_s = self._loop.time()
        self._is_silent = False
        self._timer: asyncio.TimerHandle | None = None
        self._watch()
        self._open: dict[int, int] = {}
        for place, choice in enumerate(order.choices):
            id_ = engine_thread.new_id()
            self._open[id_] = place
            engine_thread.submit(choice.submit(id_, wait_s, order.wishes), self._hear)

    @property
    def is_over(self) -> bool:
        """Whether the last event was heard, or nobody listens."""
        return not self._open

    async def admitted(self) -> None:
        """Until the first reply waits for its turn. Raises why it may not."""
        while not self._came:
            self._waiter = self._loop.create_future()
            await self._waiter
        first = self._came[0]
        if isinstance(first, Failed):
            raise first.error

    async def next(self) -> Heard:
        """The events that have come, at least one; none after a silence, and where it is over."""
        while not self._came and not self._is_silent and self._open:
            self._waiter = self._loop.create_future()
            await self._waiter
        if not self._came:
            self._is_silent = False
            return []
        self._heard_s = self._loop.time()
        heard: Heard = []
        came, known = self._came, self._open
        while came:
            event = came.popleft()
            place = known.get(event.id)
            if place is None:
                continue
            if isinstance(event, END):
                del self._open[event.id]
            heard.append((place, event))
        return heard

    def close(self) -> None:
        """End what still runs."""
        for id_ in self._open:
            self._engine_thread.abort(id_)
        self._open.clear()
        if self._timer:
            self._timer.cancel()
        self._wake()

    def _hear(self, event: Event) -> None:
        """In the engine's thread."""
        self._came.append(event)
        if not self._is_called:
            self._is_called = True
            self._bell.ring(self._wake)

    def _wake(self) -> None:
        self._is_called = False
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _watch(self) -> None:
        """For silences: a look now and then is cheaper than a timer for each event."""
        if self._silence_s is None:
            return
        left_s = self._heard_s + self._silence_s - self._loop.time()
        if left_s <= 0:
            self._heard_s, left_s, self._is_silent = self._loop.time(), self._silence_s, True
            self._wake()
        self._timer = self._loop.call_later(left_s, self._watch)


async def hung_up(receive: Receive) -> None:
    """Until a request's client has gone away."""
    while (await receive())["type"] != "http.disconnect":
        pass
