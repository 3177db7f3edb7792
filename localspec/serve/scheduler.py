"""Who takes part in each pass: a plain object over messages, without a thread and without HTTP.

Replies go first: each gets its step in every pass. What the latency target leaves of the pass goes
to prompts: half of it to the one that came first, the rest to short ones, so that a long prompt
holds nobody up and is not held up itself. A request is admitted in order of arrival if its worst
case fits, prompt and longest reply, so no running request ever meets a full cache. A request that
fails ends alone. One that is cancelled takes part in no further pass.
"""

from collections import deque
from collections.abc import Callable, Sequence
from copy import deepcopy

from localspec.decode.driver import Batch, step
from localspec.decode.step import Step
from localspec.dialogue.markup import AnswerPart, joined
from localspec.engine.base import Context, Engine
from localspec.errors import LocalspecError, UserError
from localspec.serve.messages import (
    Abort,
    Delta,
    Done,
    Event,
    Failed,
    Message,
    Pass,
    Progress,
    Submit,
    Taken,
)
from localspec.serve.pace import Paced, shares
from localspec.serve.prefixes import Prefixes
from localspec.serve.problem import refused
from localspec.serve.queue import Admission, Job, Queue, Room
from localspec.session.reply import parsed

TELL_S = 0.02
"""Text of passes that are shorter is told together: nobody reads faster, and each message costs the
server and its reader as much as a part of a small model's pass."""


