"""The candidates: what the machine, the build and the model leave to choose, predicted best first.

Attention times are nearly a sum of what the keys' type costs and what the values' does, for flash
attention and for none, so it takes one row and one column of each table to predict the rest:

    t(K, V) = t(K, f16) + t(f16, V) - t(f16, f16)

Before anything is measured the order is that of a prediction from an earlier probe of this machine,
where there is one, else of bytes.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from localspec.hardware.detect import usable_cores
from localspec.model.facts import ModelFacts
from localspec.settings import Attention, FlashAttention, Settings
from localspec.tuning.target import Build, Goal, cell_bits, excluded

BASE_TYPE = "f16"
MODES: tuple[FlashAttention, ...] = ("on", "off")

Predicted = Callable[[Attention], float | None]
"""Seconds a token, or None where nothing is known."""


@dataclass(frozen=True, slots=True)
class Space:
    """Ways to keep the cache, and those that a rule excludes, with its reason."""

    attentions: tuple[Attention, ...]
    excluded: Mapping[Attention, str]

    @property
    def edges(self) -> tuple[Attention, ...]:
        """The row and the column of each table from which the rest is predicted."""
        return tuple(a for a in self.attentions if BASE_TYPE in (a.kv_k, a.kv_v))


def space_of(goal: Goal, facts: ModelFacts, build: Build, predicted: Predicted) -> Space:
    """Every candidate for a goal, predicted fastest (for memory: smallest) first."""
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
        # What nothing is known of comes after what is, fewer bytes first.
        return (float("inf") if seconds is None else seconds), bits

    return Space(tuple(sorted(tried, key=order)), reasons)


def additive(attention: Attention, measured: Mapping[Attention, float]) -> float | None:
    """Seconds a token by the sum above; None where a term is missing."""
    if attention in measured:
        return measured[attention]
    k, v, flash = attention.kv_k, attention.kv_v, attention.flash_attn
    terms = [Attention(k, BASE_TYPE, flash), Attention(BASE_TYPE, v, flash)]
    base = Attention(BASE_TYPE, BASE_TYPE, flash)
    if base not in measured or any(term not in measured for term in terms):
        return None
    return sum(measured[term] for term in terms) - measured[base]


def thread_counts() -> tuple[int, ...]:
    """Worth trying: parts and all of the physical cores, and every hyper-thread."""
    cores, logical = usable_cores(), os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        logical = min(logical, len(os.sched_getaffinity(0)))
    counts = {max(1, cores // 2), max(1, 3 * cores // 4), max(1, cores - 1), cores, logical}
    return tuple(sorted(counts))


def loadings(
    default: Settings, facts: ModelFacts, build: Build, free_bytes: int | None
) -> tuple[Settings, ...]:
    """Other ways to load the weights than the default one.

    On the processor: not repacked, and not mapped. On a GPU that the weights do not fill: nothing.
    On one that they do not fit into: as many layers as fit, and for a mixture of experts also all
    layers with as many of them without their experts as it takes. Not yet measured on a GPU.
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
