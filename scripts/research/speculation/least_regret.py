"""What a policy could do that knew a made-up pair, and never lost more than a share of a reply.

By dynamic programming over the tokens still to come and the passes lost so far: a draft may be made
if the reply stays within the share also when nothing of it stands. What such a policy loses to the
best fixed choice is the price of the bound alone; the rest of a regret is the price of learning.
"""

import numpy as np
from research.speculation.simulator import MAX_DRAFT, PLAIN_S, World

STEP = 0.05
"""Passes lost are counted in these, and rounded in the policy's favour."""
MOST_SAVED = 80.0
"""More saved passes than these make no difference."""


def least_regret(world: World, n_tokens: int, share: float = 0.03) -> float:
    """Of a world whose acceptance does not change; passes that do not scatter."""
    arms = _arms(world)
    lost = np.arange(-MOST_SAVED, share * n_tokens + STEP / 2, STEP)
    places = np.arange(len(lost))
    passes = [np.zeros(len(lost))]
    """By tokens still to come: expected passes, by passes lost so far."""
    for n in range(1, n_tokens + 1):
        best = 1 + passes[n - 1]
        for g, cost, chance in arms:
            if g >= n:
                continue
            expected = np.full(len(lost), cost)
            for stood in range(g + 1):
                likely = chance**stood * (1 - chance if stood < g else 1)
                shift = int(np.floor((cost - stood - 1) / STEP))
                place = np.clip(places + shift, 0, len(lost) - 1)
                expected += likely * passes[n - stood - 1][place]
            is_bearable = lost + cost - 1 <= share * n_tokens
            best = np.where(is_bearable & (expected < best), expected, best)
        passes.append(best)
    start = round(MOST_SAVED / STEP)
    fixed = [n_tokens * cost / _tokens(chance, g) for g, cost, chance in arms]
    return float(passes[n_tokens][start]) / min(n_tokens, *fixed) - 1


def _arms(world: World) -> list[tuple[int, float, float]]:
    """Length, cost in passes and acceptance of every draft."""
    lengths = range(1, MAX_DRAFT + 1)
    v = [world.seconds(1 + g) / PLAIN_S for g in range(MAX_DRAFT + 1)]
    arms: list[tuple[int, float, float]] = []
    if world.lookup:
        arms += [(g, v[g], world.lookup(0)) for g in lengths]
    if world.draft_cost is not None:
        arms += [(g, v[g] + g * world.draft_cost, world.model(0)) for g in lengths]
    return arms


def _tokens(chance: float, g: int) -> float:
    return sum(chance**k for k in range(g + 1))
