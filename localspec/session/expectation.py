"""What a loaded model should do on this machine, from an earlier probe; nothing is measured now.

The prediction is of plain decoding. The roofline is the same sum for a machine that loses nothing
but the bandwidth of its memory: what share of it is reached is what could still be won.
"""

from dataclasses import dataclass
from typing import Self

from localspec.engine.base import EngineConfig
from localspec.model.facts import ModelFacts, cache_type
from localspec.predict.ideal import IdealRates
from localspec.predict.probed import ProbedRates
from localspec.predict.roofline import CacheSetting, Roofline, Share, Speed
from localspec.session.probing import kept_rates


@dataclass(frozen=True, slots=True)
class Expectation:
    """Predictions for one engine; `ceiling` None where the memory's bandwidth is not known."""

    roofline: Roofline
    ceiling: Roofline | None

    @classmethod
    def of(cls, config: EngineConfig, facts: ModelFacts) -> Self | None:
        """None where this machine was not measured for such a model."""
        types = cache_type(config.kv_k), cache_type(config.kv_v)
        cache = CacheSetting(*types, flash=config.flash_attn != "off")
        rates = kept_rates(config, facts, cache)
        if rates is None:
            return None
        ideal = _ideal(rates) if isinstance(rates, ProbedRates) else None
        return cls(
            Roofline(facts, (Share(rates, facts.n_layers),), cache),
            Roofline(facts, (Share(ideal, facts.n_layers),), cache) if ideal else None,
        )

    def decode(self, depth: int) -> Speed:
        """Tokens per second of plain decoding with `depth` tokens in the cache."""
        return self.roofline.decode(depth)

    def first_token_s(self, n_new: int, depth: int) -> float:
        """Seconds until the first token of an answer, with `n_new` tokens to read."""
        return self.roofline.prefill_s(n_new, depth)

    def ceiling_tps(self, depth: int) -> float | None:
        """Tokens per second if nothing but the memory's bandwidth took time."""
        return self.ceiling.decode(depth).mid if self.ceiling else None


def _ideal(rates: ProbedRates) -> IdealRates | None:
    read = rates.probe.read_bytes_per_s
    return IdealRates(max(read, rates.stream_bytes_per_s), None) if read else None
