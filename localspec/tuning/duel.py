"""The last stages of a search: quality, the duel with the defaults, prompts and drafts.

The gate measures a candidate's quality before it may replace the defaults. It compares predictions
of about 1,000 tokens of the shipped text with those of the default cache and the same weights;
`localspec quality` reads the whole text.

The duel takes turns over depths. A context passes through every depth once, so depths count by
their share. A candidate replaces the defaults only if the interval of the ratio lies above 1.

Drafts are timed on real replies with the tuned settings, each way in turn. "auto" decides at every
step and should never lose, so it stays unless another way is significantly faster. Acceptance
depends on the text. These replies continue the shipped prose, so they say little about code or
quotations.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from time import perf_counter
from typing import Any

from localspec.bench.statistics import estimate
from localspec.engine.interrupt import Interrupted
from localspec.engine.sampling import Sampling
from localspec.engine.threads import thread_counts
from localspec.engine.timing import there_and_back
from localspec.errors import LocalspecError
from localspec.quality.divergence import (
    Windows,
    divergence_of,
    reference_of,
    shipped_text,
    windows_of,
)
from localspec.quality.reference import Reference
from localspec.session.reply_options import ReplyOptions
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig
from localspec.settings import NONE, Attention, Settings
from localspec.tuning.shared_weights import Candidate, gains_of, turns
from localspec.tuning.state import SearchState, Trial

DEPTHS = ((1 / 2, 0.5), (7 / 8, 0.25), (1 / 8, 0.25))
"""Parts of the context and their weights; finalists' caches are full to the first already."""
DUEL_TURNS = (4, 24)
PROMPT = 1024
PROMPT_TURNS = 3
PROMPT_GAIN = 1.03


def duel(work: SearchState, trial: Trial, until: float) -> None:
    """Take turns against the defaults over depths, as many as the time allows.

    The trial's gains become those of seconds a token, weighted over the depths reached.
    """
    default_s, candidate_s = list[list[float]](), list[list[float]]()
    candidate = work.candidate_for(trial)
    depths = [(max(1, int(part * work.subject.n_ctx)), weight) for part, weight in DEPTHS]
    if work.subject.facts.window_tokens is not None:  # a windowed cache cannot go back
        depths = [(d, w) for d, w in depths if d >= len(work.default.context.tokens)]
    for i, (depth, weight) in enumerate(depths):
        fill_s = 2.5 * max(0, depth - len(candidate.context.tokens)) / work.fill_per_s
        left = work.clock.until(until)
        if default_s and left < fill_s + 2 * work.turns_s(DUEL_TURNS[0]):
            break
        work.tell(f"against the defaults, {depth:,} tokens deep: {trial.setting.attention.text}")
        share = max(0.0, left - fill_s) / (len(depths) - i)
        n_turns = max(DUEL_TURNS[0], min(DUEL_TURNS[1], int(share / work.turns_s(1))))
        pair = turns([work.default, candidate], depth, n_turns)
        for found, times in zip((default_s, candidate_s), pair, strict=True):
            found.append([weight * seconds for seconds in times])
    # Depths may have different numbers of turns: the shortest counts.
    totals = (list(map(sum, zip(*s, strict=False))) for s in (default_s, candidate_s))
    trial.gains = gains_of(*totals) or trial.gains


def tune_prompts(work: SearchState, trial: Trial, until: float) -> Trial:
    """Adopt other batch threads and micro-batches that read a prompt significantly faster."""
    setting, n_prompt = trial.setting, min(work.subject.n_ctx, PROMPT)
    others = [replace(setting, threads_batch=n) for n in thread_counts()]
    others += [replace(setting, ubatch=n) for n in (256, 1024) if n <= n_prompt]
    for other in others:
        cost_s = 2 * (PROMPT_TURNS + 1) * n_prompt / work.fill_per_s
        if other == setting or work.clock.until(until) < cost_s:
            continue
        work.tell(f"prompts: {other.threads_batch} threads, micro-batches of {other.ubatch}")
        if _reads_faster(work, setting, other, n_prompt):
            setting = other
    return replace(trial, setting=setting)


def _reads_faster(work: SearchState, setting: Settings, other: Settings, n_prompt: int) -> bool:
    gains: list[list[float]] = []
    borrowed = work.shared.borrowed
    with borrowed(setting, n_prompt) as now, borrowed(other, n_prompt) as new:
        for _ in range(PROMPT_TURNS):
            now_s, new_s = (each.timer.seconds(n_prompt, 0) for each in (now, new))
            gains.append([now_s / new_s])
    return (estimate(gains).low or 0) > PROMPT_GAIN


GATE_WINDOWS = 4
"""Windows of 512 tokens, of which 255 are scored."""
WINDOW = 512
CHEAPER = 0.7
"""Time to read a window over the reference's, which also keeps its predictions."""
SURE = 4
"""Standard errors above the limit at which the gate stops reading."""
READINGS = 1.5
"""Candidates that should have time to read all windows."""


