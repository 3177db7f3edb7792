"""What a machine sustains, as a prediction asks for it: one method for each kind of work in a pass.

    T(n tokens, depth) = overhead + sum of weights(type) + sum of attention(layer)

with each term max(bytes / bandwidth, FLOPs / compute) (Williams et al. 2009, the roofline). Rates
come from published runs of the same kind of device or from a probe of this machine. `IdealRates`
lose nothing: they are the ceiling, which shows what is left to gain, and no expectation.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import exp, hypot, log
from typing import Literal, Protocol, Self

from localspec.gguf.types import GgmlType
from localspec.model.facts import ModelFacts
from localspec.prediction.conditions import traits_of

Binding = Literal["memory", "compute"]
Test = Literal["decode", "prefill"]


@dataclass(frozen=True, slots=True)
class Term:
    """Seconds that one kind of work takes in one pass, and what binds it. `least_s`: of its bytes
    at the rated bandwidth, which no device exceeds; 0 where that is not known."""

    seconds: float
    bound: Binding
    least_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Spread:
    """Factors on a predicted speed between which 80 % of measured speeds lie."""

    low: float
    high: float

    @classmethod
    def widest(cls, spreads: Iterable[Self]) -> Self:
        """What holds them all."""
        known = list(spreads)
        return cls(min(each.low for each in known), max(each.high for each in known))

    def widened(self, more: float) -> "Spread":
        """By another unknown, a logarithm, in squares."""
        return Spread(exp(-hypot(log(self.low), more)), exp(hypot(log(self.high), more)))


@dataclass(frozen=True, slots=True)
class Shares:
    """Of a predicted time: what launches and what attention take of it."""

    overhead: float = 0.0
    attention: float = 0.0


@dataclass(frozen=True, slots=True)
class WeightWork:
    """Weights of one type in one pass.

    `n_bytes` are streamed once for all tokens (of experts: those that are touched); every token
    multiplies `n_elements` of them (of experts: those that it uses), at two operations each.
    """

    type: GgmlType
    n_bytes: float
    n_elements: float
    is_expert: bool = False


@dataclass(frozen=True, slots=True)
class AttentionWork:
    """Attention of one layer over `n_cells` cached tokens; `flash`: with the fused kernel."""

    n_heads: int
    n_kv_heads: int
    key_size: int
    value_size: int
    n_cells: int
    type_k: GgmlType
    type_v: GgmlType
    flash: bool = True

    @property
    def n_bytes(self) -> float:
        """Of keys and values, which every pass reads once."""
        per_cell = self.n_kv_heads * (
            self.key_size * self.type_k.bits_per_element
            + self.value_size * self.type_v.bits_per_element
        )
        return self.n_cells * per_cell / 8

    @property
    def flops_per_token(self) -> float:
        """Of scores and of the weighted sum of values; latent keys are values, too (MLA)."""
        values = self.value_size or self.key_size
        return 2 * self.n_cells * self.n_heads * (self.key_size + values)


class Rates(Protocol):
    """What one device with one engine takes for each kind of work."""

    @property
    def source(self) -> str:
        """Where the figures are from, in a few words."""
        ...

    def for_model(
        self, n_embd: int, streamed_bytes: float, traits: tuple[str, ...] = ()
    ) -> "Rates":
        """The rates for a model's width, size and kind, where these are known to matter."""
        ...

    def spread(self, test: Test, shares: Shares) -> Spread:
        """How far measured speeds lie from the prediction, `shares` of whose time are known."""
        ...

    def weights(self, work: WeightWork, n_tokens: int) -> Term:
        """Time to stream these weights and to multiply `n_tokens` by them."""
        ...

    def attention(self, work: AttentionWork, n_tokens: int) -> Term: ...

    def overhead_s(self, n_layers: int, n_tokens: int) -> float:
        """Time of a pass that no byte or operation explains."""
        ...


