"""The requests that wait for their turn, and who may run: both in order of arrival.

The queue is bounded. Whoever is refused is told when to come again: after so many usual replies as
wait before it. A request runs if a sequence is free and its worst case fits into the cells. One
whose prompt is being read for another waits until it can share what was read. One that wants a
certain sequence waits for that. Neither holds up those behind it.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from localspec.decode.driver import Slot
from localspec.decode.generation import Generation
from localspec.decode.step import Step
from localspec.engine.base import Engine, shared_prefix
from localspec.serve.messages import Account, BusyError, Failed, LateError, Submit
from localspec.serve.prefixes import Prefixes

USUAL_S, USUAL_GAIN = 2.0, 0.2
"""How long a reply takes before one was seen, and how fast that is learned."""
MOST_RETRY_S = 60.0


@dataclass(frozen=True, slots=True)
class Room:
    """`n_cells` of the cache for all together, and how many requests may wait.

    `deadline_s`: how long a request may take, its wait and all; None: as long as it takes.
    """

    n_cells: int
    n_waiting: int
    deadline_s: float | None = None


@dataclass(slots=True, eq=False)
class Job:
    """A request that waits or runs; `worst` is what it may come to hold, in cells."""

    asked: Submit
    id: int
    generation: Generation
    """Both as in `asked`."""
    account: Account
    came_s: float
    worst: int
    slot: Slot | None = None
    n_told: int = 0
    """Tokens of its reply that were told."""
    untold: list[tuple[Step, float]] = field(default_factory=list[tuple[Step, float]])
    """Its steps since then, and when they were done."""
    spoke_s: float | None = None
    tell_s: float = 0.0
    """When it got its newest token, and from when on it is told of more."""

    @classmethod
    def of(cls, asked: Submit, now: float) -> "Job":
        generation = asked.generation
        limits, n_prompt = generation.limits, generation.n_prompt
        longest = limits.n_ctx if limits.max_tokens is None else n_prompt + limits.max_tokens
        account = Account(n_prompt)
        account.timings.started = now
        worst = max(n_prompt, min(longest, limits.n_ctx))
        return cls(asked, asked.id, generation, account, now, worst)


class Queue:
    """`jobs` are those that wait; `n_at_once` requests run beside them."""

    def __init__(self, room: Room, n_at_once: int, clock: Callable[[], float]) -> None:
        self.jobs: deque[Job] = deque()
        self._room, self._n_at_once, self._clock = room, n_at_once, clock
        self._usual_s = USUAL_S

    def refusal(self, job: Job, n_open: int, *, is_closing: bool) -> Failed | None:
        """Why a request cannot wait; of those that do, `n_open` need not wait any longer."""
        if is_closing:
            return closing(job)
        if len(self.jobs) >= self._room.n_waiting + n_open:
            sentence = f"{len(self.jobs)} requests wait already: try again later"
            return Failed(job.id, BusyError(sentence, self.retry_s()))
        return None

    def leave(self, wanted: int) -> None:
        """A request is not wanted any more."""
        self.jobs = deque(job for job in self.jobs if job.id != wanted)

    def close(self) -> list[Failed]:
        """Nobody waits any longer."""
        jobs, self.jobs = self.jobs, deque()
        return [closing(job) for job in jobs]

    def expired(self) -> list[Failed]:
        """Let those go that have waited too long."""
        gone = [job for job in self.jobs if self._waits_too_long(job) or self.is_over(job)]
        for job in gone:
            self.jobs.remove(job)
        return [Failed(job.id, self._reason(job)) for job in gone]

    def is_over(self, job: Job) -> bool:
        """Whether a request has taken all the time that any may take."""
        deadline_s = self._room.deadline_s
        return deadline_s is not None and self._clock() - job.came_s > deadline_s

    def too_late(self) -> BusyError:
        """What such a request is told."""
        sentence = f"not answered within {self._room.deadline_s:g} s: ask for less, or later"
        return LateError(sentence, self.retry_s())

    def retry_s(self) -> float:
        """When a new request may find room."""
        n_before = len(self.jobs) + 1
        return min(MOST_RETRY_S, max(1.0, self._usual_s * n_before / self._n_at_once))

    def learn(self, took_s: float) -> None:
        """A reply took so long."""
        self._usual_s += USUAL_GAIN * (took_s - self._usual_s)

    def _waits_too_long(self, job: Job) -> bool:
        wait_s = job.asked.wait_s
        return wait_s is not None and self._clock() - job.came_s > wait_s

    def _reason(self, job: Job) -> BusyError:
        if self.is_over(job):
            return self.too_late()
        sentence = f"no turn came within {job.asked.wait_s:.0f} s: try again later"
        return BusyError(sentence, self.retry_s())


def closing(job: Job) -> Failed:
    """The answer of a server that ends."""
    sentence = "the server is closing: ask another one"
    return Failed(job.id, BusyError(sentence, 1.0, is_closing=True))


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
