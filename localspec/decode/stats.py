"""What a reply's steps add up to. Every figure is a fold over Steps; undefined is None, never 0."""

from dataclasses import dataclass, field

from localspec.decode.drafters import LABELS
from localspec.decode.drafters.base import NO_DRAFT
from localspec.decode.speculator import Gain
from localspec.decode.step import Step


@dataclass(slots=True)
class SourceStats:
    """One drafter's part: tokens drafted and accepted, seconds spent drafting."""

    drafted: int = 0
    accepted: int = 0
    draft_s: float = 0.0
    by_position: list[list[int]] = field(default_factory=list[list[int]])
    """Accepted and judged tokens by their place in the draft. None is judged behind one that was
    rejected."""

    def add(self, step: Step) -> None:
        """Count one of its drafts."""
        for position in range(min(step.drafted, step.accepted + 1)):
            if position == len(self.by_position):
                self.by_position.append([0, 0])
            self.by_position[position][0] += position < step.accepted
            self.by_position[position][1] += 1
        self.drafted += step.drafted
        self.accepted += step.accepted
        self.draft_s += step.draft_s


@dataclass(slots=True)
class DraftStats:
    """Target passes, the tokens that they yielded, and where accepted drafts came from."""

    passes: int = 0
    tokens: int = 0
    by_source: dict[str, SourceStats] = field(default_factory=dict[str, SourceStats])
    by_reason: dict[str, int] = field(default_factory=dict[str, int])
    """Passes by what decided how much to draft."""

    def add(self, step: Step) -> None:
        """Count one more pass."""
        self.passes += 1
        if step.why:
            self.by_reason[step.why] = self.by_reason.get(step.why, 0) + 1
        self.tokens += len(step.tokens)
        if step.source != NO_DRAFT.source:
            self.by_source.setdefault(step.source, SourceStats()).add(step)

    @property
    def drafted(self) -> int:
        return sum(source.drafted for source in self.by_source.values())

    @property
    def accepted(self) -> int:
        return sum(source.accepted for source in self.by_source.values())

    @property
    def tokens_per_pass(self) -> float | None:
        return self.tokens / self.passes if self.passes else None


@dataclass(slots=True)
class Timings:
    """When a reply's tokens came, on perf_counter's clock, and what follows from it."""

    started: float = 0.0
    first_emission: float | None = None
    last_emission: float | None = None
    n_first: int = 0
    n_tokens: int = 0
    prefill_s: float | None = None
    n_prefilled: int = 0
    decode_j: float | None = None
    """Joules during `decode_s`, where the machine tells."""

    def add(self, step: Step, now: float) -> None:
        """Note a step whose tokens are emitted `now`."""
        if self.prefill_s is None:
            self.prefill_s, self.n_prefilled = step.eval_s, step.evaluated
        if not step.tokens:
            return
        if self.first_emission is None:
            self.first_emission, self.n_first = now, len(step.tokens)
        self.last_emission = now
        self.n_tokens += len(step.tokens)

    @property
    def ttft_s(self) -> float | None:
        """Time to the first token."""
        return None if self.first_emission is None else self.first_emission - self.started

    @property
    def prefill_tps(self) -> float | None:
        """Prompt tokens evaluated per second."""
        return self.n_prefilled / self.prefill_s if self.prefill_s else None

    @property
    def decode_s(self) -> float | None:
        """First to last emission."""
        if self.first_emission is None or self.last_emission is None:
            return None
        return self.last_emission - self.first_emission

    @property
    def decode_tps(self) -> float | None:
        """Tokens after the first step's, per second of `decode_s`."""
        return (self.n_tokens - self.n_first) / self.decode_s if self.decode_s else None

    @property
    def tpot_ms(self) -> float | None:
        """Milliseconds per output token, the inverse of `decode_tps`."""
        return 1e3 / self.decode_tps if self.decode_tps else None

    @property
    def joules_per_token(self) -> float | None:
        """Joules a token after the first step's."""
        n_tokens = self.n_tokens - self.n_first
        return self.decode_j / n_tokens if self.decode_j is not None and n_tokens else None


def summary(stats: DraftStats, gain: Gain, reason: str) -> str:
    """What speculation did for a reply, and why, in one line for people; perhaps empty.

    E.g. "1.84 tokens a pass · lookup: 61 of 80 drafted tokens accepted · about 1.21 x plain".
    """
    parts: list[str] = []
    if stats.drafted and stats.tokens_per_pass:
        parts.append(f"{stats.tokens_per_pass:.2f} tokens a pass")
    for source, own in stats.by_source.items():
        if own.drafted:
            label = LABELS.get(source, source)
            parts.append(f"{label}: {own.accepted} of {own.drafted} drafted tokens accepted")
    if gain.measured is not None and stats.drafted:
        expected = "" if gain.predicted is None else f" (expected {gain.predicted:.2f})"
        parts.append(f"about {gain.measured:.2f} x plain{expected}")
    if reason:
        parts.append(reason)
    return " · ".join(parts)