class Scheduler:
    """Requests on one engine; `clock` gives seconds. Call `step` while it is not `is_idle`."""

    def __init__(
        self,
        engine: Engine,
        prefixes: Prefixes,
        pace: Paced,
        room: Room,
        clock: Callable[[], float],
    ) -> None:
        self._engine, self._prefixes, self._pace = engine, prefixes, pace
        self.room, self._clock = room, clock
        self.n_sequences = prefixes.n_free
        self.queue = Queue(room, self.n_sequences, clock)
        self.running: list[Job] = []
        """In order of arrival."""
        self._admission = Admission(engine, prefixes, room, self.running)
        self.is_closing = False
        self._going: tuple[Batch, list[Job]] | None = None
        """The pass and its replies, while nobody comes, leaves or reads."""
        self.last: Pass | None = None
        """What the last call of `step` evaluated."""

    @property
    def target_s(self) -> float | None:
        """What a pass with prompts may take; None: by its cost."""
        return self._pace.target_s

    @property
    def contexts(self) -> list[Context]:
        """Of all sequences, in their order."""
        return self._prefixes.contexts

    @property
    def waiting(self) -> deque[Job]:
        """In order of arrival, too."""
        return self.queue.jobs

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.running

    def take(self, message: Message) -> list[Event]:
        """Take a message; what it leads to at once."""
        if isinstance(message, Submit):
            return [self._submitted(message)]
        if isinstance(message, Abort):
            self._abort(message.id)
            return []
        self.is_closing = True
        return list(self.queue.close())

    def step(self) -> list[Event]:
        """One pass. An engine that fails for all ends every reply that runs, and no other."""
        self.last = None
        events = self._before()
        batch, grown, read = self._batch()
        if not grown and not read:
            return events
        try:
            steps = step(batch, self._engine, self._pace)
        except LocalspecError as error:
            return events + self.fail_all(error)
        events += self._advanced(batch.width, grown, steps)
        for job in read:
            is_over = job.generation.is_finished
            events += self._ended(job) if is_over else self._progress(job)
        return events

    def fail_all(self, error: LocalspecError) -> list[Event]:
        """End every reply that runs."""
        for job in self.running:
            job.generation.fail(error)
        return [event for job in list(self.running) for event in self._ended(job)]

    def keep_all(self) -> None:
        """The engine is about to be freed: idle conversations go to disk, where that is wanted."""
        self._prefixes.keep_all()

    def keep(self, context: Context) -> None:
        """An idle sequence was filled from outside: others make room for it where that is due."""
        self._prefixes.give_back(context)
        taken = sum(each.worst for each in self.running) + self._prefixes.n_idle_tokens
        self._prefixes.forget(taken - self.room.n_cells, context.tokens)

    # requests come and go

    def _submitted(self, asked: Submit) -> Event:
        job = Job.of(asked, self._clock())
        slot = asked.wishes.slot
        if slot is not None and slot >= self.n_sequences:
            sentence = f"slot {slot} is none of 0 to {self.n_sequences - 1}"
            return Failed(job.id, refused(sentence, "id_slot"))
        if job.worst > self.room.n_cells:
            sentence = f"{job.worst:,} tokens do not fit into a cache of {self.room.n_cells:,}"
            return Failed(job.id, UserError(f"{sentence}: ask for fewer max_tokens"))
        refusal = self.queue.refusal(
            job, self._admission.n_open(self.waiting), is_closing=self.is_closing
        )
        if refusal:
            return refusal
        self.waiting.append(job)
        return Taken(job.id)

    def _abort(self, wanted: int) -> None:
        self.queue.leave(wanted)
        for job in [job for job in self.running if job.id == wanted]:
            job.generation.finish("interrupted")
            self._leave(job)

    def _before(self) -> list[Event]:
        """Whose time is over, and whose turn it is."""
        has_deadline, waits = self.room.deadline_s is not None, bool(self.queue.jobs)
        events: list[Event] = [*self.queue.expired()] if waits else []
        events += self._late() if has_deadline else ()
        return events + (self._admitted() if self.queue.jobs else [])

    def _late(self) -> list[Event]:
        """End those that run and whose deadline is over."""
        late = [job for job in self.running if self.queue.is_over(job)]
        for job in late:
            job.generation.fail(self.queue.too_late())
        return [event for job in late for event in self._ended(job)]

    def _admitted(self) -> list[Event]:
        """Those whose turn it is run from now on; one that has nothing to say is over."""
        events: list[Event] = []
        for job in self._admission.admitted(self.waiting):
            if job.generation.is_finished:
                events += self._ended(job)
                continue
            job.account.queued_s = self._clock() - job.came_s
            self.running.append(job)
            self._going = None
            events += self._progress(job)
        return events

    def _leave(self, job: Job) -> None:
        self.running.remove(job)
        self._going = None
        if job.slot:
            self._prefixes.give_back(job.slot.context)

    # a pass

    def _batch(self) -> tuple[Batch, list[Job], list[Job]]:
        """The pass, those that get a step in it, and those whose prompt is only read on."""
        if self._going:
            return *self._going, []
        ready: list[Job] = []
        reading: list[Job] = []
        for job in self.running:
            if job.slot:
                (reading if job.slot.is_reading else ready).append(job)
        chunks = self._chunks(ready, reading) if reading else []
        slots = [job.slot for job in ready if job.slot]
        parts = [(job.slot, n) for job, n in chunks if job.slot]
        batch = Batch(slots, parts)
        if not reading and len(ready) == len(self.running):
            self._going = batch, ready
        return batch, ready, [job for job, _ in chunks]

    def _chunks(self, ready: list[Job], reading: list[Job]) -> list[tuple[Job, int]]:
        """How much of which prompts is read. If the rest of one fits in, it joins `ready`."""
        # Whose prompt is read waits for no token: its depth makes nobody's usual pass longer.
        depth = max((len(job.generation.history) for job in ready), default=0)
        room = self._pace.n_rows(len(ready), depth)
        slots = [job.slot for job in reading if job.slot]
        given = shares([slot.n_chunk for slot in slots], room)
        chunks: list[tuple[Job, int]] = []
        for job, slot, n in zip(reading, slots, given, strict=True):
            if n == slot.n_unread and slot.pause is None:
                ready.append(job)
            elif n:
                chunks.append((job, n))
        return chunks

    def _advanced(self, width: int, jobs: Sequence[Job], steps: Sequence[Step]) -> list[Event]:
        """Note what a pass did, and tell those whose turn it is to hear of it."""
        now, n_users, n_drafted, n_tokens = self._clock(), len(self.running), 0, 0
        gaps_s: list[float] = []
        events: list[Event] = []
        for job, made in zip(jobs, steps, strict=True):
            n_drafted += made.drafted
            job.untold.append((made, now))
            if made.tokens:
                n_tokens += len(made.tokens)
                if job.spoke_s is not None:
                    gaps_s.append(now - job.spoke_s)
                job.spoke_s = now
            generation = job.generation
            if now >= job.tell_s and generation.finish_reason is None:
                events += self._told(job)
            if generation.finish_reason is not None:
                events += self._ended(job)
        self.last = Pass(n_users, len(self.queue.jobs), width, n_drafted, n_tokens, gaps_s)
        return events

    def _told(self, job: Job) -> list[Event]:
        """What the passes since the last time brought."""
        generation, parser, untold = job.generation, job.asked.parser, job.untold
        n = len(generation.history) - generation.n_prompt
        for made, _ in untold:
            n -= len(made.tokens)
        parts: list[AnswerPart] = []
        for each, now in untold:
            made, new = parsed(each, n, generation, parser)
            n += len(made.tokens)
            parts += new
            job.account.add(made, now)
            if parser.stops and parser.is_stopped:
                break
        events = [] if job.n_told else self._progress(job, untold[0][0].eval_s)
        if not (parser.stops or job.asked.wishes.accounts or generation.tells_chances):
            job.tell_s = untold[-1][1] + TELL_S
        untold.clear()
        if generation.is_finished:
            parts += parser.finish()
        return events + (self._delta(job, parts) if parts or self._is_to_tell(job) else [])

    def _delta(self, job: Job, parts: Sequence[AnswerPart]) -> list[Event]:
        generation, account = job.generation, None
        tokens = generation.history[generation.n_prompt + job.n_told :]
        job.n_told += len(tokens)
        if job.asked.wishes.accounts:
            account = deepcopy(job.account)
            account.n_tokens = job.n_told
        logprobs = generation.newest_logprobs(len(tokens))
        parts = joined(parts) if len(parts) > 1 else parts
        return [Delta(job.id, parts, tokens, account, logprobs)]

    def _is_to_tell(self, job: Job) -> bool:
        """Whether tokens without text are wanted, too: those that end a reply."""
        generation = job.generation
        return generation.is_finished and len(generation.logprobs) > job.n_told

    def _progress(self, job: Job, read_s: float | None = None) -> list[Event]:
        """What was read of a prompt, if somebody wants to hear it."""
        slot, account = job.slot, job.account
        if not job.asked.wishes.progress or slot is None or job.generation.error:
            return []
        n_held = account.n_prompt if read_s is not None else len(slot.context.tokens)
        n_read, read_s = n_held - account.n_cached, slot.read_s if read_s is None else read_s
        read_s = read_s if n_read else 0.0
        return [Progress(job.id, account.n_prompt, account.n_cached, n_read, read_s)]

    def _ended(self, job: Job) -> list[Event]:
        events = self._told(job) if job.untold else []
        if job in self.running:
            self._leave(job)
        generation, account = job.generation, job.account
        if generation.error:
            return [*events, Failed(job.id, generation.error)]
        account.n_tokens, account.finish_reason = generation.n_tokens, generation.finish_reason
        account.n_thought = job.asked.parser.n_tokens.get("thought", 0)
        self.queue.learn(self._clock() - job.came_s - account.queued_s)
        return [*events, Done(job.id, account)]
