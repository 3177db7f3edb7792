"""The machine that a prediction is for: which one was named, and what it takes for a model.

Several devices can share a model's layers: this machine's GPUs and workers, or named ones. Each is
measured alone, or known from published runs. Layers are computed one after the other, so
that a second device brings memory, and speed only where it is faster than what it takes layers
from, hops included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from localspec.engine.graphics import engine_reports
from localspec.engine.workers import addresses_of
from localspec.forecast.corrections import Corrections
from localspec.forecast.experience import Experience
from localspec.hardware.detect import available_memory_bytes
from localspec.hardware.probe_results import Link, Probe
from localspec.model.facts import ModelFacts
from localspec.prediction.experts import experts_elsewhere
from localspec.prediction.memory import Host, memory_of
from localspec.prediction.placement import (
    Placement,
    Units,
    by_memory,
    experts_on_host,
    fastest_first,
    layers_that_fit,
)
from localspec.prediction.probed import ProbedRates
from localspec.prediction.rates import IdealRates, Rates, rates_for
from localspec.prediction.roofline import Roofline, Share, Width
from localspec.settings import Attention, Split

ForModel = Callable[[Rates], Rates]
CLEARLY = 1.03
"""Faster than by memory, for `auto` to leave libllama's way."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A device; `free_bytes` None where it does not tell. `link`: to the processor. `overlaps`: as
    a share of a roofline does."""

    name: str
    rates: Rates
    free_bytes: int | None
    link: Link | None
    overlaps: bool = False

    @classmethod
    def probed(cls, name: str, probe: Probe, free_bytes: int | None) -> Self:
        """By its own probe."""
        return cls(name, ProbedRates(probe), free_bytes, probe.link)


@dataclass(frozen=True, slots=True)
class PeerShare:
    """What one device computes of a token: `layer_s` without `hop_s`, the way to it."""

    name: str
    n_layers: int
    has_output: bool
    token_s: float
    hop_s: float
    link: Link | None
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class Peers:
    """`n_offloaded` < 0: all layers. `host_rates`: of the machine's processor."""

    peers: tuple[Peer, ...]
    host_rates: Rates | None
    n_offloaded: int
    split: Split
    n_ctx: int

    def placement(self, facts: ModelFacts, cache: Attention, rated: ForModel) -> Placement:
        """Which layers go where."""
        shares = self.shares(facts, cache, rated)
        return Placement.of(facts.n_layers, self.n_offloaded, shares)

    def shares(self, facts: ModelFacts, cache: Attention, rated: ForModel) -> tuple[float, ...]:
        """Of the offloaded layers, by device: by memory, by speed, or what is faster."""
        free = [peer.free_bytes for peer in self.peers]
        even = by_memory(free)
        if self.split == "memory" or len(self.peers) == 1:
            return even
        units = Units.of(facts, memory_of(facts, cache, self.n_ctx).total_bytes)
        whole = [
            Roofline(facts, (Share(rated(peer.rates), facts.n_layers),), cache).seconds(1, 0)
            for peer in self.peers
        ]
        fast = fastest_first(units, self.n_offloaded, free, whole)
        if self.split == "speed":
            return fast
        even_s, fast_s = (self._seconds(facts, cache, rated, each) for each in (even, fast))
        return fast if even_s > CLEARLY * fast_s else even

    def roofline(self, facts: ModelFacts, cache: Attention, rated: ForModel) -> Roofline:
        """The model on all of them."""
        return Roofline(facts, self._placed(facts, cache, rated)[0], cache)

    def told(self, facts: ModelFacts, cache: Attention, rated: ForModel) -> tuple[PeerShare, ...]:
        """Layers and seconds of a token by device, the processor first where it has any."""
        shares, names = self._placed(facts, cache, rated)
        roofline = Roofline(facts, shares, cache)
        hops, seconds = roofline.hops_s(Width(1, 1, 1)), roofline.share_s(0)
        free = {peer.name: peer.free_bytes for peer in self.peers}
        return tuple(
            PeerShare(
                name, share.n_layers, share is shares[-1], own_s, hop_s, share.link, free.get(name)
            )
            for share, name, own_s, hop_s in zip(shares, names, seconds, hops, strict=True)
        )

    def alone(self, facts: ModelFacts, cache: Attention, rated: ForModel) -> Roofline | None:
        """The model on this machine's processor alone; None where that was not measured."""
        if self.host_rates is None:
            return None
        return Roofline(facts, (Share(rated(self.host_rates), facts.n_layers),), cache)

    def _seconds(
        self, facts: ModelFacts, cache: Attention, rated: ForModel, shares: Sequence[float]
    ) -> float:
        placed = Placement.of(facts.n_layers, self.n_offloaded, shares)
        return Roofline(facts, self._of(placed, rated)[0], cache).seconds(1, 0)

    def _placed(
        self, facts: ModelFacts, cache: Attention, rated: ForModel
    ) -> tuple[tuple[Share, ...], list[str]]:
        return self._of(self.placement(facts, cache, rated), rated)

    def _of(self, placed: Placement, rated: ForModel) -> tuple[tuple[Share, ...], list[str]]:
        used = [(self.peers[i], placed.n_layers[i]) for i in placed.used]
        overlaps = not placed.n_host and all(peer.overlaps for peer, _ in used)
        shares = [Share(rated(peer.rates), n, peer.link, overlaps) for peer, n in used]
        names = [peer.name for peer, _ in used]
        if placed.n_host or not shares:
            assert self.host_rates, "the processor is measured where it has layers"
            shares.insert(0, Share(rated(self.host_rates), placed.n_host))
            names.insert(0, "the processor")
        return tuple(shares), names


