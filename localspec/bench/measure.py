"""Measure one case: warm up, then repeat and keep every sample. A visit does so in a child process,
so that an engine that dies takes nothing with it.

Decoding runs through the session's own loop, so a speed is what a user gets; the engine's part is
kept apart. The prompt is of random tokens, as llama-bench's, unless the case has real ones: speed
depends on the text only where drafts do. Reading a prompt and decoding are both timed at the case's
depth; their tokens are rolled back in between, untimed.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from time import perf_counter

from localspec.bench.case import Case, Work, read_prompts
from localspec.bench.sample import LOOPING, Measurement, Sample, loops
from localspec.decode.driver import Batch, Slot, step
from localspec.decode.generation import Generation, Limits
from localspec.decode.speculator import Plain
from localspec.decode.stats import SourceStats
from localspec.engine.base import hold
from localspec.engine.interrupt import Interrupt
from localspec.engine.sampling import Sampling
from localspec.engine.timing import Timer, made_up_tokens, there_and_back
from localspec.hardware.detect import peak_resident_bytes
from localspec.notify import Notify, silent
from localspec.session.loading import load_engine, sound_plan
from localspec.session.placing import check_memory
from localspec.session.reply import Reply
from localspec.session.reply_options import ReplyOptions
from localspec.session.session import Session

GREEDY = Sampling(temperature=0)
WARM_UP_TOKENS = 4
CURVE_REPEATS = 3


def measure(case: Case, n_samples: int, stage: Notify = silent) -> Measurement:
    """Load the case's model, measure it and close it; `stage` hears each step.

    Raises LocalspecError, or KeyboardInterrupt.
    """
    notes: list[str] = []
    stage("loading")
    if case.work.batch > 1:
        with closing(ParallelBench(case, notes.append)) as bench:
            samples, load_s = tuple(bench.samples(n_samples, stage)), bench.load_s
        return Measurement(samples, {}, load_s, peak_resident_bytes(), notes=tuple(notes))
    with Session.open(case.session_config, notes.append) as session:
        samples = tuple(measure_session(session, case.work, n_samples, stage))
        curve = dict[int, tuple[float, ...]]()
        if case.work.widths:
            stage("timing wider passes")
            curve = verification_curve(session, case.work.depth, case.work.widths)
        load_s, speculation = session.load_s, session.speculation
    return Measurement(samples, curve, load_s, peak_resident_bytes(), speculation, tuple(notes))


def measure_session(
    session: Session, work: Work, n_samples: int, stage: Notify = silent
) -> Iterator[Sample]:
    """Warm up, then yield samples of one work on a loaded session; the context stays filled."""
    if work.prompts is not None:
        yield from _answers(session, work, stage)
        return
    if not work.n_gen and not work.n_prompt:
        return
    tokens = made_up_tokens(session.target.vocabulary.n_tokens, max(1, work.depth) + work.n_prompt)
    if work.depth:
        stage(f"filling {work.depth:,} tokens")
        hold(session.context, tokens[: work.depth], 0)
    _timed(session, tokens[: max(1, work.depth)], WARM_UP_TOKENS)
    for i in range(n_samples):
        stage(f"measuring {i + 1} of {n_samples}")
        yield _sample(session, work, tokens)


def verification_curve(
    session: Session, depth: int, widths: tuple[int, ...]
) -> dict[int, tuple[float, ...]]:
    """Seconds of passes of each width at a depth; the widths take turns.

    Verification needs logits of every token: open the session with that `draft_max`.
    """
    timer = Timer(session.context)
    timer.hold(depth)
    times: dict[int, list[float]] = {width: [] for width in widths}
    for turn, order in enumerate(there_and_back(widths, CURVE_REPEATS + 1)):
        for width in order:
            seconds = timer.seconds(width, depth, turn)
            if turn:  # the first warms up
                times[width].append(seconds)
    return {width: tuple(seconds) for width, seconds in times.items()}


def _sample(session: Session, work: Work, tokens: list[int]) -> Sample:
    """One repetition: decoding first, because the prompt's tokens are removed again."""
    decoded = Sample()
    if work.n_gen:
        start = tokens[: max(1, work.depth)]
        hold(session.context, start[:-1], 0)
        decoded = _timed(session, start, work.n_gen + 1)
    if not work.n_prompt:
        return replace(decoded, prefill_s=None, first_s=None, n_prompt=0)
    hold(session.context, tokens[: work.depth], 0)
    read = _timed(session, tokens[: work.depth + work.n_prompt], 1)
    return replace(decoded, prefill_s=read.prefill_s, first_s=read.first_s, n_prompt=read.n_prompt)


