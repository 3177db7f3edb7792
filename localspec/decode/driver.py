"""The loop that is all of decoding: plain or speculative, for one reply or many.

A pass drafts for every reply that runs, evaluates the drafts and some prompts in one decode, lets
each reply accept, and takes the caches back. A prompt may be read in chunks, which yield no steps.
Its last token is pending, like the newest token of a reply, so the rest of a prompt goes along with
the first token's pass.
"""

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Self

from localspec.decode.drafters.base import Draft
from localspec.decode.generation import Generation
from localspec.decode.speculator import Speculator
from localspec.decode.step import Step
from localspec.engine.base import Context, Engine, Request, Result, missing, shared_prefix
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.errors import LocalspecError


class Slot:
    """A generation and the context that it runs on, which keeps what it shares with the prompt.

    `places`: so many tokens of the prompt may be those of another one, too. A memory that could not
    go back there pauses there for a checkpoint. Of the prompt `n_read` tokens were read in chunks.
    `read_s` is what that took, with going back and the checkpoint.
    """

    def __init__(
        self, generation: Generation, context: Context, places: Sequence[int] = ()
    ) -> None:
        self.generation = generation
        self.context = generation.context = context
        self.n_read = 0
        started = perf_counter()
        missing(context, generation.history, 1)
        n_most = len(generation.history) - 1
        self._places = sorted({min(n, n_most) for n in places if n}, reverse=True)
        self.pause: int | None = None
        """At how many tokens a checkpoint is to be taken before the first step."""
        self.take_checkpoint()
        self.read_s = perf_counter() - started

    @property
    def n_unread(self) -> int:
        """How much of the history the context lacks, but for its last token."""
        return len(self.generation.history) - 1 - len(self.context.tokens)

    @property
    def is_reading(self) -> bool:
        """Whether a part of the prompt is to be read before the first step."""
        lacks = len(self.generation.history) - 1 > len(self.context.tokens)
        return lacks or self.pause is not None

    @property
    def n_chunk(self) -> int:
        """How much of it can be read before the next pause."""
        return self.n_unread if self.pause is None else self.pause - len(self.context.tokens)

    def take_checkpoint(self) -> None:
        """If this is the place for it; then another one is next."""
        while self.pause is None or len(self.context.tokens) >= self.pause:
            if self.pause is not None:
                self.context.checkpoint()
            if not self._places:
                self.pause = None
                return
            self.pause = self.context.checkpoint_place(self._places.pop())


