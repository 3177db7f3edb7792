"""What an answer came to, beside what was predicted: the line below it, `/stats` and the file."""

from dataclasses import asdict, dataclass
from typing import Any, Self

from localspec.chat.exchange import Exchange
from localspec.chat.opened import Opened
from localspec.predict.roofline import Speed

DRAFT_MODEL = "model"


@dataclass(frozen=True, slots=True)
class Source:
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
    sources: tuple[Source, ...]
    story: str

    @classmethod
    def of(cls, exchange: Exchange, opened: Opened) -> Self:
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
                Source("draft" if source == DRAFT_MODEL else "lookup", drafted, accepted)
                for source, (drafted, accepted) in exchange.by_source.items()
            ),
            story=exchange.replies[-1].speculation_story if exchange.replies else "",
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
