"""What speculation gains by what a model is used for, from how often drafts were accepted there.

Acceptance belongs to the text and the pair of models, not to the machine. Until a pair has been
measured here, runs that others published stand in: medians over backends of draft models of 0.5 B
for targets of 7 B to 14 B, five tokens a draft. Source: github.com/InventiveHQ/local-llm-benchmarks
at 451748f, experiments/speculative-decoding, June 2026 (llama.cpp b9789, 12 prompts).
"""

from dataclasses import dataclass

from localspec.predict.roofline import Roofline
from localspec.predict.speculation import Gain, Speculation, acceptance_of

PUBLISHED_DRAFT = 5
MAX_WIDTH = 17


@dataclass(frozen=True, slots=True)
class Use:
    """A typical load: how deep the context is, how many users share the engine."""

    name: str
    depth: int
    n_sequences: int
    accepted_share: float

    @property
    def acceptance(self) -> float:
        """The chance that one drafted token stands."""
        return acceptance_of(self.accepted_share, PUBLISHED_DRAFT)


USES = (
    Use("chat", 1024, 1, 0.33),
    Use("summarising and RAG", 4096, 1, 0.41),
    Use("code", 2048, 1, 0.656),
    Use("mathematics", 1024, 1, 0.721),
    Use("chat of 8 users", 1024, 8, 0.33),
)


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do for a use, with the numbers that say so.

    `gain` is that of a draft model at the acceptance that others published; None for look-up, whose
    acceptance depends on the text alone.
    """

    use: Use
    gain: Gain | None
    break_even: float | None

    @property
    def sentence(self) -> str:
        """For people."""
        if self.break_even is None:
            return "no draft can pay: checking it costs more than it saves"
        needs = f"a draft pays from {self.break_even:.0%} acceptance"
        if self.gain is None:
            return needs
        typical = f"{self.gain.acceptance:.0%} is typical"
        if self.gain.n_draft == 0:
            return f"do not speculate: {needs}, {typical}"
        return f"draft {self.gain.n_draft}: {self.gain.speedup:.2f} x; {needs}, {typical}"


def speculation_at(
    target: Roofline, draft: Roofline | None, depth: int, n_sequences: int = 1
) -> Speculation:
    """Costs of drafting and checking at a depth; without a draft model drafting costs nothing."""
    plain_s = target.seconds(1, depth, n_sequences)
    verify = [target.seconds(n, depth, n_sequences) / plain_s for n in range(1, MAX_WIDTH + 1)]
    cost = draft.seconds(1, depth, n_sequences) / plain_s if draft else 0.0
    return Speculation(cost, lambda n: verify[n - 1], MAX_WIDTH - 1)


def advice(target: Roofline, draft: Roofline | None, n_ctx: int) -> tuple[Advice, ...]:
    """For every use whose context the model can hold."""
    fitting = [use for use in USES if use.depth <= n_ctx]
    return tuple(_advice(target, draft, use) for use in fitting)


def _advice(target: Roofline, draft: Roofline | None, use: Use) -> Advice:
    speculation = speculation_at(target, draft, use.depth, use.n_sequences)
    gain = speculation.best(use.acceptance) if draft else None
    return Advice(use, gain, speculation.break_even_acceptance())
