"""A machine that was named, from published figures: one device, several, or one and its processor.

    "RTX 4090"   "2x RTX 3090"   "RTX 3090 + RTX 3060 12GB"   "RTX 4090 + EPYC 7763"

Several devices compute their layers one after the other, each as fast as published runs of one say.
A processor that is named with them has the layers or the experts that they do not hold.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from localspec.engine.probe import PROCESSOR
from localspec.errors import UserError
from localspec.forecast.machine import MachineChoice, Offload, Peer, Peers, PredictedMachine
from localspec.forecast.probing import probed_rates
from localspec.hardware.asked_machine import devices_meant
from localspec.hardware.devices import Match
from localspec.hardware.probe_results import Link, ProbeNeeds
from localspec.model.facts import ModelFacts
from localspec.notify import Notify
from localspec.prediction.experts import COPY_BYTES_PER_S, HOP_S
from localspec.prediction.published import PublishedRates
from localspec.prediction.rates import Rates
from localspec.settings import Split

MOST_NAMES = 3
"""Of devices that a name can mean, in a title."""
SLOT = Link(2 * HOP_S, COPY_BYTES_PER_S, HOP_S)
"""Between cards of one machine, about: with the launches that a device has beside its layers, four
RTX 4090 are predicted 7 % slower than one, and were 5 % slower (data/measured.csv)."""
OVERLAPPING = "cuda"
"""Backend whose devices compute parts of a prompt at once; R9700 with ROCm or Vulkan did not."""
SHARED_PROMPTS = 0.3
"""A logarithm that sharing adds to what prompts may be off by: it was tried on 65 prompts that two
R9700, MI50 or RX 7900 XTX read."""


@dataclass(frozen=True, slots=True)
class NamedMachine:
    """`devices` share the layers in this order; `processor` None: none was named beside them."""

    devices: tuple[Match, ...]
    processor: Match | None = None

    @classmethod
    def of(cls, name: str) -> Self:
        """Raises UserError for an unknown or ambiguous name, and for several processors."""
        found = devices_meant(name)
        if len(found) == 1:
            return cls(found)
        cards = tuple(match for match in found if not _is_processor(match))
        processors = [match for match in found if _is_processor(match)]
        if len(processors) > 1 or not cards:
            raise UserError(f"{name!r} names several processors: a model lies with one of them")
        return cls(cards, processors[0] if processors else None)

    @property
    def title(self) -> str:
        counts = Counter(_title(match) for match in self.devices)
        names = [f"{n} x {name}" if n > 1 else name for name, n in counts.items()]
        return " + ".join([*names, *([_title(self.processor)] if self.processor else [])])

    @property
    def memory_bytes(self) -> int | None:
        """Of all devices; None where one is not known."""
        sizes = [memory_of(match) for match in self.devices]
        return None if None in sizes else sum(size for size in sizes if size)

    def predicted(
        self,
        choice: MachineChoice,
        facts: ModelFacts,
        needed_bytes: int,
        n_ctx: int,
        own_processor: Callable[[], Rates],
    ) -> PredictedMachine:
        """`own_processor`: of this machine, for layers that no named one is there for."""
        if len(self.devices) > 1 and choice.n_cpu_moe:
            raise UserError("--cpu-moe is predicted beside one GPU: name one, or leave it out")
        offload, host = Offload(choice.n_gpu_layers, choice.n_cpu_moe), None
        if self.processor:
            free = [memory_of(match) for match in self.devices]
            offload = Offload.fitting(choice, facts, needed_bytes, free)
            host = PublishedRates.of(self.processor)
        elif offload.n_layers >= 0 or offload.n_cpu_moe:
            host = own_processor()
        machine = self._alone(offload, host)
        if len(self.devices) > 1:
            machine = self._shared(machine, choice.split, n_ctx)
        held_bytes = 0 if self.processor else needed_bytes
        if 0 <= offload.n_layers < facts.n_layers:
            held_bytes = held_bytes * offload.n_layers // facts.n_layers
        notes = [*self._notes(held_bytes), *self._beside(offload)]
        return replace(machine, notes=tuple(dict.fromkeys(notes)))

    def _alone(self, offload: Offload, host: Rates | None) -> PredictedMachine:
        """On the first device, with what it has."""
        return replace(
            published_machine(self.devices[0]),
            name=self.title,
            memory_bytes=self.memory_bytes,
            host_rates=host,
            n_offloaded=offload.n_layers,
            n_cpu_moe=offload.n_cpu_moe,
        )

    def _shared(self, one: PredictedMachine, split: Split, n_ctx: int) -> PredictedMachine:
        """On all devices; no one bandwidth is theirs."""
        peers = tuple(map(_peer, self.devices))
        return replace(
            one,
            bandwidth_bytes_per_s=None,
            flops_per_s=None,
            peers=Peers(peers, one.host_rates, one.n_offloaded, split, n_ctx),
        )

    def _notes(self, needed_bytes: int) -> Iterator[str]:
        """Of every device, and whether they hold the model."""
        for match in (*self.devices, *filter(None, [self.processor])):
            yield from machine_notes(match)
        yield from room_notes(needed_bytes, self.memory_bytes)

    def _beside(self, offload: Offload) -> Iterator[str]:
        """What the processor computes."""
        where = _title(self.processor) if self.processor else "the processor of this machine"
        if offload.note:
            yield offload.note
        elif offload.n_layers >= 0:
            yield f"{offload.n_layers} layers there, the others on {where}"
        if offload.n_cpu_moe and not offload.note:
            yield f"experts of {offload.n_cpu_moe} layers on {where}"


def published_machine(match: Match, backend: str | None = None) -> PredictedMachine:
    """One device by its published figures; what memory it has is left to whoever knows."""
    device = match.candidates[0]
    return PredictedMachine(
        name=device.name,
        bandwidth_bytes_per_s=device.bandwidth_bytes_per_s,
        flops_per_s=device.fp16_flops_per_s,
        source=f"published: {device.source}",
        rates=PublishedRates.of(match, backend),
    )


def _peer(match: Match) -> Peer:
    device, rates = match.candidates[0], PublishedRates.of(match)
    shared = replace(rates, prompts_off_by=SHARED_PROMPTS)
    return Peer(device.name, shared, memory_of(match), SLOT, device.kind == OVERLAPPING)


def own_processor(choice: MachineChoice, needs: ProbeNeeds, notify: Notify) -> Rates:
    """Of this machine, beside a device that is put into it."""
    if choice.probe == "off":
        raise UserError(
            "--gpu-layers and --cpu-moe beside --device need a probe of this processor, or the"
            ' name of another, as in "RTX 4090 + EPYC 7763": drop --probe off'
        )
    again = choice.probe == "again"
    return probed_rates(needs, PROCESSOR, choice.n_threads, notify, again=again)


def memory_of(match: Match) -> int | None:
    """The largest that a device of the name is sold with."""
    return max((size for each in match.candidates for size in each.memory_bytes), default=None)


def machine_notes(match: Match) -> Iterator[str]:
    """What is to know of a device beside its figures."""
    if match.device is None:
        return
    if match.device.note:
        yield match.device.note
    if match.device.kind == "cpu":
        yield (
            "processors differ by threads, builds and channels that are empty: measuring with"
            " `localspec predict` there says more"
        )
    if match.is_ambiguous:
        yield f"the name can mean several devices{_range(match)}; the interval covers them"


def room_notes(needed_bytes: int, memory_bytes: int | None) -> Iterator[str]:
    """Where a model does not fit."""
    if memory_bytes is not None and needed_bytes > memory_bytes:
        yield (
            f"does not fit: {needed_bytes / 1e9:.1f} GB are needed and {memory_bytes / 1e9:.1f} GB"
            " are there; the speeds are those of a device with more memory (--gpu-layers N leaves"
            " layers to the processor)"
        )


def _title(match: Match) -> str:
    """The devices that one name can mean."""
    first, *others = match.candidates
    names = " or ".join([first.name, *(each.name for each in others)])
    if len(others) >= MOST_NAMES:
        names = f"{first.name} or {len(others)} others"
    return names


def _range(match: Match) -> str:
    """From the slowest to the fastest memory, where they differ."""
    rates = sorted(device.bandwidth_bytes_per_s / 1e9 for device in match.candidates)
    return "" if rates[0] == rates[-1] else f" ({rates[0]:,.0f} to {rates[-1]:,.0f} GB/s)"


def _is_processor(match: Match) -> bool:
    return match.candidates[0].kind == "cpu"
