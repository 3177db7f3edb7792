"""What an answer came to, beside what was predicted: the line below it, `/stats` and the file."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from localspec.chat.loading import LoadedModel
from localspec.decode.drafters import OPTIONS
from localspec.decode.stats import Timings
from localspec.dialogue.answer_parser import AnswerParser
from localspec.format import count, elapsed, percent, plus_minus, speed

if TYPE_CHECKING:
    from localspec.prediction.rates import Speed
    from localspec.session.reply import Reply


@dataclass(frozen=True, slots=True)
class DraftSource:
    """A drafter's part in an answer, in tokens."""

    name: str
    drafted: int
    accepted: int


@dataclass(slots=True)
class AnswerRun:
    """One answer: usually one reply, several where old turns were dropped in the middle of it.

    `seed` is its sampling's, `parser` splits it; `paused_s`: how long the program was suspended;
    `was_left`: a second Ctrl-C ended it.
    """

    seed: int
    parser: AnswerParser
    replies: "list[Reply]" = field(default_factory=list)
    paused_s: float = 0.0
    was_left: bool = False

    @property
    def said(self) -> str:
        """Its text and tool calls."""
        return "".join(reply.said for reply in self.replies)

    @property
    def thought(self) -> str:
        return "".join(reply.thought for reply in self.replies)

    @property
    def tokens(self) -> list[int]:
        return [token for reply in self.replies for token in reply.tokens]

    @property
    def finish_reason(self) -> str:
        """Why it ended."""
        reason = self.replies[-1].finish_reason if self.replies else None
        return "interrupted" if self.was_left or reason is None else reason

    @property
    def n_context(self) -> int:
        """Tokens of the conversation at the end; in a full context the last has no place."""
        last = self.replies[-1] if self.replies else None
        return last.n_prompt_tokens + len(last.tokens) if last else 0

    @property
    def decode_tps(self) -> float | None:
        """Tokens after the first pass's, per second from first to last token without pauses."""
        timings = [reply.timings for reply in self.replies]
        seconds = sum(one.decode_s or 0.0 for one in timings) - self.paused_s
        n_tokens = sum(one.n_tokens - one.n_first for one in timings)
        return n_tokens / seconds if n_tokens and seconds > 0 else None

    @property
    def sources(self) -> tuple[DraftSource, ...]:
        """Drafted and accepted tokens by who drafted them."""
        drafted, accepted = Counter[str](), Counter[str]()
        for reply in self.replies:
            for source, stats in reply.stats.by_source.items():
                drafted[source] += stats.drafted
                accepted[source] += stats.accepted
        return tuple(
            DraftSource(OPTIONS.get(source, source), n, accepted[source])
            for source, n in drafted.items()
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """What an answer came to. Counts are tokens; None: not known.

    `n_thought` of `n_tokens` are reasoning; `predicted` is the speed of plain decoding; `story`:
    what speculation did and why.
    """

    n_tokens: int
    n_thought: int
    n_prompt: int | None
    n_evaluated: int | None
    n_context: int | None
    n_ctx: int | None
    finish_reason: str
    seed: int
    ttft_s: float | None
    prefill_tps: float | None
    decode_tps: float | None
    passes: int
    tokens_per_pass: float | None
    sources: tuple[DraftSource, ...]
    predicted_ttft_s: float | None = None
    predicted: "Speed | None" = None
    ceiling_tps: float | None = None
    joules_per_token: float | None = None
    story: str = ""

    @classmethod
    def of(cls, run: AnswerRun, loaded: LoadedModel) -> Self:
        """The figures of one answer of a loaded model."""
        n_tokens, n_ctx, expected = len(run.tokens), loaded.session.n_ctx, loaded.expectation
        timings = run.replies[0].timings if run.replies else Timings()
        n_prompt = run.replies[0].n_prompt_tokens if run.replies else 0
        n_evaluated = timings.n_prefilled
        depth = max(0, run.n_context - n_tokens // 2)
        passes = sum(reply.stats.passes for reply in run.replies)
        n_of_passes = sum(reply.stats.tokens for reply in run.replies)
        return cls(
            n_tokens=n_tokens,
            n_thought=run.parser.n_tokens.get("thought", 0),
            n_prompt=n_prompt,
            n_evaluated=n_evaluated,
            n_context=min(run.n_context, n_ctx),
            n_ctx=n_ctx,
            finish_reason=run.finish_reason,
            seed=run.seed,
            ttft_s=timings.ttft_s,
            predicted_ttft_s=expected
            and expected.first_token_s(n_evaluated, n_prompt - n_evaluated),
            prefill_tps=timings.prefill_tps,
            decode_tps=run.decode_tps,
            predicted=expected and expected.decode(depth),
            ceiling_tps=expected and expected.ceiling_tps(depth),
            passes=passes,
            tokens_per_pass=n_of_passes / passes if passes else None,
            joules_per_token=timings.joules_per_token,
            sources=run.sources,
            story=run.replies[-1].speculation_summary if run.replies else "",
        )

    @property
    def drafted(self) -> int:
        return sum(source.drafted for source in self.sources)

    @property
    def accepted(self) -> int:
        return sum(source.accepted for source in self.sources)

    @property
    def roofline_share(self) -> float | None:
        """Passes a second, as a share of those that the memory's bandwidth allows."""
        if self.decode_tps is None or not self.ceiling_tps:
            return None
        return self.decode_tps / (self.tokens_per_pass or 1.0) / self.ceiling_tps

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


SEPARATOR = " · "
_ENDINGS = {
    "length": "stopped at the limit of tokens",
    "context": "stopped: the context is full",
    "interrupted": "interrupted",
}


def line(figures: Figures, *, with_first_token: bool) -> str:
    """The line below an answer; `with_first_token`: with the time to the first token."""
    return SEPARATOR.join(_parts(figures, with_first_token))


def _parts(figures: Figures, with_first_token: bool) -> Iterator[str]:
    if figures.decode_tps is None:
        yield count(figures.n_tokens, "token")
    else:
        yield speed(figures.decode_tps)
        if figures.predicted is not None:
            yield f"predicted {_predicted(figures)}"
        if figures.roofline_share is not None:
            yield f"{percent(figures.roofline_share)} of this machine's roofline"
    if figures.accepted and figures.tokens_per_pass:
        yield f"{figures.tokens_per_pass:.1f} tokens a pass ({_shares(figures)})"
    if figures.n_thought:
        yield f"{count(figures.n_thought, 'token')} of thought"
    if with_first_token and figures.ttft_s is not None:
        yield f"first token {_first_token(figures)}"
    yield f"context {context_text(figures.n_context, figures.n_ctx)}"
    if figures.finish_reason in _ENDINGS:
        yield _ENDINGS[figures.finish_reason]


def context_text(n_held: int | None, n_ctx: int | None) -> str:
    """How full the context is."""
    if n_held is None:
        return "unknown"
    return f"{n_held:,}" + ("" if n_ctx is None else f" / {n_ctx:,}")


def stats(figures: Figures, *, is_here: bool = True) -> list[tuple[str, ...]]:
    """Every figure of an answer, by name; of predictions only where the model `is_here`."""
    decoding = figures.decode_tps
    return [
        ("prompt", _prompt(figures)),
        ("first token", _first_token(figures)),
        ("answer", f"{count(figures.n_tokens, 'token')} in {count(figures.passes, 'pass')}"),
        *([("thought", count(figures.n_thought, "token"))] if figures.n_thought else []),
        ("decoding", "too short to tell" if decoding is None else speed(decoding)),
        *([("energy", f"{j:.3g} J a token")] if (j := figures.joules_per_token) else []),
        *(
            [("predicted", _predicted(figures)), ("roofline", _roofline(figures))]
            if is_here
            else []
        ),
        *((source.name, _accepted(source)) for source in figures.sources),
        *([("speculation", figures.story)] if figures.story else []),
        ("context", context_text(figures.n_context, figures.n_ctx)),
        ("seed", str(figures.seed)),
        ("ended by", figures.finish_reason),
    ]


def _predicted(figures: Figures) -> str:
    """The predicted speed, which is of plain decoding."""
    if figures.predicted is None:
        return "unknown: `localspec predict` measures this machine once"
    drafts = " without drafts" if figures.drafted else ""
    return plus_minus(figures.predicted.low, figures.predicted.high) + drafts


def _first_token(figures: Figures) -> str:
    """The time to the first token, and its prediction."""
    if figures.ttft_s is None:
        return "none came"
    wanted = figures.predicted_ttft_s
    return elapsed(figures.ttft_s) + ("" if wanted is None else f" (predicted {elapsed(wanted)})")


def _shares(figures: Figures) -> str:
    """Whose tokens were accepted, as shares of all that were."""
    sources = [source for source in figures.sources if source.accepted]
    return ", ".join(f"{s.name} {percent(s.accepted / figures.accepted)}" for s in sources)


def _prompt(figures: Figures) -> str:
    if figures.n_prompt is None:
        return "the server did not say"
    text = f"{count(figures.n_prompt, 'token')}, {figures.n_evaluated:,} of them read anew"
    return text + (f" at {figures.prefill_tps:,.0f} tok/s" if figures.prefill_tps else "")


def _roofline(figures: Figures) -> str:
    if figures.ceiling_tps is None:
        return "unknown"
    share = figures.roofline_share
    reached = f"{percent(share)} of " if share is not None else ""
    return f"{reached}{figures.ceiling_tps:.0f} passes a second, at the memory's bandwidth"


def _accepted(source: DraftSource) -> str:
    rate = f" ({percent(source.accepted / source.drafted)})" if source.drafted else ""
    return f"{source.accepted:,} of {source.drafted:,} drafted tokens accepted{rate}"