ProbeChoice = Literal["auto", "again", "off"]


@dataclass(frozen=True, slots=True)
class MachineChoice:
    """What the user said of the machine; `device` None is this one."""

    device: str | None = None
    n_threads: int | None = None
    n_gpu_layers: int = -1
    probe: ProbeChoice = "auto"
    workers: tuple[str, ...] = ()
    split: Split = "auto"
    n_cpu_moe: int = 0

    @property
    def own_devices(self) -> tuple[str, ...]:
        """Names of this engine's devices, where `device` is that and no other machine."""
        names = tuple(part.strip() for part in (self.device or "").split(",") if part.strip())
        known = {each.name for each in (engine_reports() or [])} if names else set[str]()
        known |= set(addresses_of(self.workers))
        return names if names and set(names) <= known else ()


@dataclass(frozen=True, slots=True)
class Offload:
    """What devices compute of a model: the last `n_layers` (< 0: all), without the experts of the
    first `n_cpu_moe`. `note`: what of it nobody asked for."""

    n_layers: int = -1
    n_cpu_moe: int = 0
    note: str | None = None

    @classmethod
    def fitting(
        cls, choice: MachineChoice, facts: ModelFacts, needed_bytes: int, free: Sequence[int | None]
    ) -> Self:
        """As it was asked for, else what fits the devices' free memory: a mixture's experts stay
        with the processor first. Those of several devices stay with their layers."""
        asked = cls(choice.n_gpu_layers, choice.n_cpu_moe)
        if asked.n_layers >= 0 or asked.n_cpu_moe:
            return asked
        n_cpu_moe = experts_on_host(facts, needed_bytes, free) if len(free) == 1 else 0
        if n_cpu_moe:
            note = f"experts of {n_cpu_moe} layers stay on the processor: GPUs hold all else"
            return cls(-1, n_cpu_moe, note)
        n_layers = layers_that_fit(facts, needed_bytes, free)
        if n_layers < 0:
            return asked
        return cls(n_layers, 0, f"{n_layers} of {facts.n_layers + 1} layers fit on GPUs")