class Gate:
    """Divergence from the default cache on about 1,000 tokens; it computes the reference once."""

    def __init__(self, work: SearchState, until: float) -> None:
        self._work, self._until = work, until
        self._reference: Reference | None = None
        self._windows: Windows | None = None
        self.window_s = 0.0

    def judge(self, trial: Trial) -> bool:
        """Measure a trial's quality; False where there is no time for it."""
        work, windows = self._work, self._prepared()
        if windows is None:
            return False
        cost_s = CHEAPER * windows.n_windows * self.window_s
        if work.clock.until(self._until) < cost_s:
            return False
        work.tell(f"quality of {trial.setting.attention.text}")
        assert self._reference
        with work.shared.reading(trial.setting, windows) as candidate:
            trial.quality = divergence_of(
                candidate.engine, candidate.context, windows, self._reference,
                # Further windows could not bring it within the limit.
                is_enough=lambda found: found.kld - SURE * found.kld_error > work.goal.max_loss,
            )  # fmt: skip
        return True

    def _prepared(self) -> Windows | None:
        """Windows as the time allows; their reference is the default cache's predictions."""
        if self._windows:
            return self._windows
        work = self._work
        if work.clock.until(self._until) < READINGS * WINDOW / work.fill_per_s:
            return None
        text = windows_of(work.shared.owner.vocabulary, shipped_text(), n_windows=GATE_WINDOWS)
        work.tell(f"quality of the defaults on {text.n_scored:,} tokens")
        with work.shared.reading(work.setting.with_attention(Attention()), text) as candidate:
            self._reference = self._read(candidate, text)
        self._windows = text.first(len(self._reference.windows))
        return self._windows

    def _read(self, candidate: Candidate, text: Windows) -> Reference:
        """Read window after window while candidates still have time to read them, too."""
        reference, clock = Reference(), self._work.clock
        for i in range(text.n_windows):
            before_s = clock.spent_s
            reference.windows += reference_of(
                candidate.engine, candidate.context, text.only(i)
            ).windows
            self.window_s = clock.spent_s - before_s
            if clock.until(self._until) < self.window_s * (1 + READINGS * (i + 2)):
                break
        return reference


N_PROMPT, N_TOKENS, REPLY_TURNS = 192, (128, 64, 32), (3, 8)
"""Lengths in tokens of the replies that show what drafts gain, shorter where time is short: hardly
a short one can afford to try a draft. The least and most turns."""
CALIBRATION_S = 2.5
STRIDE = 2_000
"""Characters between the passages that replies continue."""

Way = dict[str, Any]
"""The drafter's settings."""


def tune_drafts(work: SearchState, setting: Settings, draft: str) -> Way:
    """Drafter settings that pay, or none where that was not found out."""
    ways: list[Way] = [{"draft": draft, "spec": "auto"}, {"draft": NONE, "spec": NONE}]
    if draft != NONE:
        ways.append({"draft": NONE, "spec": "auto"})
    if setting.workers:
        work.notes.append(
            "drafts: each way is a model of its own, and a worker serves one at a time"
        )
        return {}
    n_turns, n_tokens = _n_turns(work, setting, len(ways))
    if not n_turns:
        return {}
    work.tell("drafts")
    chosen = replace(setting, ctx=min(work.subject.n_ctx, 1024), draft=NONE)
    config = SessionConfig(work.subject.config.model, chosen)
    try:
        with ExitStack() as stack:
            sessions = [stack.enter_context(Session.open(config.with_settings(**w))) for w in ways]
            if not (sessions[0].draft or sessions[0].head):
                del sessions[2:], ways[2:]  # nothing to leave out
            times = _times(work, sessions, n_turns, n_tokens)
    except KeyboardInterrupt:
        raise Interrupted from None
    except LocalspecError as error:
        work.notes.append(f"drafts: {error}")
        return {}
    return paying(ways, times)


def paying(ways: Sequence[Way], times: Sequence[Sequence[float]]) -> Way:
    """Which of these pays, by seconds of decoding in each turn: with a draft model or head, with
    no drafts, and with lookups alone where there is something to leave out.

    What is beside the target takes memory, so it must be significantly faster than lookups alone.
    No drafts must be significantly faster than what is left.
    """
    best = 0
    if len(ways) > 2 and _least_gain(times[2], times[0]) <= 1:
        best = 2
    return ways[1] if _least_gain(times[best], times[1]) > 1 else ways[best]


def _least_gain(before: Sequence[float], after: Sequence[float]) -> float:
    return estimate([[gain] for gain in gains_of(before, after)]).low or 0.0


def _n_turns(work: SearchState, setting: Settings, n_ways: int) -> tuple[int, int]:
    """How many the time allows, and tokens of each reply; 0 where time or memory do not allow one
    set of weights a way."""
    subject, (least, most) = work.subject, REPLY_TURNS
    room = subject.free_bytes is None or n_ways * subject.facts.weight_bytes < subject.free_bytes
    left_s = work.clock.left_s - n_ways * work.shared.load_s - CALIBRATION_S
    for n_tokens in N_TOKENS:
        reply_s = N_PROMPT / work.fill_per_s + n_tokens * work.token_s
        n_turns = int(left_s / (n_ways * reply_s)) - 1  # the first warms up
        if room and n_turns >= least and setting.gpu_layers <= 0:
            return min(n_turns, most), n_tokens
    return 0, 0


def _times(
    work: SearchState, sessions: Sequence[Session], n_turns: int, n_tokens: int
) -> list[list[float]]:
    """Seconds of decoding by session and turn; within a turn all continue one passage."""
    found: list[list[float]] = [[] for _ in sessions]
    for turn, order in enumerate(there_and_back(list(enumerate(sessions)), n_turns + 1)):
        text = shipped_text()[turn * STRIDE :][:STRIDE]
        for i, session in order:
            seconds = _reply_s(work, session, text, n_tokens)
            if turn:  # the first warms up, and lets "auto" learn
                found[i].append(seconds)
    return found


def _reply_s(work: SearchState, session: Session, text: str, n_tokens: int) -> float:
    if work.interrupt.requested:
        raise Interrupted
    tokens = session.raw_prompt(text)[:N_PROMPT]
    options = ReplyOptions(Sampling(temperature=0), max_tokens=n_tokens, ignore_eos=True)
    session.context.truncate(0)
    started = perf_counter()
    reply = session.reply(tokens, options).finish()
    if reply.finish_reason == "interrupted":
        raise Interrupted
    return reply.timings.decode_s or perf_counter() - started