def rates_for(facts: ModelFacts, rates: Rates) -> Rates:
    """The rates for a model."""
    return rates.for_model(facts.n_embd, facts.streamed_bytes, traits_of(facts))


SMALL_BATCH = 16
"""The widest pass that is like decoding; wider ones compute like prompts."""


@dataclass(frozen=True, slots=True)
class Corrected:
    """Rates whose times are longer by a factor, which measured runs taught: `factor` of decoding,
    `prompt_factor` of reading prompts (None: the same). `unknown`: for both, the share of an
    interval's width that is left."""

    rates: Rates
    factor: float
    prompt_factor: float | None = None
    unknown: tuple[float, float] = (1.0, 1.0)

    @property
    def source(self) -> str:
        return self.rates.source

    def for_model(self, n_embd: int, streamed_bytes: float, traits: tuple[str, ...] = ()) -> Self:
        return replace(self, rates=self.rates.for_model(n_embd, streamed_bytes, traits))

    def spread(self, test: Test, shares: Shares) -> Spread:
        spread, left = self.rates.spread(test, shares), self.unknown[test == "prefill"]
        return Spread(spread.low**left, spread.high**left)

    def weights(self, work: WeightWork, n_tokens: int) -> Term:
        return self._longer(self.rates.weights(work, n_tokens), n_tokens)

    def attention(self, work: AttentionWork, n_tokens: int) -> Term:
        return self._longer(self.rates.attention(work, n_tokens), n_tokens)

    def overhead_s(self, n_layers: int, n_tokens: int) -> float:
        return self._factor(n_tokens) * self.rates.overhead_s(n_layers, n_tokens)

    def _factor(self, n_tokens: int) -> float:
        of_prompts = self.prompt_factor if n_tokens > SMALL_BATCH else None
        return self.factor if of_prompts is None else of_prompts

    def _longer(self, term: Term, n_tokens: int) -> Term:
        return replace(term, seconds=self._factor(n_tokens) * term.seconds)


EXACT = Spread(1.0, 1.0)


@dataclass(frozen=True, slots=True)
class IdealRates:
    """A device at its bandwidth and compute; `flops_per_s` None: compute costs nothing."""

    bytes_per_s: float
    flops_per_s: float | None
    source: str = "ceiling"

    def spread(self, test: Test, shares: Shares) -> Spread:
        """None."""
        return EXACT

    def for_model(self, n_embd: int, streamed_bytes: float, traits: tuple[str, ...] = ()) -> Self:
        """The same: the ceiling does not depend on it."""
        return self

    def weights(self, work: WeightWork, n_tokens: int) -> Term:
        return self._term(work.n_bytes, 2 * n_tokens * work.n_elements)

    def attention(self, work: AttentionWork, n_tokens: int) -> Term:
        return self._term(work.n_bytes, n_tokens * work.flops_per_token)

    def overhead_s(self, n_layers: int, n_tokens: int) -> float:
        return 0.0

    def _term(self, n_bytes: float, n_flops: float) -> Term:
        memory_s = n_bytes / self.bytes_per_s
        compute_s = n_flops / self.flops_per_s if self.flops_per_s else 0.0
        return Term(compute_s, "compute") if compute_s > memory_s else Term(memory_s, "memory")


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens per second with the interval in which 80 % of measured speeds lie."""

    low: float
    mid: float
    high: float

    @classmethod
    def of(cls, mid: float, spread: Spread) -> "Speed":
        return cls(mid * spread.low, mid, mid * spread.high)

    def at_most(self, limit: float) -> "Speed":
        """With nothing above a limit in the interval, and the prediction itself as it is."""
        return replace(self, high=min(self.high, max(self.mid, limit)))

    def seconds_of(self, n_tokens: int) -> "Seconds":
        return Seconds(n_tokens / self.high, n_tokens / self.mid, n_tokens / self.low)


@dataclass(frozen=True, slots=True)
class Seconds:
    """A time with the interval in which 80 % of measured times lie."""

    low: float
    mid: float
    high: float
