"""A mixture whose experts lie in the processor's memory, wholly or in the first layers.

Each token uses few of the experts, so the processor streams them from its own memory while the GPU
keeps all else (`--n-cpu-moe` of llama.cpp). The hidden row of each such layer crosses over and
back. A wide pass is computed where it is faster: on the processor, or on the GPU with the experts
copied to it for this pass, as libllama's `op_offload` does from 32 tokens on.
"""

from dataclasses import dataclass, replace
from typing import Self

from localspec.model.facts import ModelFacts
from localspec.prediction.rates import AttentionWork, Rates, Shares, Spread, Term, Test, WeightWork

COPIED_FROM = 32
"""Tokens: GGML_OP_OFFLOAD_MIN_BATCH of llama.cpp."""
COPY_BYTES_PER_S = 12e9
"""Of PCIe 3.0 with 16 lanes or 4.0 with 8, about; newer slots are faster."""
HOP_S = 3e-5
"""To hand a row over and wait for it, about: two a layer."""


def experts_elsewhere(
    rates: Rates, host: Rates | None, facts: ModelFacts, n_cpu_moe: int, first_layer: int = 0
) -> Rates:
    """Rates of a GPU that has the layers from `first_layer` on; the first `n_cpu_moe` of the model
    keep their experts with the processor. The same rates where there is nothing to keep."""
    of_gpu = facts.expert_share(first_layer, facts.n_layers)
    kept = facts.expert_share(first_layer, n_cpu_moe)
    if host is None or not facts.n_experts or not kept:
        return rates
    n_kept = min(n_cpu_moe, facts.n_layers) - first_layer
    return ExpertsElsewhere(rates, host, kept / of_gpu, n_kept)


@dataclass(frozen=True, slots=True)
class ExpertsElsewhere:
    """A GPU's rates with `share` of its experts' bytes, of `n_layers` layers, on a processor."""

    rates: Rates
    host: Rates
    share: float
    n_layers: int

    @property
    def source(self) -> str:
        return self.rates.source

    def for_model(self, n_embd: int, streamed_bytes: float, traits: tuple[str, ...] = ()) -> Self:
        known = (n_embd, streamed_bytes, traits)
        return replace(self, rates=self.rates.for_model(*known), host=self.host.for_model(*known))

    def spread(self, test: Test, shares: Shares) -> Spread:
        """The wider of both."""
        return Spread.widest(each.spread(test, shares) for each in (self.rates, self.host))

    def weights(self, work: WeightWork, n_tokens: int) -> Term:
        if not work.is_expert or not self.share:
            return self.rates.weights(work, n_tokens)
        near = self._part(work, 1 - self.share)
        terms = [self._far(self._part(work, self.share), n_tokens)]
        terms += [self.rates.weights(near, n_tokens)] if near.n_bytes else []
        longest = max(terms, key=lambda term: term.seconds)
        return replace(
            longest,
            seconds=sum(term.seconds for term in terms),
            least_s=sum(term.least_s for term in terms),
        )

    def _far(self, work: WeightWork, n_tokens: int) -> Term:
        here = self.host.weights(work, n_tokens)
        if n_tokens < COPIED_FROM:
            return here
        copied = work.n_bytes / COPY_BYTES_PER_S + self.rates.weights(work, n_tokens).seconds
        return min(here, Term(copied, "memory"), key=lambda term: term.seconds)

    @staticmethod
    def _part(work: WeightWork, share: float) -> WeightWork:
        return replace(work, n_bytes=share * work.n_bytes, n_elements=share * work.n_elements)

    def attention(self, work: AttentionWork, n_tokens: int) -> Term:
        return self.rates.attention(work, n_tokens)

    def overhead_s(self, n_layers: int, n_tokens: int) -> float:
        hops_s = 2 * HOP_S * self.n_layers if self.share else 0.0
        return self.rates.overhead_s(n_layers, n_tokens) + hops_s
