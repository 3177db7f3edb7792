"""What an answer came to, beside what was predicted: the line below it, `/stats` and the file.

Figures in words: the line below an answer, and all of them for `/stats`.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Self

from localspec.chat.answer_run import AnswerRun
from localspec.chat.models import LoadedModel
from localspec.decode.drafters import OPTIONS
from localspec.format import count, elapsed, percent
from localspec.prediction.roofline import Speed


@dataclass(frozen=True, slots=True)
class DraftSource:
    """A drafter's part in an answer."""

    name: str
    drafted: int
    accepted: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Counts are tokens; None is what is not known. `predicted` is of plain decoding;
    `story`: what speculation did and why."""

    n_tokens: int
    n_prompt: int
    n_evaluated: int
    n_context: int
    n_ctx: int
    finish_reason: str
    seed: int
    ttft_s: float | None
    predicted_ttft_s: float | None
    prefill_tps: float | None
    decode_tps: float | None
    predicted: Speed | None
    ceiling_tps: float | None
    passes: int
    tokens_per_pass: float | None
    sources: tuple[DraftSource, ...]
    story: str

    @classmethod
    def of(cls, exchange: AnswerRun, opened: LoadedModel) -> Self:
        """Of one answer of a loaded model."""
        expected = opened.expectation
        depth = max(0, exchange.n_context - len(exchange.tokens) // 2)
        n_known = exchange.n_prompt - exchange.n_evaluated
        return cls(
            n_tokens=len(exchange.tokens),
            n_prompt=exchange.n_prompt,
            n_evaluated=exchange.n_evaluated,
            n_context=min(exchange.n_context, opened.session.n_ctx),
            n_ctx=opened.session.n_ctx,
            finish_reason=exchange.finish_reason,
            seed=exchange.seed,
            ttft_s=exchange.ttft_s,
            predicted_ttft_s=expected and expected.first_token_s(exchange.n_evaluated, n_known),
            prefill_tps=exchange.prefill_tps,
            decode_tps=exchange.decode_tps,
            predicted=expected and expected.decode(depth),
            ceiling_tps=expected and expected.ceiling_tps(depth),
            passes=exchange.passes,
            tokens_per_pass=exchange.tokens_per_pass,
            sources=tuple(
                DraftSource(OPTIONS.get(source, source), drafted, accepted)
                for source, (drafted, accepted) in exchange.by_source.items()
            ),
            story=exchange.replies[-1].speculation_summary if exchange.replies else "",
        )

    @property
    def drafted(self) -> int:
        return sum(source.drafted for source in self.sources)

    @property
    def accepted(self) -> int:
        return sum(source.accepted for source in self.sources)

    @property
    def roofline_share(self) -> float | None:
        """Passes a second over those that the memory's bandwidth would allow."""
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
    """The line below an answer; the first token's time where it is news."""
    return SEPARATOR.join(_parts(figures, with_first_token))


def _parts(figures: Figures, with_first_token: bool) -> Iterator[str]:
    if figures.decode_tps is not None:
        yield f"{figures.decode_tps:.1f} tok/s"
        if figures.predicted is not None:
            yield predicted_text(figures)
        if figures.roofline_share is not None:
            yield f"{percent(figures.roofline_share)} of this machine's roofline"
    else:
        yield count(figures.n_tokens, "token")
    if figures.accepted and figures.tokens_per_pass:
        yield f"{figures.tokens_per_pass:.1f} tokens a pass ({shares(figures)})"
    if with_first_token and figures.ttft_s is not None:
        yield first_token(figures)
    yield f"context {figures.n_context:,} / {figures.n_ctx:,}"
    if figures.finish_reason in _ENDINGS:
        yield _ENDINGS[figures.finish_reason]


def stats(figures: Figures) -> list[tuple[str, str]]:
    """Every figure of an answer, by name."""
    rows = [
        ("prompt", _prompt(figures)),
        ("first token", first_token(figures).removeprefix("first token ")),
        ("answer", f"{count(figures.n_tokens, 'token')} in {count(figures.passes, 'pass')}"),
        ("decoding", _decoding(figures)),
        ("predicted", predicted_text(figures).removeprefix("predicted ").removeprefix("speed ")),
        ("roofline", _roofline(figures)),
    ]
    rows += [(source.name, _source(source.drafted, source.accepted)) for source in figures.sources]
    if figures.story:
        rows.append(("speculation", figures.story))
    rows.append(("context", f"{figures.n_context:,} of {figures.n_ctx:,} tokens"))
    rows.append(("seed", str(figures.seed)))
    rows.append(("ended by", figures.finish_reason))
    return rows


def predicted_text(figures: Figures) -> str:
    """The prediction, of plain decoding where the answer was not plain."""
    if figures.predicted is None:
        return "predicted speed unknown: `localspec predict` measures this machine once"
    return f"predicted {interval(figures.predicted)}{' without drafts' if figures.drafted else ''}"


def interval(speed: Speed) -> str:
    """The interval of a prediction as its middle and half of its width."""
    return f"{(speed.low + speed.high) / 2:.0f} ± {(speed.high - speed.low) / 2:.0f}"


def first_token(figures: Figures) -> str:
    """How long the first token took, and should have taken."""
    if figures.ttft_s is None:
        return "first token: none came"
    text = f"first token {elapsed(figures.ttft_s)}"
    if figures.predicted_ttft_s is not None:
        text += f" (predicted {elapsed(figures.predicted_ttft_s)})"
    return text


def shares(figures: Figures) -> str:
    """Whose tokens were accepted, as shares of all that were."""
    return ", ".join(
        f"{source.name} {percent(source.accepted / figures.accepted)}"
        for source in figures.sources
        if source.accepted
    )


def _prompt(figures: Figures) -> str:
    text = f"{count(figures.n_prompt, 'token')}, {figures.n_evaluated:,} of them read anew"
    return text + (f" at {figures.prefill_tps:,.0f} tok/s" if figures.prefill_tps else "")


def _decoding(figures: Figures) -> str:
    return "too short to tell" if figures.decode_tps is None else f"{figures.decode_tps:.1f} tok/s"


def _roofline(figures: Figures) -> str:
    if figures.ceiling_tps is None:
        return "unknown"
    share = figures.roofline_share
    reached = f"{percent(share)} of " if share is not None else ""
    return f"{reached}{figures.ceiling_tps:.0f} passes a second, at the memory's bandwidth"


def _source(drafted: int, accepted: int) -> str:
    rate = f" ({percent(accepted / drafted)})" if drafted else ""
    return f"{accepted:,} of {drafted:,} drafted tokens accepted{rate}"
