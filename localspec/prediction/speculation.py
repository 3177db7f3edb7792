"""What speculation gains: tokens a pass, speed-up, the best draft length, break-even acceptance.

If the tokens of a draft are accepted with chances a_1, ..., a_g, each given those before it, then

    E(g) = 1 + a_1 + a_1 a_2 + ... + a_1 ... a_g         tokens a pass,
    S(g) = E(g) / (g c + v(g + 1))                       times plain speed,

c the cost of drafting one token and v(n) = T(n) / T(1) that of a target pass over n tokens, both in
plain passes. Source: Leviathan, Kalman, Matias 2023, theorem 3.8, there with v = 1 and one chance
alpha for all positions, as here wherever a single number is given. With B sequences in a batch v(n)
is T(B n) / T(B).

Acceptance depends on the text and the pair of models, not on the machine. Until a pair has been
measured here, published runs stand in, by use: medians over backends of draft models of 0.5 B for
targets of 7 B to 14 B, five tokens a draft. Source: github.com/InventiveHQ/local-llm-benchmarks
at 451748f, experiments/speculative-decoding, June 2026 (llama.cpp b9789, 12 prompts).
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import mul
from typing import TYPE_CHECKING

from localspec.format import percent

if TYPE_CHECKING:
    from localspec.prediction.roofline import Roofline

MAX_DRAFT = 16
_FINEST = 1 << 40
"""Parts of 1 that a bisection tells apart: far below any acceptance that matters."""

VerifyCost = Callable[[int], float]
"""v(n): the time of a pass over n tokens a sequence in units of a plain pass."""


def expected_tokens(chances: Sequence[float]) -> float:
    """E(g) of a draft of as many tokens, between 1 (nothing accepted) and g + 1 (all of it)."""
    return 1.0 + sum(accumulate(chances, mul))


def best_length(chances: Sequence[float], cost: Callable[[int], float]) -> tuple[int, float]:
    """The draft length g up to that of `chances` with the highest rate, and E(g) / cost(g) there.

    `cost(g)`: of drafting and checking g tokens, in any unit. All lengths are tried, because costs
    have cliffs; of equal ones the shortest.
    """
    tokens = accumulate(accumulate(chances, mul), initial=1.0)
    rates = [expected / cost(n) for n, expected in enumerate(tokens)]
    highest = max(rates)
    return rates.index(highest), highest


@dataclass(frozen=True, slots=True)
class BestDraft:
    """The best draft length for an acceptance; 0 and 1.0 where no draft pays."""

    acceptance: float
    n_draft: int
    speedup: float


@dataclass(frozen=True, slots=True)
class DraftCosts:
    """What one draft token costs, in plain passes of the target, and what a check of many costs.

    `block_cost`: what a draft of any length costs, of a head that fills a whole block at once.
    """

    draft_cost: float
    verify: VerifyCost
    max_draft: int = MAX_DRAFT
    block_cost: float = 0.0

    def speedup(self, alpha: float, n_draft: int) -> float:
        """S(g); 1 for no draft."""
        return expected_tokens((alpha,) * n_draft) / self.cost(n_draft)

    def cost(self, n_draft: int) -> float:
        """Of a draft and its check; 1 for no draft."""
        if not n_draft:
            return 1.0
        return self.block_cost + n_draft * self.draft_cost + self.verify(n_draft + 1)

    def best(self, alpha: float) -> BestDraft:
        """The length with the highest speed-up."""
        return BestDraft(alpha, *best_length((alpha,) * self.max_draft, self.cost))

    def break_even_acceptance(self, n_draft: int | None = None) -> float | None:
        """The acceptance from which a draft pays, of `n_draft` tokens or of the best length.

        None where even a draft that is always right costs more than it saves.
        """
        lengths = range(1, self.max_draft + 1) if n_draft is None else (n_draft,)

        def pays(alpha: float) -> bool:
            return any(self.speedup(alpha, n) >= 1.0 for n in lengths)

        return _least(pays) if pays(1.0) else None


def acceptance_of(accepted_share: float, n_draft: int) -> float:
    """Alpha from the share of drafted tokens that were accepted, g the draft length.

    Published runs give accepted / drafted; its expectation is (E(g) - 1) / g, which grows with
    alpha, so that bisection finds it.
    """
    return _least(
        lambda alpha: (expected_tokens((alpha,) * n_draft) - 1) / n_draft >= accepted_share
    )


def _least(holds: Callable[[float], bool]) -> float:
    """The least chance for which a condition that stays true holds; 1 where none below does."""
    parts = range(_FINEST)
    return bisect_left(parts, True, key=lambda part: holds(part / _FINEST)) / _FINEST


PUBLISHED_DRAFT = 5
MAX_WIDTH = 17


@dataclass(frozen=True, slots=True)
class Use:
    """A typical load: how deep the context is, how many users share the engine, and the share of
    drafts of `n_draft` tokens that published runs accepted."""

    name: str
    depth: int
    n_sequences: int
    accepted_share: float
    n_draft: int = PUBLISHED_DRAFT

    @property
    def acceptance(self) -> float:
        """The chance that one drafted token is accepted."""
        return acceptance_of(self.accepted_share, self.n_draft)


USES = (
    Use("chat", 1024, 1, 0.33),
    Use("summarising and RAG", 4096, 1, 0.41),
    Use("code", 2048, 1, 0.656),
    Use("mathematics", 1024, 1, 0.721),
    Use("chat of 8 users", 1024, 8, 0.33),
)
HEAD_DRAFT = 3
HEAD_SHARE = 0.66
"""The median of 67 public runs of MTP, DSpark and DFlash heads, whatever the length."""
HEAD_USES = (
    Use("chat", 1024, 1, 0.48, HEAD_DRAFT),
    Use("scripts", 1024, 1, 0.75, HEAD_DRAFT),
    Use("code", 2048, 1, 0.90, HEAD_DRAFT),
    Use("chat of 4 users", 1024, 4, 0.48, HEAD_DRAFT),
)
"""Of draft heads (MTP): Qwen3.8-27B in UD-Q4_K_XL, three tokens a draft, by kind of prompt. Source:
github.com/sudoingX/qwen38-mtp at 01b319c, the sweeps of a Radeon, August 2026 (llama-server)."""


@dataclass(frozen=True, slots=True)
class Advice:
    """Advice for a use, with its numbers.

    `gain` is that of a draft model at the published acceptance; None for lookup, whose acceptance
    depends on the text alone.
    """

    use: Use
    gain: BestDraft | None
    break_even: float | None

    @property
    def sentence(self) -> str:
        """For people."""
        if self.break_even is None:
            return "no draft can pay: checking it costs more than it saves"
        needs = f"a draft pays from {percent(self.break_even)} acceptance"
        if self.gain is None:
            return needs
        typical = f"{percent(self.gain.acceptance)} is typical"
        if self.gain.n_draft == 0:
            return f"do not speculate: {needs}, {typical}"
        return f"draft {self.gain.n_draft}: {self.gain.speedup:.2f} x; {needs}, {typical}"


@dataclass(frozen=True, slots=True)
class Drafting:
    """Who drafts: a model's or a head's times here. `n_block`: the rows of one pass of a head that
    fills a block, None where tokens are drafted one by one. `max_draft`: the longest draft."""

    roofline: "Roofline"
    max_draft: int = MAX_DRAFT
    n_block: int | None = None
    is_head: bool = False

    def costs(self, depth: int, n_sequences: int, plain_s: float) -> tuple[float, float]:
        """Of a token and of a block, in plain passes that take `plain_s`."""
        seconds = self.roofline.seconds(self.n_block or 1, depth, n_sequences) / plain_s
        return (0.0, seconds) if self.n_block else (seconds, 0.0)


def speculation_at(
    target: "Roofline", draft: Drafting | None, depth: int, n_sequences: int = 1
) -> DraftCosts:
    """Costs of drafting and checking at a depth; without a draft model drafting costs nothing."""
    plain_s = target.seconds(1, depth, n_sequences)
    verify = [target.seconds(n, depth, n_sequences) / plain_s for n in range(1, MAX_WIDTH + 1)]
    token, block = draft.costs(depth, n_sequences, plain_s) if draft else (0.0, 0.0)
    longest = min(MAX_WIDTH - 1, draft.max_draft) if draft else MAX_WIDTH - 1
    return DraftCosts(token, lambda n: verify[n - 1], longest, block)


def advice(target: "Roofline", draft: Drafting | None, n_ctx: int) -> tuple[Advice, ...]:
    """For every use whose context the model can hold."""
    uses = HEAD_USES if draft and draft.is_head else USES
    return tuple(_advice(target, draft, use) for use in uses if use.depth <= n_ctx)


def _advice(target: "Roofline", draft: Drafting | None, use: Use) -> Advice:
    speculation = speculation_at(target, draft, use.depth, use.n_sequences)
    gain = speculation.best(use.acceptance) if draft else None
    return Advice(use, gain, speculation.break_even_acceptance())
