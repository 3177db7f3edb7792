"""Whether drafts pay here: with the tuned settings, real replies with each way to draft, in turns.

"auto" decides at every step and should never lose, so it stays unless plain decoding or another
drafter is significantly faster. How often drafts stand depends on the text; this one is the prose
that ships, continued, so what it says of code or of quotations is little.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from localspec.bench.statistics import estimate
from localspec.engine.interrupt import Interrupted
from localspec.engine.sampling import Sampling
from localspec.errors import LocalspecError
from localspec.quality import shipped_text
from localspec.session import ReplyOptions, Session, SessionConfig
from localspec.settings import NONE, Settings
from localspec.tune.state import SearchState

N_PROMPT, N_TOKENS, TURNS = 192, 32, 3
CALIBRATION_S = 2.5
STRIDE = 2_000
"""Characters between the passages that are continued."""

Way = dict[str, Any]
"""Settings that say how to draft."""


def tune_drafts(work: SearchState, setting: Settings, draft: Path | None) -> Way:
    """The way to draft that is significantly faster than the default one, or nothing."""
    default: Way = {"draft": str(draft) if draft else NONE, "spec": "auto"}
    ways: list[Way] = [default, {"draft": NONE, "spec": NONE}]
    if draft:
        ways.append({"draft": NONE, "spec": "auto"})
    if not _fits(work, setting, len(ways)):
        return {}
    work.tell("drafts")
    config = _config(work, setting)
    try:
        with ExitStack() as stack:
            sessions = [stack.enter_context(Session.open(config.with_settings(**w))) for w in ways]
            times = _times(work, sessions)
    except KeyboardInterrupt:
        raise Interrupted from None
    except LocalspecError as error:
        work.notes.append(f"drafts: {error}")
        return {}
    lows = [_low(times[0], other) for other in times[1:]]
    best = max(lows, default=0.0)
    return ways[1 + lows.index(best)] if best > 1 else {}


def _fits(work: SearchState, setting: Settings, n_ways: int) -> bool:
    """Whether there is time, and memory for the weights as often as there are ways."""
    subject = work.subject
    reply_s = N_PROMPT / work.fill_per_s + N_TOKENS * work.token_s
    cost_s = n_ways * (work.rig.load_s + (1 + TURNS) * reply_s) + CALIBRATION_S
    room = subject.free_bytes is None or n_ways * subject.facts.weight_bytes < subject.free_bytes
    return room and cost_s < work.clock.left_s and setting.gpu_layers <= 0


def _config(work: SearchState, setting: Settings) -> SessionConfig:
    chosen = replace(setting, ctx=min(work.subject.n_ctx, 1024), draft=NONE)
    return SessionConfig(work.subject.config.model, chosen)


def _times(work: SearchState, sessions: Sequence[Session]) -> list[list[float]]:
    """Seconds of decoding by session and turn; all continue the same passage in a turn."""
    found: list[list[float]] = [[] for _ in sessions]
    for turn in range(TURNS + 1):
        text = shipped_text()[turn * STRIDE :][:STRIDE]
        order = list(enumerate(sessions))
        for i, session in order if turn % 2 else reversed(order):
            seconds = _reply_s(work, session, text)
            if turn:  # the first warms up, and lets "auto" learn
                found[i].append(seconds)
    return found


def _reply_s(work: SearchState, session: Session, text: str) -> float:
    if work.interrupt.requested:
        raise Interrupted
    tokens = session.raw_prompt(text)[:N_PROMPT]
    options = ReplyOptions(Sampling(temperature=0), max_tokens=N_TOKENS, ignore_eos=True)
    session.context.truncate(0)
    started = perf_counter()
    reply = session.reply(tokens, options).finish()
    if reply.finish_reason == "interrupted":
        raise Interrupted
    return reply.timings.decode_s or perf_counter() - started


def _low(default_s: list[float], other_s: list[float]) -> float:
    gains = [[a / b] for a, b in zip(default_s, other_s, strict=True)]
    return estimate(gains).low or 0.0
