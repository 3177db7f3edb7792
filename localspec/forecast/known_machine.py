"""A machine as far as it is known without measuring: memory for models, and rates.

A named device has its published figures. This machine has those of its GPU, or what an earlier
probe of its processor left; a processor that was never probed has, where that is allowed, a quick
read of its memory. Room for models is less than memory: other programs need some, and a part that
shares the machine's memory may be given only a share of it by the system.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Self

from localspec.engine.graphics import engine_reports, may_have_graphics
from localspec.engine.probe import PROCESSOR, ProbeSetting, kept_probe
from localspec.engine.threads import default_threads
from localspec.errors import EngineError, HardwareError, UserError
from localspec.forecast.experience import Experience, experience_of
from localspec.hardware.asked_machine import devices_meant
from localspec.hardware.detect import available_memory_bytes, processor_features
from localspec.hardware.devices import GIB, Device, Match
from localspec.hardware.machine import (
    QUICK_READ_BYTES,
    LocalDevice,
    local_devices,
    memory_read_bytes_per_s,
)
from localspec.model.facts import ModelFacts
from localspec.prediction.memory import Host
from localspec.prediction.placement import Placement
from localspec.prediction.probed import ProbedRates, probe_needs
from localspec.prediction.published import PublishedRates
from localspec.prediction.rates import (
    IdealRates,
    Rates,
    Shares,
    Spread,
    Term,
    Test,
    WeightWork,
    rates_for,
)
from localspec.prediction.roofline import Roofline, Share
from localspec.settings import Attention

SHARED_ROOM = 0.75
"""Of memory that a GPU shares with the processor: what macOS and amdgpu give it at most, about."""
OWN_MARGIN_BYTES = GIB
"""Of a card's memory: the screen, and the driver's own."""
FREE_ROOM = 0.9
"""Of memory that is free now: other programs go on."""

REACHED = 0.75
"""Of a plain read's bandwidth, by decoding on a processor, roughly (docs/concepts/roofline.md)."""
FLOPS_PER_BYTE = 14.0
"""Arithmetic of prompts to the bandwidth of decoding: the median of 71 processors that ran models
of more than 2B weights, four fifths of them between 8 and 32 (localscore.ai's results, of which
github.com/d893a/localscore-insights keeps a copy)."""
READ_SHARE = 0.8
"""Of memory's rated bandwidth, by a plain read, about."""
ROUGH_SPREADS: dict[Test, Spread] = {"decode": Spread(0.5, 1.3), "prefill": Spread(0.4, 2.5)}
"""Builds, processors and weight types differ that much."""


@dataclass(frozen=True, slots=True)
class RoughRates(IdealRates):
    """A processor of which only the memory was read: its arithmetic is what others have beside as
    much bandwidth, halfway to what other weights reached where these were probed."""

    @classmethod
    def of_read(cls, bytes_per_s: float, probed_flops_per_s: float | None = None) -> Self:
        reached = REACHED * bytes_per_s
        usual = FLOPS_PER_BYTE * reached
        flops_per_s = sqrt(usual * (probed_flops_per_s or usual))
        return cls(reached, flops_per_s, "memory bandwidth alone")

    def spread(self, test: Test, shares: Shares) -> Spread:
        return ROUGH_SPREADS[test]


@dataclass(frozen=True, slots=True)
class PartlyProbedRates(ProbedRates):
    """A probe that lacks some weight types of a model: their time is rough, since kernels of types
    differ by more than the share of bandwidth that they reach."""

    def weights(self, work: WeightWork, n_tokens: int) -> Term:
        read = self.read_bytes_per_s
        if read is None or any(case.type == work.type.name for case in self.probe.weight_s):
            return ProbedRates.weights(self, work, n_tokens)
        return RoughRates.of_read(read, self.probe.flops_per_s).weights(work, n_tokens)

    def spread(self, test: Test, shares: Shares) -> Spread:
        return ROUGH_SPREADS[test]


