"""Who may run: in order of arrival, if a sequence is free and the worst case fits into the cells.

One whose prompt is being read for another waits until it can share what was read. One that wants a
certain sequence waits for that. Neither holds up those behind it.
"""

from collections import deque
from collections.abc import Iterator, Sequence

from localspec.decode.driver import Slot
from localspec.engine.base import Engine, shared_prefix
from localspec.serve.prefixes import Prefixes
from localspec.serve.queue import Job, Room

WORTH_WAIT = 32
"""Tokens that another one is reading, and that need not be read twice."""


class Admission:
    """Beside those that are `running`, a list that its owner keeps."""

    def __init__(
        self, engine: Engine, prefixes: Prefixes, room: Room, running: Sequence[Job]
    ) -> None:
        self._prefixes, self._room, self._running = prefixes, room, running
        self._shares = engine.rollback_limit is None
        """Whether a sequence can take over what another one holds."""

    def admitted(self, waiting: deque[Job]) -> Iterator[Job]:
        """Take those whose turn it is out of `waiting`, with a context; the caller lets them run,
        or ends them where they are finished."""
        for job in tuple(waiting):
            if not job.generation.is_finished:
                if self._waits_for_another(job):
                    continue
                if not self._prefixes.n_free or self._n_lacking(job) > self._n_spare:
                    return
                self._seat(job)
            waiting.remove(job)
            yield job

    def n_open(self, waiting: Sequence[Job]) -> int:
        """Of the waiting ones, so many need not wait longer than this pass."""
        is_blocked = bool(waiting) and self._n_lacking(waiting[0]) > self._n_spare
        return 0 if is_blocked else self._prefixes.n_free

    def _waits_for_another(self, job: Job) -> bool:
        slot = job.asked.wishes.slot
        if slot is not None and not self._prefixes.is_free(slot):
            return True
        return self._shares and job.asked.wishes.reuses and self._is_being_read(job)

    def _is_being_read(self, job: Job) -> bool:
        prompt = job.generation.history
        slots = [each.slot for each in self._running if each.slot and each.slot.n_unread]
        if not slots:
            return False
        n_worth = self._prefixes.n_held(prompt) + WORTH_WAIT
        return any(shared_prefix(slot.generation.history, prompt) >= n_worth for slot in slots)

    @property
    def _n_spare(self) -> int:
        return self._prefixes.n_idle_tokens

    def _n_lacking(self, job: Job) -> int:
        """Cells that idle sequences must give up for a job."""
        taken = sum(each.worst for each in self._running) + self._prefixes.n_idle_tokens
        return taken + job.worst - self._room.n_cells

    def _seat(self, job: Job) -> None:
        generation, wishes = job.generation, job.asked.wishes
        self._prefixes.forget(self._n_lacking(job), generation.history)
        known = generation.history if wishes.reuses else []
        context, job.account.n_cached = self._prefixes.take(
            known, goes_on=wishes.goes_on, place=wishes.slot, n_room=job.worst
        )
        job.slot = Slot(generation, context, (job.asked.n_stable,))
