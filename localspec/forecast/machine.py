"""The machine that a prediction is for: which one was named, and what it takes for a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

from localspec.engine.graphics import engine_reports
from localspec.engine.workers import addresses_of
from localspec.forecast.corrections import Corrections
from localspec.forecast.experience import Experience
from localspec.forecast.several import Peers, PeerShare
from localspec.hardware.detect import available_memory_bytes
from localspec.model.facts import ModelFacts
from localspec.prediction.experts import experts_elsewhere
from localspec.prediction.host_memory import Host
from localspec.prediction.placement import experts_on_host, layers_that_fit
from localspec.prediction.rates import IdealRates, Rates, rates_for
from localspec.prediction.roofline import Roofline, Share
from localspec.settings import Attention, Split

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
    bandwidth_bytes_per_s: float | None
    flops_per_s: float | None
    source: str
    memory_bytes: int | None
    free_bytes: int | None
    rates: Rates
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
