"""The best candidate against the defaults, over depths, in turns; then how prompts are read.

A context of the user's length is at every depth up to it once, so depths count by their share. The
defaults are replaced only if the interval of the ratio is above 1.
"""

from dataclasses import replace

from localspec.bench.statistics import estimate
from localspec.tune.rig import turns
from localspec.tune.settings import Setting
from localspec.tune.space import thread_counts
from localspec.tune.trial import Trial
from localspec.tune.work import Work

DEPTHS = ((1 / 2, 0.5), (7 / 8, 0.25), (1 / 8, 0.25))
"""Parts of the context and their weights; the caches are filled to the first already."""
DUEL_TURNS = (4, 24)
PROMPT = 1024
PROMPT_TURNS = 3
PROMPT_GAIN = 1.03


def duel(work: Work, trial: Trial, until: float) -> None:
    """Turns against the defaults over depths, as many as there is time for."""
    weighted = _weighted_turns(work, trial, until)
    if weighted:
        trial.gains = weighted


def _weighted_turns(work: Work, trial: Trial, until: float) -> list[float]:
    """Gains by turn, of seconds a token weighted over the depths that were reached."""
    total: list[list[float]] = []
    seat = work.seat_of(trial)
    depths = [(max(1, int(part * work.subject.n_ctx)), weight) for part, weight in DEPTHS]
    if work.subject.facts.window_tokens is not None:  # a windowed cache cannot go back
        depths = [(d, w) for d, w in depths if d >= len(work.default.context.tokens)]
    for i, (depth, weight) in enumerate(depths):
        fill_s = 2.5 * max(0, depth - len(seat.context.tokens)) / work.fill_per_s
        left = work.clock.until(until)
        if total and left < fill_s + 2 * work.turns_s(DUEL_TURNS[0]):
            break
        work.tell(f"against the defaults, {depth:,} tokens deep: {trial.setting.attention.text}")
        share = max(0.0, left - fill_s) / (len(depths) - i)
        n_turns = int(share / work.turns_s(1))
        n_turns = max(DUEL_TURNS[0], min(DUEL_TURNS[1], n_turns))
        pair = turns([(work.default_rig, work.default), (work.rig, seat)], depth, n_turns)
        total.append([weight * t for t in pair[0]])
        total.append([weight * t for t in pair[1]])
    n = min((len(times) for times in total), default=0)
    default_s = [sum(times[i] for times in total[::2]) for i in range(n)]
    candidate_s = [sum(times[i] for times in total[1::2]) for i in range(n)]
    return [a / b for a, b in zip(default_s, candidate_s, strict=True)]


def tune_prompts(work: Work, trial: Trial, until: float) -> Trial:
    """Other batch threads and micro-batches, where a prompt is read significantly faster."""
    setting, n_prompt = trial.setting, min(work.subject.n_ctx, PROMPT)
    others = [replace(setting, n_threads_batch=n) for n in thread_counts()]
    others += [replace(setting, n_batch=n) for n in (256, 1024) if n <= n_prompt]
    for other in others:
        cost_s = 2 * (PROMPT_TURNS + 1) * n_prompt / work.fill_per_s
        if other == setting or work.clock.until(until) < cost_s:
            continue
        work.tell(f"prompts: {other.n_threads_batch} threads, micro-batches of {other.n_batch}")
        if _reads_faster(work, setting, other, n_prompt):
            setting = other
    return replace(trial, setting=setting)


def _reads_faster(work: Work, setting: Setting, other: Setting, n_prompt: int) -> bool:
    seats = [work.rig.seat(s, n_prompt) for s in (setting, other)]
    try:
        gains: list[list[float]] = []
        for _ in range(PROMPT_TURNS):
            now_s, other_s = (work.rig.prefill_s(seat, n_prompt) for seat in seats)
            gains.append([now_s / other_s])
    finally:
        for seat in seats:
            work.rig.leave(seat)
    return (estimate(gains).low or 0) > PROMPT_GAIN
