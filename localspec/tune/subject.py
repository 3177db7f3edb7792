"""What is tuned: a model with its default settings, and all that the search asks about it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from localspec.engine.base import EngineConfig
from localspec.engine.health import engine_health
from localspec.engine.preflight import checked_facts
from localspec.hardware.detect import available_memory_bytes
from localspec.hardware.machine import local_devices
from localspec.model.facts import ModelFacts, cache_type
from localspec.predict.rates import Rates
from localspec.predict.roofline import CacheSetting, Roofline, Share
from localspec.session.config import SessionConfig
from localspec.session.loading import plan_engines
from localspec.session.machine import engine_reports
from localspec.session.probing import kept_rates
from localspec.tune.rules import Build
from localspec.tune.settings import Attention

Talk = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """`config`: the defaults, with a context of the length that matters to the user.

    `rates`: of this machine, from an earlier probe; None: predictions go by bytes. `free_bytes`: of
    the memory that the caches come to lie in.
    """

    config: EngineConfig
    facts: ModelFacts
    build: Build = field(default_factory=Build)
    rates: Rates | None = None
    free_bytes: int | None = None

    @classmethod
    def of(cls, config: SessionConfig, talk: Talk) -> Self:
        """A model by its defaults on this machine. Raises UserError, ModelError or EngineError."""
        plan = plan_engines(config)
        if not engine_health(talk).use_extra_buffers:
            plan = plan.without_extra_buffers()
        facts = checked_facts(config.model)
        device = local_devices(engine_reports())[0]
        backend = device.backend if plan.target.n_gpu_layers else "cpu"
        probed = kept_rates(plan.target, facts, CacheSetting(cache_type("f16"), cache_type("f16")))
        return cls(
            config=plan.target,
            facts=facts,
            build=Build(backend, _features()),
            rates=probed,
            free_bytes=available_memory_bytes() if backend == "cpu" else device.free_bytes,
        )

    @property
    def n_ctx(self) -> int:
        return self.config.n_ctx

    @property
    def middle(self) -> int:
        """The depth that stands for all where time grows in proportion to depth."""
        return max(1, self.n_ctx // 2)

    def predicted_s(self, attention: Attention) -> float | None:
        """Seconds a token at the middle depth; None without a probe."""
        if self.rates is None:
            return None
        types = cache_type(attention.kv_k), cache_type(attention.kv_v)
        cache = CacheSetting(*types, flash=attention.flash != "off")
        shares = (
            Share(
                self.rates.for_model(self.facts.n_embd, self.facts.streamed_bytes),
                self.facts.n_layers,
            ),
        )
        return Roofline(self.facts, shares, cache).seconds(1, self.middle)

    def cache_bytes(self, attention: Attention, n_ctx: int) -> int:
        """Of a cache; 0 where the architecture keeps one of its own kind."""
        types = cache_type(attention.kv_k), cache_type(attention.kv_v)
        window = self.facts.window_tokens
        n_windowed = None if window is None else window + self.config.n_batch
        return self.facts.kv_bytes(n_ctx, *types, n_windowed=n_windowed) or 0


def _features() -> str:
    from localspec.engine.llama.report import engine_features  # noqa: PLC0415 - loads libllama

    return engine_features()
