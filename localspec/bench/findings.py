"""A sweep's significant findings, one sentence each.

Cases of one run took turns, so their ratios need no allowance for drift between runs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import log
from typing import Any

from localspec.bench.row import ResultRow
from localspec.bench.statistics import Ratio, drift_of, ratio
from localspec.format import number, percent, times
from localspec.settings import ROWS

WORTH = 1.05
"""The least ratio that is worth a sentence."""
LARGE_REST = 0.15
NOTABLE_DRIFT = 0.03
MOST_OFF = 3

Key = Callable[[ResultRow], Any]


def findings(rows: Sequence[ResultRow]) -> list[str]:
    """Sentences, the most useful first."""
    plain = [row for row in rows if row.decode_visits and not row.is_curve]
    return [
        *_fastest(plain),
        *_flash(plain),
        *_drafts(plain),
        *_batches(plain),
        *_depths(plain),
        *_off(plain),
        *_noise(rows),
    ]


def _fastest(rows: Sequence[ResultRow]) -> Iterator[str]:
    """For each work, settings that beat those measured first."""
    for group in _groups(rows, lambda row: (_place(row), row.case.work, row.case.settings.spec)):
        first, best = group[0], max(group, key=_speed)
        gain = ratio(first.decode_visits, best.decode_visits)
        if gain.verdict == "faster" and gain.mid >= WORTH:
            yield (
                f"{best.case.setting_text} is fastest{_at(best)}: {number(_speed(best))} tok/s,"
                f" {_of(gain)} {first.case.setting_text}"
            )


def _flash(rows: Sequence[ResultRow]) -> Iterator[str]:
    """Flash attention (usually "auto") against none."""
    for group in _groups(rows, lambda row: _without(row, "flash_attn")):
        off = next((row for row in group if not row.case.settings.attention.is_flash), None)
        on = next((row for row in group if row.case.settings.attention.is_flash), None)
        if on is None or off is None:
            continue
        gain = ratio(on.decode_visits, off.decode_visits)
        factor = gain.mid if gain.mid > 1 else 1 / gain.mid
        if gain.verdict in ("faster", "slower") and factor >= WORTH:
            word = "slower" if gain.verdict == "faster" else "faster"
            yield (
                f"flash attention with {_cache(on)} is {times(factor)} {word} than without it"
                f"{_at(on)}"
            )


def _drafts(rows: Sequence[ResultRow]) -> Iterator[str]:
    """Each drafter against plain decoding, and the category where it helps most."""
    for group in _groups(rows, lambda row: _without(row, "spec", "draft", "draft_max")):
        plain = next((row for row in group if row.case.settings.spec == "none"), None)
        for row in group:
            if plain is None or row.case.settings.spec == "none":
                continue
            name = f"--spec {row.case.settings.spec}{_at(row)}"
            yield f"{name}: {_gain(plain, row)}{_by_use(plain, row)}"


def _gain(plain: ResultRow, row: ResultRow) -> str:
    gain = ratio(plain.decode_visits, row.decode_visits)
    accepted = (
        f", {percent(row.acceptance)} of drafts accepted" if row.acceptance is not None else ""
    )
    if gain.verdict == "unknown":
        return f"{times(gain.mid)} plain decoding, from too few samples to be sure{accepted}"
    if gain.verdict == "no significant difference":
        return f"no significant difference from plain decoding{accepted}"
    return f"{_of(gain)} plain decoding{accepted}"


def _by_use(plain: ResultRow, row: ResultRow) -> str:
    base = {c.name: c.decode_tps for c in plain.categories}
    gains = [
        (c.decode_tps / before, c.name)
        for c in row.categories
        if c.decode_tps and (before := base.get(c.name))
    ]
    if len(gains) < 2:
        return ""
    (worst, low), (best, high) = min(gains), max(gains)
    return f"; from {times(worst)} ({low}) to {times(best)} ({high})"


def _batches(rows: Sequence[ResultRow]) -> Iterator[str]:
    for group in _groups(rows, lambda row: _without(row, batch=1)):
        one = next((row for row in group if row.case.work.batch == 1), None)
        most = max(group, key=lambda row: row.case.work.batch)
        if one is None or most is one:
            continue
        gain = ratio(one.decode_visits, most.decode_visits)
        if gain.verdict not in ("faster", "slower"):
            continue
        yield (
            f"{most.case.work.batch} users get {number(_speed(most))} tok/s in all, {_of(gain)} one"
            f" user's, {number(most.decode_each_tps)} each{_at(one)} ({one.case.setting_text})"
        )


def _depths(rows: Sequence[ResultRow]) -> Iterator[str]:
    for group in _groups(rows, lambda row: _without(row, depth=0)):
        shallow = min(group, key=lambda row: row.case.work.depth)
        deep = max(group, key=lambda row: row.case.work.depth)
        if shallow is deep:
            continue
        loss = ratio(shallow.decode_visits, deep.decode_visits)
        if loss.verdict == "slower" and loss.mid < 1 / WORTH:
            yield (
                f"at depth {deep.case.work.depth:,} decoding runs at {_of(loss)} that at depth"
                f" {shallow.case.work.depth:,} ({shallow.case.setting_text})"
            )


def _off(rows: Sequence[ResultRow]) -> Iterator[str]:
    """The largest errors of the prediction, with the share of time that no part explains."""
    known = [(row, row.predicted_tps) for row in rows if row.predicted_tps]
    off = [(row, speed) for row, speed in known if not speed.low <= _speed(row) <= speed.high]
    off.sort(key=lambda pair: abs(log(_speed(pair[0]) / pair[1].mid)), reverse=True)
    for row, speed in off[:MOST_OFF]:
        side = "below" if _speed(row) < speed.low else "above"
        share = row.gap.rest_share if row.gap else 0.0
        rest = f"; {percent(share)} of the time is unexplained" if share > LARGE_REST else ""
        yield (
            f"{row.case.work.text} ({row.case.setting_text}): {number(_speed(row))} tok/s is"
            f" {side} the predicted {number(speed.low)} to {number(speed.high)}{rest}"
        )
    if len(off) > MOST_OFF:
        yield f"{len(off)} of {len(known)} cases are outside their predicted intervals"


def _noise(rows: Sequence[ResultRow]) -> Iterator[str]:
    drift = drift_of([row.decode_visits for row in rows])
    if drift and drift.sd > NOTABLE_DRIFT:
        yield (
            f"the machine drifted: visits to the same case differed by {percent(drift.sd)};"
            " close other programs, or take more --rounds"
        )
    needed = [row.more_visits for row in rows if row.more_visits]
    if needed:
        yield f"a precision of 2 % in every case needs up to {max(needed):,} more visits each"
    visits = [visited for row in rows for visited in row.visits]
    disturbed = [v.circumstances.disturbances for v in visits if v.circumstances.disturbances]
    if disturbed:
        yield (
            f"{len(disturbed)} of {len(visits)} visits were disturbed ({disturbed[0][0]}): they"
            " count only where a case has no undisturbed visit"
        )
    powers = dict.fromkeys(v.circumstances.power for v in visits if v.circumstances.is_saving_power)
    yield from (f"some visits ran {power}" for power in powers)


def _groups(rows: Sequence[ResultRow], key: Key) -> list[list[ResultRow]]:
    """Rows by key, in order; a group of one compares nothing."""
    groups: dict[Any, list[ResultRow]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def _place(row: ResultRow) -> tuple[str, str, str]:
    """The machine, the engine and the model file."""
    environment = row.environment
    return environment["machine"]["key"], environment["engine"]["fingerprint"], row.model["digest"]


def _without(row: ResultRow, *names: str, **work: int) -> Any:
    """A case without some settings, and with some of its work set to the same."""
    config = row.case.config.with_settings(**{name: ROWS[name].default for name in names})
    return _place(row), config, replace(row.case.work, **work)


def _speed(row: ResultRow) -> float:
    assert row.decode_tps
    return row.decode_tps.mid


def _of(gain: Ratio) -> str:
    if gain.low is None or gain.high is None:
        return times(gain.mid)
    return f"{times(gain.mid)} ({gain.low:.2f} to {gain.high:.2f})"


def _cache(row: ResultRow) -> str:
    config = row.case.settings
    same = config.kv_k == config.kv_v
    return f"{config.kv_k} KV" if same else f"{config.kv_k} K and {config.kv_v} V"


def _at(row: ResultRow) -> str:
    work = row.case.work
    if work.prompts:
        return f" on {work.prompts.stem}"
    return f" at depth {work.depth:,}" + (f", batch {work.batch}" if work.batch > 1 else "")
