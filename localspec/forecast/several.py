"""Several devices that share a model's layers: this machine's GPUs and workers, or named ones.

Each is measured alone, or known from published runs. Layers are computed one after the other, so
that a second device brings memory, and speed only where it is faster than what it takes layers
from, hops included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from localspec.hardware.probe_results import Link, Probe
from localspec.model.facts import ModelFacts
from localspec.prediction.memory import memory_of
from localspec.prediction.placement import Placement, Units, by_memory, fastest_first
from localspec.prediction.probed import ProbedRates
from localspec.prediction.rates import Rates
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
