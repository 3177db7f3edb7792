"""The first stages of a search: threads, loading, every cache type quickly, then the finalists.

A candidate gets a few turns beside the defaults, at a depth that the budget allows for all of them.
Attention time is proportional to depth, so the order holds for a deeper cache. Screening measures
one row and one column of the table of types, predicts the rest (`target.additive`) and measures the
best of them.

Successive halving (Jamieson and Talwalkar 2016) then measures the best in the middle of the
context: all finalists get a few turns, the better half twice as many, until two are left. These two
keep their caches for the duel.
"""

from dataclasses import replace
from statistics import median

from localspec.bench.statistics import estimate
from localspec.engine.threads import thread_counts
from localspec.errors import LocalspecError
from localspec.settings import Attention
from localspec.tuning.shared_weights import Candidate, SharedWeights, gains_of, turns
from localspec.tuning.state import FIRST_TOKENS, SearchState, Trial
from localspec.tuning.target import LEAST_GAIN, Space, additive, loading_text, loadings

TURNS = 3
THREAD_TURNS = 6
LOADING_TURNS = 8
LOADING_GAIN = 1.05
"""The gain that another loading must bring: it costs load time or memory."""
STEP = 256
NEARLY = 0.95
"""Share of the best candidate's speed from which a predicted one is worth measuring."""
SLOWER_FILL = 1.5
"""Average time of a candidate to fill its cache, over the defaults'."""


def tune_threads(work: SearchState, until: float) -> None:
    """Adopt another number of decoding threads if it is significantly faster."""
    n, gains = better_threads(work, work.default, min(FIRST_TOKENS, work.subject.middle), until)
    if gains:
        work.setting = replace(work.setting, threads=n)
        work.trials.append(Trial(work.setting, gains))


def better_threads(
    work: SearchState, candidate: Candidate, depth: int, until: float
) -> tuple[int, list[float]]:
    """The best number of threads for a candidate, and its gains by turn; none if it stays."""
    now, batch = candidate.threads
    gains = {count: list[float]() for count in thread_counts() if count != now}
    for turn in range(THREAD_TURNS):
        work.tell(f"threads: {now} or {', '.join(map(str, gains))}")
        if turn and work.clock.until(until) < 0:
            break
        for count, found in gains.items():
            base_s = candidate.sample(depth)
            if candidate.is_disturbed(depth, base_s):
                continue
            candidate.engine.set_threads(count, batch)
            found.append(base_s / candidate.sample(depth))
            candidate.engine.set_threads(now, batch)
    enough = {n: found for n, found in gains.items() if len(found) >= THREAD_TURNS // 2}
    lows = {n: estimate([[gain] for gain in found]).low or 0 for n, found in enough.items()}
    best = max(lows, key=lambda n: lows[n], default=now)
    return (best, gains[best]) if lows.get(best, 0) > LEAST_GAIN else (now, [])


def try_loadings(work: SearchState, until: float) -> None:
    """Adopt another way to load the weights if it is significantly faster."""
    subject = work.subject
    others = loadings(work.setting.loading, subject.facts, subject.build, subject.free_bytes)
    depth = min(FIRST_TOKENS, subject.middle)
    for loading in others:
        cost = 2 * work.shared.load_s + depth / work.fill_per_s + work.turns_s(LOADING_TURNS)
        if work.clock.until(until) < cost:
            continue
        work.tell(f"weights: {loading_text(loading)}")
        trial = Trial(work.setting.with_loading(loading))
        try:
            shared = SharedWeights(subject.config, loading, work.interrupt)
        except LocalspecError as error:
            work.notes.append(f"{loading_text(loading)}: {error}")
            continue
        work.stack.enter_context(shared)
        shared.n_tokens = work.shared.n_tokens
        work.compare(trial, shared.candidate(trial.setting, depth + STEP), depth, LOADING_TURNS)
        if (trial.gain.low or 0) > LOADING_GAIN:
            work.trials.append(trial)
            work.shared, work.setting = shared, trial.setting
        else:
            shared.close()


def screen(work: SearchState, space: Space, until: float) -> None:
    """Try every edge of the space, then the best of the rest, while time is left."""
    if not work.subject.facts.layers or work.subject.facts.is_recurrent:
        return
    # On a CPU "auto" means flash attention: f16 with it is then the default.
    is_auto_on = work.subject.build.backend == "cpu"
    seconds = {Attention("f16", "f16", "on"): 1.0} if is_auto_on else {}
    edges = [attention for attention in space.edges if attention not in seconds]
    depth = _depth(work, len(edges) + 4, until)
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


def _try(
    work: SearchState, attention: Attention, depth: int, seconds: dict[Attention, float]
) -> None:
    trial = work.try_attention(attention, depth, TURNS)
    if trial:
        seconds[attention] = 1 / median(trial.gains)


def _cost_s(work: SearchState, depth: int) -> float:
    """Seconds of one more candidate."""
    return SLOWER_FILL * depth / work.fill_per_s + work.turns_s(TURNS)


def _depth(work: SearchState, n_candidates: int, until: float) -> int:
    """The largest depth, up to the middle of the context, with time for all candidates."""
    each = work.clock.until(until) / max(1, n_candidates) - work.turns_s(TURNS)
    affordable = int(each * work.fill_per_s / SLOWER_FILL) // STEP * STEP
    return min(work.subject.middle, max(STEP, affordable))


FINALISTS = 5
FIRST_TURNS = 4
MEMORY_SHARE = 0.6
"""Share of the free memory for all finalists' caches."""


def halve(work: SearchState, until: float) -> None:
    """Measure the best trials in the middle of the context, and drop the slower half each time."""
    depth, n_turns = work.subject.middle, FIRST_TURNS
    field = _filled(work, _finalists(work), depth, until)
    while field:
        work.tell(f"{len(field)} finalists, {depth:,} tokens deep")
        candidates = [work.candidate_for(trial) for trial in field]
        default_s, *others = turns([work.default, *candidates], depth, n_turns)
        for trial, seconds in zip(field, others, strict=True):
            trial.gains += gains_of(default_s, seconds)
        field.sort(key=lambda trial: trial.rank(work.goal))
        if len(field) <= 2 or work.clock.until(until) < 0:
            break
        n_kept = -(-len(field) // 2)
        for trial in field[n_kept:]:
            work.release(trial)
        field, n_turns = field[:n_kept], 2 * n_turns


def _finalists(work: SearchState) -> list[Trial]:
    """The best trials whose caches fit into memory together."""
    room = MEMORY_SHARE * (work.subject.free_bytes or 1 << 62)
    chosen: list[Trial] = []
    trials = [t for t in work.trials if t.gains and not t.is_refused(work.goal)]
    for trial in sorted(trials, key=lambda trial: trial.rank(work.goal)):
        if trial.setting.loading != work.shared.loading or len(chosen) == FINALISTS:
            continue
        room -= work.subject.cache_bytes(trial.setting.attention, work.subject.n_ctx)
        if room < 0:
            break
        chosen.append(trial)
    return chosen


def _filled(work: SearchState, trials: list[Trial], depth: int, until: float) -> list[Trial]:
    """Trials whose cache could be filled in time; their earlier turns no longer count."""
    filled: list[Trial] = []
    for trial in trials:
        if work.clock.until(until) < 1.5 * depth / work.fill_per_s:
            break
        work.tell(f"filling {depth:,} tokens: {trial.setting.attention.text}")
        work.candidate_for(trial).fill(depth)
        trial.gains.clear()
        trial.is_finalist = True
        filled.append(trial)
    return filled
