"""Measure one case in this process: warm up, then repeat, keeping every sample.

Decoding runs through the session's own loop, so that a speed is what a user gets, and the engine's
part of it is kept apart. The prompt is of random tokens, as llama-bench's, unless the case has real
ones; speed depends on the text only where drafts do. A prompt's time is taken at the case's depth,
and so is that of decoding: what both add is rolled back in between, untimed.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from localspec.bench.case import Case, Work
from localspec.bench.parallel import ParallelBench
from localspec.bench.prompts import read_prompts
from localspec.bench.sample import Measurement, Sample
from localspec.engine.sampling import Sampling
from localspec.hardware.detect import peak_resident_bytes
from localspec.session import Reply, ReplyOptions, Session

GREEDY = Sampling(temperature=0)
WARM_UP_TOKENS = 4
CURVE_REPEATS = 3
SEED = 1

Stage = Callable[[str], None]


def measure(case: Case, n_samples: int, stage: Stage = lambda sentence: None) -> Measurement:
    """Load the case's model, measure, and let go of it; `stage` hears what is being done.

    Raises LocalspecError, or KeyboardInterrupt.
    """
    notes: list[str] = []
    stage("loading")
    if case.work.batch > 1:
        with ParallelBench.open(case, notes.append) as bench:
            return _measurement(bench.samples(n_samples, stage), {}, bench.load_s, "none", notes)
    with Session.open(case.session_config, notes.append) as session:
        curve = dict[int, tuple[float, ...]]()
        samples = iter(list(measure_session(session, case.work, n_samples, stage)))
        if case.work.widths:
            stage("timing wider passes")
            curve = verification_curve(session, case.work.depth, case.work.widths)
        return _measurement(samples, curve, session.load_s, session.speculation, notes)


def measure_session(
    session: Session, work: Work, n_samples: int, stage: Stage = lambda sentence: None
) -> Iterator[Sample]:
    """Samples of one work on a loaded session, warmed up first; the context is left filled."""
    if work.prompts is not None:
        yield from _answers(session, work, stage)
        return
    if not work.n_gen and not work.n_prompt:
        return
    tokens = random_tokens(session.target.vocabulary.n_tokens, max(1, work.depth) + work.n_prompt)
    if work.depth:
        stage(f"filling {work.depth:,} tokens")
        _hold(session, tokens[: work.depth])
    _timed(session, tokens[: max(1, work.depth)], WARM_UP_TOKENS)
    for i in range(n_samples):
        stage(f"measuring {i + 1} of {n_samples}")
        yield _sample(session, work, tokens)


def verification_curve(
    session: Session, depth: int, widths: tuple[int, ...]
) -> dict[int, tuple[float, ...]]:
    """Seconds of passes of each width at a depth, the widths in turns (A B B A).

    A check of drafts wants logits of every token: open the session for as many drafts.
    """
    context, engine = session.context, session.target
    tokens = random_tokens(engine.vocabulary.n_tokens, depth + max(widths))
    _hold(session, tokens[:depth])
    times: dict[int, list[float]] = {width: [] for width in widths}
    for turn in range(CURVE_REPEATS + 1):
        for width in widths if turn % 2 else widths[::-1]:
            before = engine.busy_s
            context.eval(tokens[depth : depth + width], min(width, engine.config.n_outputs))
            if turn:
                times[width].append(engine.busy_s - before)
            context.truncate(depth)
    return {width: tuple(seconds) for width, seconds in times.items()}


def random_tokens(n_vocab: int, n_tokens: int) -> list[int]:
    """The same ones each time, so that what is cached of them can be kept."""
    return np.random.default_rng(SEED).integers(n_vocab, size=n_tokens).tolist()


def _hold(session: Session, tokens: list[int]) -> None:
    """Fill the context with exactly these."""
    context = session.context
    kept = context.tokens[: len(tokens)] == tokens[: len(context.tokens)]
    context.truncate(min(len(context.tokens), len(tokens)) if kept else 0)
    rest = tokens[len(context.tokens) :]
    if rest:
        context.eval(rest, 0)


def _sample(session: Session, work: Work, tokens: list[int]) -> Sample:
    """One repetition: the decoding first, because the prompt's tokens must go again."""
    decoded = Sample()
    if work.n_gen:
        start = tokens[: max(1, work.depth)]
        _hold(session, start[:-1])
        decoded = _timed(session, start, work.n_gen + 1)
    if not work.n_prompt:
        return replace(decoded, prefill_s=None, first_s=None, n_prompt=0)
    _hold(session, tokens[: work.depth])
    read = _timed(session, tokens[: work.depth + work.n_prompt], 1)
    return replace(decoded, prefill_s=read.prefill_s, first_s=read.first_s, n_prompt=read.n_prompt)


def _answers(session: Session, work: Work, stage: Stage) -> Iterator[Sample]:
    """One sample a question, each with an empty cache and a drafter that knows nothing of it."""
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
    """One reply, as a user would get it; real questions may end before `n_tokens`."""
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
    watch, rest = reply.timings, reply.steps[1:]
    return Sample(
        prefill_s=watch.prefill_s,
        first_s=watch.ttft_s,
        n_prompt=watch.n_prefilled,
        decode_s=watch.decode_s if rest else None,
        engine_s=engine_s,
        draft_s=sum(step.draft_s for step in rest),
        n_tokens=watch.n_tokens - watch.n_first,
        n_passes=len(rest),
        drafted=sum(step.drafted for step in rest),
        accepted=sum(step.accepted for step in rest),
        category=category,
    )


def _measurement(
    samples: Iterator[Sample],
    curve: dict[int, tuple[float, ...]],
    load_s: float,
    speculation: str,
    notes: list[str],
) -> Measurement:
    taken = tuple(samples)
    return Measurement(taken, curve, load_s, peak_resident_bytes(), speculation, tuple(notes))
