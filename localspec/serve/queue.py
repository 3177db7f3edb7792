"""The requests that wait for their turn: a bounded queue in order of arrival.

Whoever is refused is told when to come again: after so many usual replies as wait before it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from localspec.decode.driver import Slot
from localspec.decode.generation import Generation
from localspec.decode.step import Step
from localspec.serve.messages import Account, BusyError, Failed, LateError, Submit

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
        return cls(asked, account, now, max(n_prompt, min(longest, limits.n_ctx)))

    @property
    def id(self) -> int:
        return self.asked.id

    @property
    def generation(self) -> Generation:
        return self.asked.generation


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