class Batch:
    """Who takes part in one pass.

    Each of `slots` gets a step. Of each of `chunks` that many tokens of a prompt are only read.
    """

    def __init__(self, slots: Sequence[Slot], chunks: Sequence[tuple[Slot, int]] = ()) -> None:
        self.slots = slots
        self.chunks = chunks
        self.generations = [slot.generation for slot in slots]
        self.n_other_rows = sum(n for _, n in chunks) + sum(slot.n_unread for slot in slots)
        """Rows of prompts that are evaluated in this pass."""
        self.width = 0
        self._n_rows: list[int] = []

    @classmethod
    def of(cls, slots: Sequence[Slot], n_chunk: int) -> Self:
        """All that are not finished, with at most `n_chunk` tokens of their prompts, in order."""
        running: list[Slot] = []
        chunks: list[tuple[Slot, int]] = []
        for slot in slots:
            if slot.generation.finish_reason is not None:
                continue
            n = min(slot.n_chunk, n_chunk)
            n_chunk -= n
            if n == slot.n_unread and slot.pause is None:
                running.append(slot)
            elif n:
                chunks.append((slot, n))
        return cls(running, chunks)

    def requests(self, drafts: Sequence[Draft]) -> list[Request]:
        """What to evaluate: what each context lacks with a draft behind it, and the chunks."""
        requests: list[Request] = []
        self._n_rows = n_rows = []
        for slot, draft in zip(self.slots, drafts, strict=True):
            lacking = slot.generation.history[len(slot.context.tokens) :]
            requests.append((slot.context, [*lacking, *draft.tokens], 1 + len(draft.tokens)))
            n_rows.append(len(lacking) + len(draft.tokens))
        for slot, n in self.chunks:
            start = len(slot.context.tokens)
            requests.append((slot.context, slot.generation.history[start : start + n], 0))
            n_rows.append(n)
        return requests

    def accept(self, drafts: Sequence[Draft], results: Sequence[Result]) -> list[list[int]]:
        """Let each generation accept; what it grew by. An error ends only its own generation."""
        for i, result in enumerate(results):
            if isinstance(result, LocalspecError):
                self._n_rows[i] = 0
                if i >= len(self.slots):
                    self.chunks[i - len(self.slots)][0].generation.fail(result)
        self.width = sum(self._n_rows)
        grown: list[list[int]] = []
        for generation, draft, result in zip(self.generations, drafts, results, strict=False):
            grown.append(generation.accept(draft, result))
        return grown

    def roll_back(self) -> None:
        """Leave each context in step with its history.

        The newest token of a reply that goes on is pending; at the end the next turn can use it.
        """
        for slot in self.slots:
            generation, context = slot.generation, slot.context
            n_kept = len(generation.history) - (generation.finish_reason is None)
            if n_kept < len(context.tokens):
                context.go_back(n_kept)
        for slot, _ in self.chunks:
            slot.take_checkpoint()

    def steps(
        self,
        drafts: Sequence[Draft],
        grown: Sequence[list[int]],
        draft_s: float,
        eval_s: float,
        seconds: float,
    ) -> list[Step]:
        """An account for each of `slots`; the pass's seconds are split by rows.

        A first step takes over what the chunks of its prompt took. Another pass of the same slots
        can follow.
        """
        for i, (slot, _) in enumerate(self.chunks, len(self.slots)):
            slot.n_read += self._n_rows[i]
            slot.read_s += seconds * self._n_rows[i] / max(1, self.width)
        steps: list[Step] = []
        for slot, draft, new, n in zip(self.slots, drafts, grown, self._n_rows, strict=False):
            share = n / self.width if n else 0.0
            n_accepted = shared_prefix(new, draft.tokens) if draft.tokens else 0
            steps.append(
                Step(
                    tuple(new),
                    len(draft.tokens),
                    n_accepted,
                    draft.source,
                    n + slot.n_read,
                    draft_s * share,
                    eval_s * share + slot.read_s,
                    draft.confidences,
                    draft.why,
                    seconds * share + slot.read_s,
                )
            )
            slot.n_read, slot.read_s = 0, 0.0
        self.chunks, self.n_other_rows = (), 0
        return steps


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
    grown = batch.accept(drafts, results)
    batch.roll_back()
    seconds = perf_counter() - started
    steps = batch.steps(drafts, grown, drafted - started, evaluated - drafted, seconds)
    speculator.learn(steps, batch.width, seconds)
    return steps


def drive(
    generation: Generation,
    context: Context,
    speculator: Speculator,
    interrupt: Interrupt,
    places: Sequence[int] = (),
) -> Iterator[Step]:
    """Yield one Step a pass of the target until the generation is finished.

    What `context` shares with the prompt is kept, the rest is evaluated before the first step and
    with it; see `Slot` for `places`. On an interrupt the generation finishes with what it has,
    and the context stays in step with it. Raises LocalspecError where the engine or a drafter
    fails.
    """
    slot: Slot | None = None
    batch, engine = Batch([]), context.engine
    while generation.finish_reason is None:
        try:
            slot = slot or Slot(generation, context, places)
            batch = batch if batch.slots else Batch.of([slot], len(generation.history))
            steps = step(batch, engine, speculator)
            if generation.error:
                raise generation.error
            yield from steps
        except Interrupted:
            generation.finish("interrupted")
        if interrupt.requested:
            generation.finish("interrupted")