@dataclass(frozen=True, slots=True)
class KnownMachine:
    """`memory_bytes` is what was counted with, `room_bytes` of it for models; `rates` None: no
    speed is known."""

    name: str
    memory_bytes: int
    room_bytes: int
    rates: Rates | None
    host: Host | None = None
    several: tuple[tuple[Rates, float], ...] = ()
    """Where GPUs share the layers: the rates of each and its memory."""
    experience: Experience = field(default_factory=Experience)
    """What models that ran here took beside their predictions."""

    @classmethod
    def named(cls, name: str, memory_bytes: int | None = None) -> Self:
        """A device of the table. UserError for an unknown name, and where a size is needed."""
        found = devices_meant(name, memory_bytes)
        cards = [match for match in found if match.candidates[0].kind != "cpu"]
        if len(cards) < 2:
            return cls._of_match((cards or list(found))[0], memory_bytes)
        if memory_bytes:
            raise UserError("--memory is that of one device: leave it out where several are named")
        return cls._together([cls._of_match(match, None) for match in cards])

    @classmethod
    def _of_match(cls, match: Match, memory_bytes: int | None) -> Self:
        device = match.candidates[0]
        memory = memory_bytes or _memory_of(device)
        if device.kind != "cpu":
            return cls(
                device.name,
                memory,
                _room_of(memory, shared=device.shares_memory),
                PublishedRates.of(match),
            )
        rates = RoughRates.of_read(READ_SHARE * device.bandwidth_bytes_per_s)
        return cls(device.name, memory, int(SHARED_ROOM * memory), rates, Host(frozenset()))

    @classmethod
    def here(cls, memory_bytes: int | None = None) -> Self:
        """This machine. Where nothing is known of a processor, half a second of memory is read."""
        device, *others = _devices_here()
        if device.backend != "cpu":
            gpus = [cls._on_gpu(each, memory_bytes) for each in (device, *others)]
            return gpus[0] if memory_bytes or len(gpus) == 1 else cls._together(gpus)
        memory = memory_bytes or available_memory_bytes()
        rates, experience = _processor_rates()
        room, host = int(FREE_ROOM * memory), Host(processor_features())
        return cls(device.name, memory, room, rates, host, experience=experience)

    @classmethod
    def _on_gpu(cls, device: LocalDevice, memory_bytes: int | None) -> Self:
        known = device.match.device
        rates = PublishedRates.of(device.match, device.backend) if known else None
        memory = memory_bytes or device.free_bytes or device.total_bytes
        if memory is None:
            raise HardwareError(f"the memory of {device.name} is not known: give --memory")
        is_free = memory_bytes is None and device.free_bytes is not None
        room = int(FREE_ROOM * memory) if is_free else _room_of(memory, shared=device.shares_memory)
        return cls(device.name, memory, room, rates)

    @classmethod
    def _together(cls, gpus: Sequence[Self]) -> Self:
        """All of them: layers go by memory, as libllama shares them out."""
        memory, room = sum(g.memory_bytes for g in gpus), sum(g.room_bytes for g in gpus)
        known = [(gpu.rates, float(gpu.room_bytes)) for gpu in gpus if gpu.rates]
        if len(known) < len(gpus):
            return cls(" + ".join(gpu.name for gpu in gpus), memory, room, None)
        several = tuple(known)
        return cls(" + ".join(gpu.name for gpu in gpus), memory, room, known[0][0], None, several)

    def roofline(self, facts: ModelFacts, cache: Attention) -> Roofline | None:
        """Of a model with all layers here; None where no speed is known."""
        rates = self._rates_for(facts, cache)
        if rates is None:
            return None
        by_memory = [share for _, share in self.several]
        counts = Placement.of(facts.n_layers, -1, by_memory).n_layers or (facts.n_layers,)
        parts = [each for each, _ in self.several] or [rates]
        return Roofline(
            facts,
            tuple(Share(rates_for(facts, part), n) for part, n in zip(parts, counts, strict=True)),
            cache,
        )

    def _rates_for(self, facts: ModelFacts, cache: Attention) -> Rates | None:
        """One probe is for all models, as what ran here is: so none of them alone is corrected."""
        rates = self.rates
        if not isinstance(rates, ProbedRates):
            return rates
        if not probe_needs([facts], [cache]).missing_from(rates.probe).is_empty:
            rates = PartlyProbedRates(rates.probe)
        return self.experience.corrected(facts, rates)


def _memory_of(device: Device) -> int:
    """Sizes of one name are told apart by --memory; without it the smallest is safe."""
    if not device.memory_bytes:
        raise UserError(f"how much memory goes with {device.name} is not known: give --memory")
    return min(device.memory_bytes)


def _room_of(memory_bytes: int, *, shared: bool) -> int:
    own = max(0, memory_bytes - OWN_MARGIN_BYTES)
    return int(SHARED_ROOM * memory_bytes) if shared else own


def _devices_here() -> list[LocalDevice]:
    """The GPUs that the engine would use, else the processor; libllama is loaded only for GPUs."""
    asks = may_have_graphics()
    reports = engine_reports() if asks else None
    devices: Sequence[LocalDevice] = local_devices(reports, None if asks else ())
    return [device for device in devices if device.backend != "cpu"] or [devices[-1]]


def _processor_rates() -> tuple[Rates, Experience]:
    n_threads = default_threads()
    setting = ProbeSetting(n_threads, PROCESSOR, repack=True)
    try:
        probe, experience = kept_probe(setting), experience_of(setting)
    except EngineError:
        probe, experience = None, Experience()
    if probe is not None and probe.weight_s:
        return ProbedRates(probe), experience
    read = memory_read_bytes_per_s(n_threads, QUICK_READ_BYTES)
    return RoughRates.of_read(read), experience
