"""What replies under several settings come to: ratios to plain decoding, by category.

A ratio is that of the speeds of one question in the same turn, the median of the turns; those of a
category are averaged geometrically, with a 95 % interval over its questions (bootstrap). Replies
that loop flatter speculation and are a category of their own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

N_RESAMPLED = 4000
DISTURBED = 0.08
"""A reply beside which others took more of the machine does not count."""


@dataclass(frozen=True, slots=True)
class Row:
    """One reply."""

    target: str
    draft: str | None
    category: str
    number: int
    setting: str
    turn: int
    n_tokens: int
    decode_tps: float | None
    passes: int
    drafted: int
    accepted: int
    loops: bool
    story: str
    others: float = 0.0
    """The share of the machine that other programs took meanwhile."""

    @property
    def key(self) -> tuple[Any, ...]:
        return self.target, self.draft, self.number, self.category, self.setting, self.turn


def results_of(rows: Sequence[Row], settings: Sequence[str]) -> list[dict[str, Any]]:
    """One record a category and setting, then the geometric mean over categories."""
    looping = {(row.number, row.category) for row in rows if row.setting == "none" and row.loops}
    categories = list(dict.fromkeys(row.category for row in rows))
    groups = {
        category: [
            row
            for row in rows
            if row.category == category and (row.number, row.category) not in looping
        ]
        for category in categories
    }
    groups["looping"] = [row for row in rows if (row.number, row.category) in looping]
    results = [
        result
        for category, group in groups.items()
        for setting in settings
        if (result := _result(category, setting, group))
    ]
    means = [_mean(setting, results) for setting in settings]
    return [*results, *(mean for mean in means if mean)]


def _result(category: str, setting: str, rows: Sequence[Row]) -> dict[str, Any] | None:
    ratios = _ratios(setting, rows)
    if not ratios:
        return None
    mine = [row for row in rows if row.setting == setting]
    drafted, passes = sum(row.drafted for row in mine), sum(row.passes for row in mine)
    low, high = _interval(ratios)
    return {
        "target": mine[0].target,
        "draft": mine[0].draft,
        "category": category,
        "setting": setting,
        "ratio": float(np.exp(np.mean(np.log(ratios)))),
        "low": low,
        "high": high,
        "tokens_per_pass": sum(row.n_tokens for row in mine) / passes if passes else None,
        "acceptance": sum(row.accepted for row in mine) / drafted if drafted else None,
        "n_prompts": len(ratios),
    }


def _ratios(setting: str, rows: Sequence[Row]) -> list[float]:
    """Of each question: speeds over those of plain decoding in the same turn, the median turn."""
    speeds: dict[tuple[int, str], dict[int, float]] = {}
    for row in rows:
        if row.decode_tps and row.others <= DISTURBED:
            speeds.setdefault((row.number, row.setting), {})[row.turn] = row.decode_tps
    ratios: list[float] = []
    for number in dict.fromkeys(row.number for row in rows):
        plain, mine = speeds.get((number, "none"), {}), speeds.get((number, setting), {})
        turns = plain.keys() & mine.keys()
        if turns:
            logs = [np.log(mine[turn] / plain[turn]) for turn in turns]
            ratios.append(float(np.exp(np.median(logs))))
    return ratios


def _interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Of the geometric mean, 95 %, by resampling the questions."""
    rng = np.random.default_rng(0)
    logs = np.log(np.array(ratios))
    means = logs[rng.integers(0, len(logs), (N_RESAMPLED, len(logs)))].mean(axis=1)
    low, high = np.exp(np.quantile(means, [0.025, 0.975]))
    return float(low), float(high)


def _mean(setting: str, results: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    mine = [r for r in results if r["setting"] == setting and r["category"] != "looping"]
    if not mine:
        return None
    ratios = [r["ratio"] for r in mine]
    low, high = _interval(ratios)
    return {
        **mine[0],
        "category": "all",
        "ratio": float(np.exp(np.mean(np.log(ratios)))),
        "low": low,
        "high": high,
        "tokens_per_pass": float(np.mean([r["tokens_per_pass"] for r in mine])),
        "acceptance": None,
        "n_prompts": sum(r["n_prompts"] for r in mine),
    }
