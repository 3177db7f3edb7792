"""The first stages: threads, ways to load, and every way to keep the cache, quickly.

A candidate gets a few turns beside the defaults at a depth that the budget allows for all of them;
attention's time is in proportion to depth, so the order is that of a deeper cache. One row and one
column of the table of types are measured, the rest is predicted from them (`space.additive`), and
the best of the rest are measured too.
"""

from dataclasses import replace
from statistics import median

from localspec.bench.statistics import estimate
from localspec.errors import LocalspecError
from localspec.tune.goal import LEAST_GAIN
from localspec.tune.rig import DISTURBED, Rig, Seat
from localspec.tune.settings import Attention
from localspec.tune.space import Space, additive, loadings, thread_counts
from localspec.tune.trial import Trial
from localspec.tune.work import FIRST_TOKENS, Work

TURNS = 3
THREAD_TURNS = 6
LOADING_TURNS = 8
LOADING_GAIN = 1.05
"""What other weights must gain: they take longer to load, or memory."""
STEP = 256
NEARLY = 0.95
"""Of the best candidate's predicted speed: what is worth measuring, too."""
SLOWER_FILL = 1.5
"""A candidate fills its cache by so much more slowly than the defaults, on average."""


def tune_threads(work: Work, until: float) -> None:
    """Adopt another number of threads for decoding where it is significantly faster."""
    n, gains = better_threads(work, work.default, min(FIRST_TOKENS, work.subject.middle), until)
    if gains:
        work.switch(work.rig, replace(work.setting, n_threads=n))
        work.trials.append(Trial(work.setting, gains))


def better_threads(work: Work, seat: Seat, depth: int, until: float) -> tuple[int, list[float]]:
    """Another number of threads for a seat and its gains by turn; none where it should stay."""
    now, batch = seat.setting.n_threads, seat.setting.n_threads_batch
    best_s = float("inf")
    gains = {count: list[float]() for count in thread_counts() if count != now}
    for turn in range(THREAD_TURNS):
        work.tell(f"threads: {now} or {', '.join(map(str, gains))}")
        if turn and work.clock.until(until) < 0:
            break
        for count, found in gains.items():
            base_s = work.rig.sample(seat, depth)
            best_s = min(best_s, base_s)
            if base_s > DISTURBED * best_s:
                continue
            seat.engine.set_threads(count, batch)
            found.append(base_s / work.rig.sample(seat, depth))
            seat.engine.set_threads(now, batch)
    enough = {n: found for n, found in gains.items() if len(found) >= THREAD_TURNS // 2}
    lows = {n: estimate([[gain] for gain in found]).low or 0 for n, found in enough.items()}
    best = max(lows, key=lambda n: lows[n], default=now)
    return (best, gains[best]) if lows.get(best, 0) > LEAST_GAIN else (now, [])


def try_loadings(work: Work, until: float) -> None:
    """Adopt another way to load the weights where it is significantly faster."""
    subject = work.subject
    others = loadings(work.setting.loading, subject.facts, subject.build, subject.free_bytes)
    depth = min(FIRST_TOKENS, subject.middle)
    for loading in others:
        cost = 2 * work.rig.load_s + depth / work.fill_per_s + work.turns_s(LOADING_TURNS)
        if work.clock.until(until) < cost:
            continue
        work.tell(f"weights: {loading.text}")
        trial = Trial(replace(work.setting, loading=loading))
        try:
            rig = Rig(subject.config, loading, work.interrupt)
            rig.n_tokens = work.rig.n_tokens
        except LocalspecError as error:
            work.notes.append(f"{loading.text}: {error}")
            continue
        with_rig = work.stack.enter_context(rig)
        work.compare(trial, rig, rig.seat(trial.setting, depth + STEP), depth, LOADING_TURNS)
        if (trial.gain.low or 0) > LOADING_GAIN:
            work.trials.append(trial)
            work.switch(with_rig, trial.setting)
        else:
            rig.close()


def screen(work: Work, space: Space, until: float) -> None:
    """Try every edge of the space, then the best of the rest, as far as the time goes."""
    if not work.subject.facts.layers or work.subject.facts.is_recurrent:
        return
    edges = [a for a in space.edges if not _is_default(a, work)]
    depth = _depth(work, len(edges) + 4, until)
    seconds = {Attention("f16", "f16", "on"): 1.0} if _is_auto_on(work) else {}
    for i, attention in enumerate(edges):
        work.tell(f"cache: {attention.text} ({i + 1} of {len(edges)})")
        _try(work, attention, depth, seconds)
        if work.clock.until(until) < _cost_s(work, depth):
            break
    rest = {a: s for a in space.attentions if a not in seconds and (s := additive(a, seconds))}
    for attention in sorted(rest, key=lambda a: rest[a]):
        best = min(seconds.values(), default=1.0)
        if rest[attention] * NEARLY > best or work.clock.until(until) < _cost_s(work, depth):
            break
        work.tell(f"cache: {attention.text}")
        _try(work, attention, depth, seconds)


def _try(work: Work, attention: Attention, depth: int, seconds: dict[Attention, float]) -> None:
    trial = work.try_attention(attention, depth, TURNS)
    if trial:
        seconds[attention] = 1 / median(trial.gains)


def _cost_s(work: Work, depth: int) -> float:
    """Of one more candidate."""
    return SLOWER_FILL * depth / work.fill_per_s + work.turns_s(TURNS)


def _depth(work: Work, n_candidates: int, until: float) -> int:
    """The deepest, up to the middle of the context, that the time allows for all candidates."""
    each = work.clock.until(until) / max(1, n_candidates) - work.turns_s(TURNS)
    affordable = int(each * work.fill_per_s / SLOWER_FILL) // STEP * STEP
    return min(work.subject.middle, max(STEP, affordable))


def _is_auto_on(work: Work) -> bool:
    """On the processor "auto" always means flash attention, so f16 with it is the default."""
    return work.subject.build.backend == "cpu"


def _is_default(attention: Attention, work: Work) -> bool:
    return _is_auto_on(work) and attention == Attention("f16", "f16", "on")