def _answers(session: Session, work: Work, stage: Notify) -> Iterator[Sample]:
    """One sample a question, each with an empty cache and a drafter that has not seen it."""
    assert work.prompts is not None
    prompts = read_prompts(work.prompts, work.per_category)
    _timed(session, session.raw_prompt("Once upon a time"), WARM_UP_TOKENS)
    for i, prompt in enumerate(prompts, 1):
        stage(f"question {i} of {len(prompts)}")
        session.context.truncate(0)
        session.forget()
        tokens = session.chat_prompt([{"role": "user", "content": prompt.text}])
        tokens = tokens[-(session.n_ctx - work.n_gen - 1) :]
        yield _timed(session, tokens, work.n_gen, category=prompt.category)


def _timed(
    session: Session, tokens: list[int], n_tokens: int, category: str | None = None
) -> Sample:
    """One reply, as a user gets it; the answer to a real question may end before `n_tokens`."""
    engine = session.target
    options = ReplyOptions(GREEDY, max_tokens=n_tokens, ignore_eos=category is None)
    reply = session.reply(tokens, options)
    after_first = engine.busy_s
    for i, _ in enumerate(reply):
        if i == 0:
            after_first = engine.busy_s
    if reply.finish_reason == "interrupted":
        raise KeyboardInterrupt
    return _of_reply(reply, engine.busy_s - after_first, category)


def _of_reply(reply: Reply, engine_s: float, category: str | None) -> Sample:
    watch, rest, drafts = reply.timings, reply.steps[1:], SourceStats()
    for each in rest:
        drafts.add(each)
    if category is not None and loops(reply.tokens):
        category = LOOPING
    return Sample(
        prefill_s=watch.prefill_s,
        first_s=watch.ttft_s,
        n_prompt=watch.n_prefilled,
        decode_s=watch.decode_s if rest else None,
        engine_s=engine_s,
        draft_s=drafts.draft_s,
        n_tokens=watch.n_tokens - watch.n_first,
        n_passes=len(rest),
        drafted=drafts.drafted,
        accepted=drafts.accepted,
        category=category,
        decode_j=watch.decode_j,
        by_position=drafts.by_position,
    )


class ParallelBench:
    """Several users at once: one decode serves all of their sequences (continuous batching's step).

    Each user's reply is a slot of one batch of the decoding loop. Close it.
    """

    def __init__(self, case: Case, notify: Notify) -> None:
        """Load. Raises LocalspecError."""
        self.work, n = case.work, case.work.batch
        plan = sound_plan(case.session_config, notify)
        config = replace(plan.target.with_settings(n_sequences=n), n_outputs=n)
        check_memory([(config, plan.facts)])
        started = perf_counter()
        self._engine = load_engine(config, Interrupt(), lambda fraction: None)
        self.load_s = perf_counter() - started
        self._contexts = [self._engine.context() for _ in range(n)]
        n_each = max(1, case.work.depth) + case.work.n_prompt
        tokens = made_up_tokens(self._engine.vocabulary.n_tokens, n_each * n)
        self._prompts = [tokens[i * n_each :][:n_each] for i in range(n)]

    def close(self) -> None:
        self._engine.close()

    def samples(self, n_samples: int, stage: Notify) -> Iterator[Sample]:
        """Warm up, then measure."""
        depth = max(1, self.work.depth)
        stage(f"filling {len(self._contexts)} x {depth:,} tokens")
        self._decode(2)
        for i in range(n_samples):
            stage(f"measuring {i + 1} of {n_samples}")
            decoded = self._decode(self.work.n_gen) if self.work.n_gen else Sample()
            if not self.work.n_prompt:
                yield decoded
                continue
            prefill_s = self._prefill()
            n_read = self.work.n_prompt * self.work.batch
            yield replace(decoded, prefill_s=prefill_s, first_s=prefill_s, n_prompt=n_read)

    def _prefill(self) -> float:
        """Seconds to read all prompts at the depth, up to the first token of each."""
        for context in self._contexts:
            context.truncate(min(self.work.depth, len(context.tokens)))
        batch = self._batch(self.work.depth + self.work.n_prompt, 1)
        started = perf_counter()
        self._pass(batch)
        return perf_counter() - started

    def _decode(self, n_tokens: int) -> Sample:
        """`n_tokens` passes, after a first one that brings all sequences to the depth."""
        batch = self._batch(max(1, self.work.depth), n_tokens + 1)
        self._pass(batch)
        started, busy = perf_counter(), self._engine.busy_s
        for _ in range(n_tokens):
            self._pass(batch)
        return Sample(
            decode_s=perf_counter() - started,
            engine_s=self._engine.busy_s - busy,
            n_tokens=n_tokens * len(batch.slots),
            n_passes=n_tokens,
        )

    def _pass(self, batch: Batch) -> None:
        step(batch, self._engine, Plain())
        for generation in batch.generations:
            if generation.error:
                raise generation.error

    def _batch(self, n_prompt: int, n_tokens: int) -> Batch:
        """Replies of `n_tokens` tokens to the first `n_prompt` of each user's prompt."""
        limits = Limits(self._engine.config.n_ctx, n_tokens)
        replies = [Generation(prompt[:n_prompt], GREEDY, limits) for prompt in self._prompts]
        return Batch([Slot(*pair) for pair in zip(replies, self._contexts, strict=True)])