@dataclass(frozen=True, slots=True)
class PredictedMachine:
    """Where a prediction holds; None is what is not known.

    `rates` are those of the device that computes most, `host_rates` of the processor beside a GPU,
    for the layers that are not among the `n_offloaded` (< 0: all of them are) and for the experts
    of the first `n_cpu_moe`.
    """

    name: str
    source: str
    rates: Rates
    bandwidth_bytes_per_s: float | None = None
    flops_per_s: float | None = None
    memory_bytes: int | None = None
    free_bytes: int | None = None
    host_rates: Rates | None = None
    n_offloaded: int = -1
    n_cpu_moe: int = 0
    notes: tuple[str, ...] = ()
    experience: Experience | Corrections = field(default_factory=Experience)
    needed_bytes: int | None = None
    host: Host | None = None
    """How weights lie in a processor's memory; None on a GPU."""
    peers: Peers | None = None
    """The devices that share the layers; None where there is one, or a published one."""

    def roofline(self, facts: ModelFacts, cache: Attention) -> Roofline:
        """What a model should take here."""
        if self.peers:
            return self.peers.roofline(facts, cache, self._rated(facts))
        return Roofline(facts, self._shares_of(facts), cache)

    def peer_shares(self, facts: ModelFacts, cache: Attention) -> tuple[PeerShare, ...]:
        """Layers and seconds of a token by device; empty where no devices were measured."""
        return self.peers.told(facts, cache, self._rated(facts)) if self.peers else ()

    def verdict(self, facts: ModelFacts, cache: Attention) -> str | None:
        """Whether sharing pays, in a sentence; None where nothing is shared with a worker."""
        alone = self.peers and self.peers.alone(facts, cache, self._rated(facts))
        if alone is None or self.needed_bytes is None:
            return None
        here, shared = alone.decode(0).mid, self.roofline(facts, cache).decode(0).mid
        speeds = f"{shared:.1f} tok/s together, {here:.1f} on this machine's processor alone"
        if self.needed_bytes > available_memory_bytes():
            return f"this machine alone does not hold the model: sharing makes it run ({speeds})"
        if here >= shared:
            return f"sharing is slower here, the devices only hold more: {speeds}"
        return f"sharing is faster here: {speeds}"

    def _rated(self, facts: ModelFacts) -> Callable[[Rates], Rates]:
        return lambda rates: self.experience.corrected(facts, rates_for(facts, rates))

    def ceiling(self, facts: ModelFacts, cache: Attention) -> Roofline | None:
        """What it would take if nothing but bandwidth and compute counted; None: not known."""
        if self.bandwidth_bytes_per_s is None:
            return None
        return ideal_roofline(facts, cache, self.bandwidth_bytes_per_s, self.flops_per_s)

    def _shares_of(self, facts: ModelFacts) -> tuple[Share, ...]:
        """Who computes which layers. libllama offloads the last ones, the output matrix first."""
        host = self.host_rates and rates_for(facts, self.host_rates)
        is_split = host is not None and 0 <= self.n_offloaded <= facts.n_layers
        n_on_gpu = max(0, self.n_offloaded - 1) if is_split else facts.n_layers
        n_on_host = facts.n_layers - n_on_gpu
        rates = self._rated(facts)(self.rates)
        rates = experts_elsewhere(rates, host, facts, self.n_cpu_moe, n_on_host)
        if host is None or not is_split:
            return (Share(rates, facts.n_layers),)
        on_host = Share(host, n_on_host)
        return (on_host, Share(rates, n_on_gpu)) if self.n_offloaded else (on_host,)


def ideal_roofline(
    facts: ModelFacts, cache: Attention, bytes_per_s: float, flops_per_s: float | None = None
) -> Roofline:
    """A model on a device that loses nothing."""
    return Roofline(facts, (Share(IdealRates(bytes_per_s, flops_per_s), facts.n_layers),), cache)
