"""Rates of a device from its published figures and the share of them that its kind reaches."""

from dataclasses import dataclass
from typing import Self

from localspec.hardware.devices import Device, Match
from localspec.hardware.probe_results import Curve
from localspec.prediction.efficiency import (
    HALF,
    Efficiency,
    RunConditions,
    family_of,
    load,
    type_class,
)
from localspec.prediction.rates import AttentionWork, Spread, Term, WeightWork

CACHE_STREAM = {True: 1.5, False: 3.5}
"""How much longer keys and values take than weights of as many bytes, with flash attention and
without; long generations among the published runs agree best with these."""

TYPICAL_FLOPS = 1e13
"""For the few devices of which no source gives a rate."""

SMALL_BATCH = 16
"""The widest pass with kernels of its own; wider ones compute like prefill."""


@dataclass(frozen=True, slots=True)
class PublishedRates:
    """What a kind of device was measured to reach by others."""

    run: RunConditions
    known: Efficiency
    source: str
    decode_spread: Spread
    prefill_spread: Spread

    @classmethod
    def of(cls, match: Match, backend: str | None = None) -> Self:
        """For a device of the table. An ambiguous one gets the interval of all that it can be."""
        device, known = match.candidates[0], load()
        run = circumstances(device, backend or device.kind)
        group, decode = known.support_of("decode", run.backend)
        _, prefill = known.support_of("prefill", run.backend)
        return cls(
            run,
            known,
            f"{decode.n_runs} published runs of {decode.n_devices} devices ({group})",
            _widened(decode.spread, match, device),
            _widened(prefill.spread, match, device),
        )

    def for_model(self, n_embd: int, streamed_bytes: float) -> Self:
        """The same: published runs say nothing of it."""
        return self

    def weights(self, work: WeightWork, n_tokens: int) -> Term:
        memory_s = self._stream_s(work.n_bytes, type_class(work.type.name))
        compute_s = self._compute_s(2 * n_tokens * work.n_elements, type_class(work.type.name))
        if n_tokens <= SMALL_BATCH:
            curve = self.known.verify_curve(self.run.backend, type_class(work.type.name))
            seconds = memory_s * max(1.0, Curve(((1.0, 1.0), *curve)).at(n_tokens))
            return Term(seconds, "compute" if seconds >= 2 * memory_s else "memory")
        widest = self.weights(work, SMALL_BATCH)
        return Term(compute_s, "compute") if compute_s > widest.seconds else widest

    def attention(self, work: AttentionWork, n_tokens: int) -> Term:
        memory_s = CACHE_STREAM[work.flash] * self._stream_s(work.n_bytes, HALF)
        compute_s = self._compute_s(n_tokens * work.flops_per_token, HALF)
        return Term(compute_s, "compute") if compute_s > memory_s else Term(memory_s, "memory")

    def overhead_s(self, n_layers: int, n_tokens: int) -> float:
        return n_layers * self.known.decode.layer_s[self.run.backend]

    def _stream_s(self, n_bytes: float, kind: str) -> float:
        factor = max(1.0, self.known.decode.factor(self.run.with_type(kind)))
        return n_bytes / self.run.bandwidth_bytes_per_s * factor

    def _compute_s(self, n_flops: float, kind: str) -> float:
        factor = self.known.prefill.factor(self.run.with_type(kind))
        return n_flops / self.run.fp32_flops_per_s * factor


def circumstances(device: Device, backend: str) -> RunConditions:
    """Of today's engine on a device."""
    fp16, fp32 = device.fp16_flops_per_s, device.fp32_flops_per_s
    return RunConditions(
        backend=backend,
        family=family_of(device.name, backend),
        type_class=HALF,
        bandwidth_bytes_per_s=device.bandwidth_bytes_per_s,
        fp32_flops_per_s=fp32 or (fp16 / 2 if fp16 else TYPICAL_FLOPS),
        fp16_flops_per_s=fp16,
        is_laptop=any(word in device.name.lower() for word in ("laptop", "mobile", "max-q")),
    )


def _widened(spread: Spread, match: Match, device: Device) -> Spread:
    low, high = match.bandwidth_range or (device.bandwidth_bytes_per_s,) * 2
    own = device.bandwidth_bytes_per_s
    return Spread(spread.low * low / own, spread.high * high / own)
