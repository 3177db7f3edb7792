"""The ceiling: rates of a device that loses nothing, from its bandwidth and compute alone.

What share of it a machine reaches is what is left to gain. Not an expectation: see `published`.
"""

from dataclasses import dataclass
from typing import Self

from localspec.predict.rates import AttentionWork, Spread, Term, WeightWork

EXACT = Spread(1.0, 1.0)


def break_even_tokens(flops_per_s: float, bytes_per_s: float, bits_per_element: float) -> float:
    """The batch at which multiplying takes as long as streaming: C / B * bits / 8 / 2.

    Each element is two operations a token. (A100, 312 TFLOP/s, 1.935 TB/s, 16 bit: 161.)
    """
    return flops_per_s / bytes_per_s * bits_per_element / 8 / 2


@dataclass(frozen=True, slots=True)
class IdealRates:
    """A device at its bandwidth and compute; `flops_per_s` None: compute costs nothing."""

    bytes_per_s: float
    flops_per_s: float | None
    source: str = "ceiling"

    @property
    def decode_spread(self) -> Spread:
        return EXACT

    @property
    def prefill_spread(self) -> Spread:
        return EXACT

    def for_model(self, n_embd: int, streamed_bytes: float) -> Self:
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
