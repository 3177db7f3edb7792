"""The loop that is all of decoding: plain or speculative, for one reply or many.

A pass drafts for every reply that runs, evaluates the drafts and some prompts in one decode, lets
each reply accept, and rolls the caches back. A prompt may be read in chunks, which yield no steps.
Its last token is pending, like the newest token of a reply, so the rest of a prompt goes along with
the first token's pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Self

from localspec.decode.drafters.base import Draft
from localspec.decode.generation import Generation
from localspec.decode.speculator import Speculator
from localspec.decode.step import Step
from localspec.engine.base import Context, Engine, Request, Result, missing
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.errors import LocalspecError


class Slot:
    """A generation and the context that it runs on, which keeps what it shares with the prompt.

    Of the prompt `n_read` tokens were read in chunks. `read_s` is what that took, and the rollback.
    """

    def __init__(self, generation: Generation, context: Context) -> None:
        """Raises Interrupted or EngineError where the cache cannot roll back but by evaluating."""
        self.generation = generation
        self.context = context
        self.n_read = 0
        started = perf_counter()
        missing(context, generation.history, 1)
        self.read_s = perf_counter() - started

    @property
    def unread(self) -> Sequence[int]:
        """What the context lacks of the history but for its last token."""
        return self.generation.history[len(self.context.tokens) : -1]


class Batch:
    """Who takes part in one pass.

    Each of `slots` gets a step. Of each of `chunks` that many tokens of a prompt are only read.
    """

    def __init__(self, slots: Sequence[Slot], chunks: Sequence[tuple[Slot, int]] = ()) -> None:
        self.slots = slots
        self.chunks = chunks
        self.generations = [slot.generation for slot in slots]
        self.n_other_rows = sum([n for _, n in chunks]) + sum([len(s.unread) for s in slots])
        self.width = 0
        self._n_rows: list[int] = []

    @classmethod
    def of(cls, slots: Sequence[Slot], n_chunk: int) -> Self:
        """All that are not finished, with at most `n_chunk` tokens of their prompts, in order."""
        running: list[Slot] = []
        chunks: list[tuple[Slot, int]] = []
        for slot in slots:
            if slot.generation.is_finished:
                continue
            n_unread = len(slot.unread)
            n = min(n_unread, n_chunk)
            n_chunk -= n
            if n == n_unread:
                running.append(slot)
            elif n:
                chunks.append((slot, n))
        return cls(running, chunks)

    def requests(self, drafts: Sequence[Draft]) -> list[Request]:
        """What to evaluate: what each context lacks with a draft behind it, and the chunks."""
        requests: list[Request] = []
        for slot, draft in zip(self.slots, drafts, strict=True):
            pending = slot.generation.history[len(slot.context.tokens) :]
            requests.append((slot.context, [*pending, *draft.tokens], 1 + len(draft.tokens)))
        for slot, n in self.chunks:
            requests.append((slot.context, slot.unread[:n], 0))
        self._n_rows = [len(tokens) for _, tokens, _ in requests]
        self.width = sum(self._n_rows)
        return requests

    def accept(self, drafts: Sequence[Draft], results: Sequence[Result]) -> list[Step]:
        """Let each generation accept; an error ends only the generation of its request.

        The steps know nothing of seconds yet.
        """
        for i, result in enumerate(results):
            if isinstance(result, LocalspecError):
                self.width -= self._n_rows[i]
                self._n_rows[i] = 0
                if i >= len(self.slots):
                    self.chunks[i - len(self.slots)][0].generation.fail(result)
        # Chunks stand behind the slots and have no step.
        parts = zip(self.generations, drafts, results, self._n_rows, strict=False)
        return [each.accept(draft, result, n) for each, draft, result, n in parts]

    def roll_back(self) -> None:
        """Leave each context in step with its history.

        The newest token of a reply that goes on is pending; at the end the next turn can use it.
        """
        for slot in self.slots:
            generation, context = slot.generation, slot.context
            n_kept = len(generation.history) - (0 if generation.is_finished else 1)
            if n_kept >= len(context.tokens):
                continue
            try:
                context.truncate(n_kept)
            except Interrupted:
                generation.finish("interrupted")
            except LocalspecError as error:
                generation.fail(error)

    def timed(
        self, steps: Sequence[Step], draft_s: float, eval_s: float, seconds: float
    ) -> list[Step]:
        """Split the pass's seconds by rows; a first step takes over what its chunks took."""
        a_row = 1 / max(1, self.width)
        for (slot, _), n in zip(self.chunks, self._n_rows[len(steps) :], strict=True):
            slot.n_read += n
            slot.read_s += seconds * n * a_row
        timed: list[Step] = []
        for slot, step in zip(self.slots, steps, strict=True):
            share, n_read, read_s = step.evaluated * a_row, slot.n_read, slot.read_s
            slot.n_read, slot.read_s = 0, 0.0
            timed.append(
                replace(
                    step,
                    evaluated=step.evaluated + n_read,
                    draft_s=draft_s * share,
                    eval_s=eval_s * share + read_s,
                    seconds=seconds * share + read_s,
                )
            )
        return timed


def step(batch: Batch, engine: Engine, speculator: Speculator) -> list[Step]:
    """One pass: a step for each of `batch.generations`, in order.

    A request that fails ends alone, with `Generation.error`. Raises Interrupted, or EngineError for
    all; then nothing is accepted, and every context holds no more than its history.
    """
    started = perf_counter()
    drafts = speculator.draft(batch.generations, batch.n_other_rows)
    drafted = perf_counter()
    try:
        results = engine.decode(batch.requests(drafts))
    except BaseException:
        batch.roll_back()
        raise
    evaluated = perf_counter()
    accepted = batch.accept(drafts, results)
    batch.roll_back()
    seconds = perf_counter() - started
    steps = batch.timed(accepted, drafted - started, evaluated - drafted, seconds)
    speculator.learn(steps, batch.width, seconds)
    return steps


def drive(
    generation: Generation, context: Context, speculator: Speculator, interrupt: Interrupt
) -> Iterator[Step]:
    """Yield one Step a pass of the target until the generation is finished.

    What `context` shares with the prompt is kept, the rest is evaluated with the first pass. On an
    interrupt the generation finishes with what it has, and the context stays in step with it.
    Raises LocalspecError where the engine or a drafter fails.
    """
    slots: list[Slot] = []
    while not generation.is_finished:
        try:
            slots = slots or [Slot(generation, context)]
            steps = step(Batch(slots), context.engine, speculator)
            if generation.error:
                raise generation.error
            yield from steps
        except Interrupted:
            generation.finish("interrupted")
        if interrupt.requested:
            generation.finish("interrupted")
