"""The model that a search tunes, its goal, and the candidates, the one predicted fastest first.

Attention time is nearly a sum of the cost of the keys' type and that of the values' type, so one
row and one column of the table of types predict the rest, with flash attention and without:

    t(K, V) = t(K, f16) + t(f16, V) - t(f16, f16)

An earlier probe of this machine gives the first order; without one, bytes give it. Combinations
without a fast kernel are not tried, and each has a reason.

Sources: ggml's flash attention dispatch (ggml-metal-device.m and ggml-cuda/fattn.cu, libggml
0.25.3) and llama_init_from_model. A CUDA build has kernels for the pairs in GGML_CUDA_FA_QUANTS,
which it prints among its features; others are converted to f16 in every step. Metal has none where
K's and V's types differ. What is refused for the model itself, `ModelFacts.kv_problem` says. The
rules for CUDA and Metal are not yet measured.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from localspec.engine.base import EngineConfig
from localspec.engine.graphics import free_bytes, graphics
from localspec.engine.workers import KEPT_TYPES
from localspec.forecast.forecast import Expectation
from localspec.forecast.rated_machine import engine_features
from localspec.hardware.detect import available_memory_bytes
from localspec.model.facts import ModelFacts
from localspec.model.kv import cache_type, types_of
from localspec.notify import Notify
from localspec.session.loading import sound_plan
from localspec.session.session_config import SessionConfig
from localspec.settings import Attention, FlashAttention, Settings, words_of


def candidate_of(config: EngineConfig) -> Settings:
    """The point of the search that an engine's configuration is."""
    return replace(config.settings, threads_batch=config.n_threads_batch)


def candidate_text(settings: Settings) -> str:
    """The settings that tell candidates apart, short."""
    threads = f"{settings.threads} thread{'s' * (settings.threads != 1)}"
    return f"{settings.attention.text}, {threads}"


def loading_text(loading: Settings) -> str:
    """The settings of loading that differ from the defaults."""
    changed = {n: v for n, v in loading.loading.changed.items() if (n, v) != ("gpu_layers", 0)}
    return words_of(changed)


CUDA_DEFAULT_PAIRS = frozenset({"q4_0-q4_0", "q8_0-q8_0", "f16-f16", "bf16-bf16"})
_FEATURE = re.compile(r"FA_QUANTS\s*=\s*([\w;-]+)")
_NO_FLASH = frozenset({"grok"})
ANY_PAIR = "all"


@dataclass(frozen=True, slots=True)
class Build:
    """The backend that computes attention, and its features: they decide the kernels."""

    backend: str = "cpu"
    features: str = ""

    @property
    def cuda_pairs(self) -> frozenset[str]:
        """K-V pairs with a kernel of their own."""
        found = _FEATURE.search(self.features)
        return frozenset(found[1].lower().split(";")) if found else CUDA_DEFAULT_PAIRS


def excluded(attention: Attention, facts: ModelFacts, build: Build) -> str | None:
    """A sentence on why these cache types are not worth a trial here; None where they are."""
    is_flash, k, v = attention.is_flash, attention.kv_k, attention.kv_v
    problem = facts.kv_problem(*types_of(attention), flash_attention=is_flash)
    if problem:
        return problem
    if is_flash and facts.architecture in _NO_FLASH:
        return f"{facts.architecture} has no flash attention"
    if build.backend == "rpc" and (k != v or k not in KEPT_TYPES):
        return f"{k} keys with {v} values can end a worker"
    return _without_kernel(attention, build) if is_flash else None


def _without_kernel(attention: Attention, build: Build) -> str | None:
    k, v = attention.kv_k, attention.kv_v
    if build.backend == "metal" and k != v:
        return f"Metal has no flash attention for {k} keys with {v} values"
    if build.backend != "cuda":
        return None
    if "iq4_nl" in (k, v):
        return "CUDA has no flash attention for iq4_nl"
    pairs = build.cuda_pairs
    if ANY_PAIR not in pairs and f"{k}-{v}" not in pairs:
        return f"this CUDA build has no flash attention for {k} keys with {v} values"
    return None


