"""Counts of a server's life, and their text for Prometheus; llama.cpp's names where they are equal.

The engine's thread adds; any other may read, because each count is one number. The last minutes
stand in bins of equal length: who was here, how fast, with what drafts.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import floor
from operator import sub

from localspec.hardware.energy import Meter
from localspec.serve.messages import Account, Pass
from localspec.session.session_config import Depths

SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper borders of the bins of a histogram: waits."""
GAPS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 10.0)
"""Silences inside a reply."""
ROWS = (0, 1, 2, 4, 8, 16, 32, 64)
"""Drafted rows of a pass."""


@dataclass(slots=True)
class Histogram:
    """Values in bins up to each border, and one behind the last."""

    borders: Sequence[float]
    counts: list[int] = field(default_factory=list[int])
    n: int = 0
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.borders) + 1)

    def add(self, value: float) -> None:
        """Count one."""
        self.n += 1
        self.total += value
        self.counts[bisect_left(self.borders, value)] += 1

    def lines(self, name: str, help_: str) -> list[str]:
        """As Prometheus reads it: each count is of all up to its border."""
        pairs = zip(self.borders, accumulate(self.counts), strict=False)
        return [
            *_head(name, help_, "histogram"),
            *(f'{name}_bucket{{le="{border:g}"}} {count}' for border, count in pairs),
            f'{name}_bucket{{le="+Inf"}} {self.n}',
            f"{name}_sum {self.total:.6f}",
            f"{name}_count {self.n}",
        ]


@dataclass(slots=True)
class Metrics:
    """What was asked and answered, and how the passes went."""

    n_done: int = 0
    n_failed: int = 0
    n_refused: int = 0
    n_aborted: int = 0
    n_passes: int = 0
    n_rows: int = 0
    n_users: int = 0
    n_draft_rows: int = 0
    n_prompt: int = 0
    n_cached: int = 0
    n_predicted: int = 0
    n_longest: int = 0
    depths: Depths = field(default_factory=Depths)
    prompt_s: float = 0.0
    predicted_s: float = 0.0
    n_drafts: int = 0
    n_drafted: int = 0
    n_accepted: int = 0
    by_position: Counter[int] = field(default_factory=Counter[int])
    queue: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    first_token: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    inter_token: Histogram = field(default_factory=lambda: Histogram(GAPS))
    drafted_rows: Histogram = field(default_factory=lambda: Histogram(ROWS))

    _told: tuple[int, float, int, float] = (0, 0.0, 0, 0.0)
    """Tokens and seconds of prompts and of replies when the rates were last told."""
    meter: Meter = field(default_factory=Meter.here)

    def __post_init__(self) -> None:
        self.meter.start()

    def add_pass(self, passed: Pass) -> None:
        """Count a pass of the model."""
        self.n_passes += 1
        self.n_rows += passed.n_rows
        self.n_users += passed.n_users
        self.n_draft_rows = passed.n_drafted
        self.drafted_rows.add(passed.n_drafted)
        for gap_s in passed.gaps_s:
            self.inter_token.add(gap_s)

    def add(self, account: Account) -> None:
        """Count a reply that is done."""
        timings, stats = account.timings, account.stats
        self.n_done += 1
        self.n_prompt += timings.n_prefilled
        self.n_cached += account.n_cached
        self.n_predicted += account.n_tokens
        self.n_longest = max(self.n_longest, account.n_prompt + account.n_tokens)
        middle = account.n_prompt + account.n_tokens / 2
        self.depths += Depths(account.n_tokens, account.n_tokens * middle)
        self.prompt_s += timings.prefill_s or 0.0
        self.predicted_s += timings.decode_s or 0.0
        self.n_drafted += stats.drafted
        self.n_accepted += stats.accepted
        for source in stats.by_source.values():
            positions = source.by_position
            self.n_drafts += positions[0][1] if positions else 0
            self.by_position += Counter({i: hits for i, (hits, _) in enumerate(positions)})
        self.queue.add(account.queued_s)
        if timings.ttft_s is not None:
            self.first_token.add(timings.ttft_s)

    def text(self, n_running: int, n_waiting: int) -> str:
        """Of all of them, and of the requests that are here now."""
        lines = [
            *_lines("counter", self._counters()),
            *_lines("gauge", self._gauges(n_running, n_waiting)),
            *_lines("counter", self._energy()),
            *self._positions(),
            *self.queue.lines("localspec:queue_seconds", "Before a request ran."),
            *self.first_token.lines("localspec:first_token_seconds", "To the first token."),
            *self.inter_token.lines(
                "localspec:inter_token_seconds",
                "Silences inside a reply, one for each of its passes.",
            ),
            *self.drafted_rows.lines("localspec:pass_draft_rows", "Drafted rows (B) of a pass."),
        ]
        return "\n".join(lines) + "\n"

    def _counters(self) -> dict[str, tuple[float, str]]:
        return {
            "llamacpp:prompt_tokens_total": (self.n_prompt, "Prompt tokens evaluated."),
            "llamacpp:prompt_tokens_cached_total": (self.n_cached, "Prompt tokens reused."),
            "llamacpp:prompt_seconds_total": (self.prompt_s, "Seconds of prompts."),
            "llamacpp:tokens_predicted_total": (self.n_predicted, "Tokens of replies."),
            "llamacpp:tokens_predicted_seconds_total": (self.predicted_s, "Seconds of replies."),
            "llamacpp:n_decode_total": (self.n_passes, "Passes of the model."),
            "llamacpp:n_tokens_max": (self.n_longest, "Tokens of the longest conversation."),
            "llamacpp:spec_decode_num_drafts_total": (self.n_drafts, "Drafts judged."),
            "llamacpp:spec_decode_num_draft_tokens_total": (self.n_drafted, "Tokens drafted."),
            "llamacpp:spec_decode_num_accepted_tokens_total": (self.n_accepted, "And accepted."),
            "localspec:pass_rows_total": (self.n_rows, "Rows that the passes evaluated."),
            "localspec:requests_done_total": (self.n_done, "Requests answered."),
            "localspec:requests_failed_total": (self.n_failed, "Requests that failed."),
            "localspec:requests_refused_total": (self.n_refused, "Requests refused under load."),
            "localspec:requests_aborted_total": (self.n_aborted, "Requests left by the client."),
        }

    def _energy(self) -> dict[str, tuple[float, str]]:
        """Nothing where the machine does not tell."""
        spent, name = self.meter.so_far(), "localspec:energy_joules_total"
        return {name: (spent.joules, "Joules since the start.")} if spent else {}

    def _gauges(self, n_running: int, n_waiting: int) -> dict[str, tuple[float, str]]:
        later = self.n_predicted - self.first_token.n  # the first ones count as the prompt's
        now = (self.n_prompt, self.prompt_s, later, self.predicted_s)
        n_prompt, prompt_s, n_later, later_s = map(sub, now, self._told)
        self._told = now
        return {
            "llamacpp:requests_processing": (n_running, "Requests that run."),
            "llamacpp:requests_deferred": (n_waiting, "Requests that wait."),
            "llamacpp:prompt_tokens_seconds": (_ratio(n_prompt, prompt_s),
                                               "Prompt tokens a second since the last look."),
            "llamacpp:predicted_tokens_seconds": (_ratio(n_later, later_s),
                                                  "Of a reply, since the last look."),
            "llamacpp:n_busy_slots_per_decode": (_ratio(self.n_users, self.n_passes),
                                                 "Requests that run during a pass."),
            "localspec:draft_rows": (self.n_draft_rows, "Drafted rows (B) of the last pass."),
        }  # fmt: skip

    def _positions(self) -> Iterator[str]:
        if not self.by_position:
            return
        name = "llamacpp:spec_decode_num_accepted_tokens_per_pos_total"
        yield from _head(name, "Accepted tokens by their place in the draft.", "counter")
        for i in range(max(self.by_position) + 1):
            yield f'{name}{{position="{i}"}} {self.by_position[i]}'


