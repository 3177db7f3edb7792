"""The best candidates in the middle of the context, by successive halving.

All finalists get a few turns, the better half twice as many, until two are left (Jamieson and
Talwalkar 2016). Those two keep their caches: the duel goes on with them.
"""

from localspec.tune.rig import turns
from localspec.tune.trial import Trial
from localspec.tune.work import Work

FINALISTS = 5
FIRST_TURNS = 4
MEMORY_SHARE = 0.6
"""Of what is free, that the finalists' caches may take together."""
SPARE = 256


def halve(work: Work, until: float) -> None:
    """Measure the best trials in the middle of the context; what falls behind is dropped."""
    depth, n_turns = work.subject.middle, FIRST_TURNS
    field = _seated(work, _finalists(work), depth, until)
    while field:
        work.tell(f"{len(field)} finalists, {depth:,} tokens deep")
        _turns_of_all(work, field, depth, n_turns)
        field.sort(key=lambda trial: trial.rank(work.goal))
        if len(field) <= 2 or work.clock.until(until) < 0:
            break
        n_kept = -(-len(field) // 2)
        for trial in field[n_kept:]:
            work.unseat(trial)
        field, n_turns = field[:n_kept], 2 * n_turns


def _finalists(work: Work) -> list[Trial]:
    """The best trials whose caches fit beside one another."""
    room = MEMORY_SHARE * (work.subject.free_bytes or 1 << 62)
    chosen: list[Trial] = []
    trials = [t for t in work.trials if t.gains and not t.is_refused(work.goal)]
    for trial in sorted(trials, key=lambda trial: trial.rank(work.goal)):
        if trial.setting.loading != work.rig.loading or len(chosen) == FINALISTS:
            continue
        room -= work.subject.cache_bytes(trial.setting.attention, work.subject.n_ctx)
        if room < 0:
            break
        chosen.append(trial)
    return chosen


def _seated(work: Work, trials: list[Trial], depth: int, until: float) -> list[Trial]:
    """Those for whom there was time to fill a cache; what was measured before is forgotten."""
    seated: list[Trial] = []
    for trial in trials:
        if work.clock.until(until) < 1.5 * depth / work.fill_per_s:
            break
        work.tell(f"filling {depth:,} tokens: {trial.setting.attention.text}")
        work.rig.fill(work.seat_of(trial), depth)
        trial.gains.clear()
        trial.is_finalist = True
        seated.append(trial)
    return seated


def _turns_of_all(work: Work, field: list[Trial], depth: int, n_turns: int) -> None:
    seats = [(work.rig, work.seat_of(trial)) for trial in field]
    default_s, *others = turns([(work.default_rig, work.default), *seats], depth, n_turns)
    for trial, seconds in zip(field, others, strict=True):
        trial.gains += [a / b for a, b in zip(default_s, seconds, strict=True)]
