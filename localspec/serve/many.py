"""Many replies on one engine at once, without a server, in the order of their prompts.

They are the scheduler's requests, so a beginning that prompts share is read once. Each reply is the
one that it would be alone. It is given away when all before it have been.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count

from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.errors import LocalspecError
from localspec.serve.messages import Delta, Done, Event, Failed, Submit
from localspec.serve.scheduler import Scheduler
from localspec.session.reply import Reply

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