def _ratio(amount: float, by: float) -> float:
    return amount / by if by else 0.0


def _lines(kind: str, values: dict[str, tuple[float, str]]) -> Iterator[str]:
    for name, (value, help_) in values.items():
        yield from _head(name, help_, kind)
        yield f"{name} {value:.15g}"


def _head(name: str, help_: str, kind: str) -> list[str]:
    return [f"# HELP {name} {help_}", f"# TYPE {name} {kind}"]


BIN_S = 2.0
N_BINS = 150
"""Five minutes."""


@dataclass(slots=True)
class _Bin:
    number: int = -1
    n_users: int = 0
    n_waiting: int = 0
    n_tokens: float = 0.0
    n_drafted: float = 0.0
    n_passes: float = 0.0


@dataclass(frozen=True, slots=True)
class Moment:
    """A bin: the most users and waiting requests, tokens a second, drafted rows of a pass (B)."""

    users: int = 0
    waiting: int = 0
    tokens_per_s: float = 0.0
    drafted_rows: float = 0.0


class Recent:
    """Times are seconds of any clock that begins at or after 0. A pass that lasts longer than a bin
    counts in all that it touches, by its share of each."""

    def __init__(self) -> None:
        self._bins = [_Bin() for _ in range(N_BINS + 1)]  # one more than is shown is being filled

    def add(self, passed: Pass, started: float, ended: float) -> None:
        """Count a pass."""
        first, last = floor(started / BIN_S), floor(ended / BIN_S)
        for number in range(max(first, last - N_BINS), last + 1):
            within = min(ended, (number + 1) * BIN_S) - max(started, number * BIN_S)
            share = within / (ended - started) if ended > started else 1.0
            if share > 0:  # it may end where a bin begins
                self._count(self._bin(number), passed, share)

    def moment(self, now: float) -> Moment:
        """The last bin that is over."""
        return self._moment(floor(now / BIN_S) - 1)

    def curves(self, now: float) -> dict[str, list[float]]:
        """Each figure of a `Moment` over the last minutes, the oldest first."""
        last = floor(now / BIN_S)
        moments = [self._moment(number) for number in range(last - N_BINS, last)]
        return {name: [getattr(each, name) for each in moments] for name in Moment.__slots__}

    def _moment(self, number: int) -> Moment:
        found = self._bins[number % len(self._bins)]
        if found.number != number:
            return Moment()  # nothing happened then
        per_pass = found.n_drafted / found.n_passes if found.n_passes else 0.0
        return Moment(found.n_users, found.n_waiting, found.n_tokens / BIN_S, per_pass)

    def _bin(self, number: int) -> _Bin:
        place = number % len(self._bins)
        if self._bins[place].number != number:
            self._bins[place] = _Bin(number)
        return self._bins[place]

    def _count(self, found: _Bin, passed: Pass, share: float) -> None:
        found.n_users = max(found.n_users, passed.n_users)
        found.n_waiting = max(found.n_waiting, passed.n_waiting)
        found.n_tokens += share * passed.n_tokens
        found.n_drafted += share * passed.n_drafted
        found.n_passes += share