@dataclass(frozen=True, slots=True)
class TuneTarget:
    """A model to tune. `config`: its defaults, with a context of the user's length.

    `expected`: its speed here with an f16 cache, from an earlier probe; None: bytes give the order.
    `free_bytes`: free memory of the device that holds the caches.
    """

    config: EngineConfig
    facts: ModelFacts
    build: Build = field(default_factory=Build)
    expected: Expectation | None = None
    free_bytes: int | None = None

    @classmethod
    def of(cls, config: SessionConfig, notify: Notify) -> Self:
        """A model with its defaults here. Raises UserError, ModelError or EngineError."""
        plan = sound_plan(config, notify)
        settings = plan.target.settings
        used = graphics(settings.device, settings.workers) if settings.gpu_layers else []
        names = [device.backend for device in used]
        # That with the most rules for cache types: a worker's, else the first.
        backend = "rpc" if "rpc" in names else names[0] if names else "cpu"
        plain = replace(plan.target, settings=plan.target.settings.with_attention(Attention()))
        return cls(
            config=plan.target,
            facts=plan.facts,
            build=Build(backend, engine_features()),
            expected=Expectation.of(plain, plan.facts),
            free_bytes=free_bytes(used) if used else available_memory_bytes(),
        )

    @property
    def n_ctx(self) -> int:
        return self.config.n_ctx

    @property
    def middle(self) -> int:
        """Half the context: the average depth, where time grows in proportion to depth."""
        return max(1, self.n_ctx // 2)

    def predicted_s(self, attention: Attention) -> float | None:
        """Seconds a token at the middle depth; None without a probe."""
        if self.expected is None:
            return None
        return self.expected.roofline.with_cache(attention).seconds(1, self.middle)

    def cache_bytes(self, attention: Attention, n_ctx: int) -> int:
        """Bytes of a cache; 0 where the architecture has its own kind of cache."""
        window = self.facts.window_tokens
        n_windowed = None if window is None else window + self.config.settings.ubatch
        return self.facts.kv_bytes(n_ctx, *types_of(attention), n_windowed=n_windowed) or 0


GoalName = Literal["speed", "memory", "quality"]

MAX_QUALITY_LOSS = 0.01
LEAST_GAIN = 1.02
"""The least gain in speed of a setting that changes numbers."""
LEAST_SPEED = 0.95
"""The least share of the defaults' speed when the goal is memory."""
MOST_PREFILL = 2.0
"""The longest time of a prompt, over the defaults'."""


@dataclass(frozen=True, slots=True)
class Goal:
    """`max_loss`: mean KL divergence in nats a token against an f16 cache and the given weights."""

    name: GoalName = "speed"
    max_loss: float = MAX_QUALITY_LOSS

    @property
    def types(self) -> tuple[str, ...]:
        """Cache types to try, for keys and for values."""
        if self.name == "quality":
            return ("f16", "f32")
        if self.name == "memory":
            return ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
        return ("f16", "bf16", "q8_0", "q4_0")

    @property
    def least_ratio(self) -> float:
        """The least decoding speed of a candidate, over the defaults'."""
        return LEAST_SPEED if self.name == "memory" else 1.0


def is_coarser(one: Attention, other: Attention) -> bool:
    """Whether keys and values have the other's types or fewer bits, so that it loses more."""
    pairs = ((one.kv_k, other.kv_k), (one.kv_v, other.kv_v))
    return all(
        mine == theirs or cache_type(mine).bits_per_element < cache_type(theirs).bits_per_element
        for mine, theirs in pairs
    )


def cell_bits(attention: Attention) -> float:
    """Bits of one key number and one value number: the cache's size is proportional to it."""
    return sum(kind.bits_per_element for kind in types_of(attention))


BASE_TYPE = "f16"
MODES: tuple[FlashAttention, ...] = ("on", "off")

Predicted = Callable[[Attention], float | None]
"""Seconds a token, or None where nothing is known."""


@dataclass(frozen=True, slots=True)
class Space:
    """Cache types to try, and those that a rule excludes, with its reason."""

    attentions: tuple[Attention, ...]
    excluded: Mapping[Attention, str]

    @property
    def edges(self) -> tuple[Attention, ...]:
        """The row and the column of each table from which the rest is predicted, and what cannot
        be: a device may compute q8_0/q8_0 and neither q8_0/f16 nor f16/q8_0."""
        known = {*self.attentions}
        return tuple(
            a for a in self.attentions if BASE_TYPE in (a.kv_k, a.kv_v) or not known >= {*_terms(a)}
        )


def space_of(goal: Goal, facts: ModelFacts, build: Build, predicted: Predicted) -> Space:
    """Every candidate for a goal, the one predicted fastest (for memory: smallest) first."""
    types = goal.types
    everything = [Attention(k, v, flash) for flash in MODES for k in types for v in types]
    tried: list[Attention] = []
    reasons: dict[Attention, str] = {}
    for attention in everything:
        reason = excluded(attention, facts, build)
        if reason:
            reasons[attention] = reason
        else:
            tried.append(attention)
    known = {attention: predicted(attention) for attention in tried}

    def order(attention: Attention) -> tuple[float, float]:
        seconds, bits = known[attention], cell_bits(attention)
        if goal.name == "memory":
            return bits, seconds or 0.0
        # Candidates without a prediction come last, fewer bytes first.
        return (float("inf") if seconds is None else seconds), bits

    return Space(tuple(sorted(tried, key=order)), reasons)


def additive(attention: Attention, measured: Mapping[Attention, float]) -> float | None:
    """Seconds a token by the sum above; None where a term is missing."""
    if attention in measured:
        return measured[attention]
    terms = _terms(attention)
    base = Attention(BASE_TYPE, BASE_TYPE, attention.flash_attn)
    if base not in measured or any(term not in measured for term in terms):
        return None
    return sum(measured[term] for term in terms) - measured[base]


def _terms(attention: Attention) -> tuple[Attention, Attention]:
    """Of its prediction: its keys' type alone, and its values' type."""
    k, v, flash = attention.kv_k, attention.kv_v, attention.flash_attn
    return Attention(k, BASE_TYPE, flash), Attention(BASE_TYPE, v, flash)


def loadings(
    default: Settings, facts: ModelFacts, build: Build, free_bytes: int | None
) -> tuple[Settings, ...]:
    """Other ways to load the weights than the default one.

    On a CPU: not repacked, and not mapped. On a GPU that holds the weights: none. On a smaller GPU:
    as many layers as fit; for a mixture of experts also all layers, some without their experts.
    Not yet measured on a GPU.
    """
    if build.backend == "cpu":
        plain, unmapped = replace(default, repack=False), replace(default, mmap=False)
        return (plain, unmapped) if default.repack else (unmapped,)
    room = None if free_bytes is None else int(0.9 * free_bytes)
    if room is None or facts.weight_bytes <= room:
        return ()
    per_layer = facts.weight_bytes / max(1, facts.n_layers)
    found = [replace(default, gpu_layers=max(0, int(room / per_layer)))]
    if facts.n_experts:
        expert_layer = facts.expert_bytes / max(1, facts.n_layers)
        n_without = -(-(facts.weight_bytes - room) // max(1, int(expert_layer)))
        if n_without <= facts.n_layers:
            found.insert(0, replace(default, gpu_layers=-1, cpu_moe=n_without))
    return tuple(found)
