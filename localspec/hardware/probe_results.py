"""What a probe of this machine found, as plain values: seconds by kind of work and by batch width.

The probe itself drives the engine and lies above; predictions are made from these values and know
no engine. What a weight costs depends on its type, on the width of its matrix and on how much of
the model stays in the last cache from one pass to the next; what attention costs, on both types of
the cache and on the size of a head.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import log
from operator import itemgetter
from typing import Any, Self


class Curve(tuple[tuple[float, float], ...]):
    """Points (x, y) by ascending x, at least one where it is read, and straight lines between them:
    kernel switches make cliffs that no smooth curve would follow."""

    __slots__ = ()

    @classmethod
    def from_json(cls, document: Any) -> Self:
        """From pairs. TypeError or ValueError where there are none."""
        return cls((float(x), float(y)) for x, y in document)

    def least(self, other: "Curve") -> "Curve":
        """The lesser value at each point that both have."""
        known = dict(other)
        return Curve((x, min(y, known.get(x, y))) for x, y in self)

    def at(self, x: float) -> float:
        """The value at `x`: beyond the ends as steep as before them, and never negative."""
        if len(self) == 1:
            return self[0][1]
        right = min(max(1, bisect_left(self, x, key=itemgetter(0))), len(self) - 1)
        (x0, y0), (x1, y1) = self[right - 1], self[right]
        return max(0.0, y0 + (y1 - y0) * (x - x0) / (x1 - x0))

    def within(self, x: float) -> float:
        """The value at `x`: beyond the ends that of the nearest point."""
        return self.at(min(max(x, self[0][0]), self[-1][0]))

    def in_proportion(self, x: float) -> float:
        """The value at `x`: beyond the last point every unit of x adds what one did there."""
        last_x, last_y = self[-1]
        return self.at(x) if x <= last_x else last_y * x / last_x


WIDTHS = (512, 1024, 2048)
"""Of the matrices that are probed: narrow ones take longer an element."""
SIZES_BYTES = (48_000_000, 192_000_000)
"""Of all weights of a probed model: small enough for a large cache, and too large for most."""

END_WIDTHS = (1, 128)
"""Of a batch, in tokens: enough for decoding and for prompts, where no draft is verified."""


@dataclass(frozen=True, slots=True, order=True)
class WeightCase:
    """Matrices that are probed: their type, the length of a row, and their bytes in all."""

    type: str
    width: int
    size_bytes: int

    def __str__(self) -> str:
        return f"{self.type}@{self.width}/{self.size_bytes // 1_000_000}MB"

    @classmethod
    def parse(cls, text: str) -> Self:
        """ValueError where it is none."""
        kind, _, rest = text.partition("@")
        width, _, megabytes = rest.removesuffix("MB").partition("/")
        return cls(kind, int(width), int(megabytes) * 1_000_000)


@dataclass(frozen=True, slots=True, order=True)
class AttentionCase:
    """Attention that is probed: types of keys and values, with the fused kernel or without, and
    the numbers of one head: kernels can be fast for 128 of them and slow for 64."""

    type_k: str
    type_v: str
    flash: bool
    head_size: int

    def __str__(self) -> str:
        kernel = "flash" if self.flash else "plain"
        return f"{self.type_k}/{self.type_v}/{kernel}/{self.head_size}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """ValueError where it is none."""
        type_k, type_v, kernel, head_size = text.split("/")
        return cls(type_k, type_v, kernel == "flash", int(head_size))


@dataclass(frozen=True, slots=True)
class AttentionCost:
    """Attention at one width: points (cells in the cache, seconds a head and number of a head)."""

    width: int
    by_cells: Curve


@dataclass(frozen=True, slots=True)
class Link:
    """Between the processor and a device, or a worker: seconds of the shortest round trip, bytes a
    second, and what a pass takes longer where layers begin on the other side (`hop_s`)."""

    round_trip_s: float
    bytes_per_s: float
    hop_s: float

    def seconds(self, n_bytes: float) -> float:
        """Of a hop with that many bytes of hidden rows."""
        return self.hop_s + self.carry_s(n_bytes)

    def carry_s(self, n_bytes: float) -> float:
        return n_bytes / self.bytes_per_s


@dataclass(frozen=True, slots=True)
class Probe:
    """Measured costs of one machine, engine build and setting.

    `pass_s` and `layer_s`: overhead of a pass and of a layer. `weight_s`: seconds an element
    that is streamed and multiplied. `attention_s`: a head and number of a head, by layer.
    `read_bytes_per_s`: a plain read of memory by as many threads; None where that says nothing.
    `others_share`: what other programs took of the processors meanwhile, 0 to 1.
    """

    taken: str
    setting: str
    pass_s: Curve = field(default_factory=Curve)
    layer_s: Curve = field(default_factory=Curve)
    weight_s: Mapping[WeightCase, Curve] = field(default_factory=dict[WeightCase, Curve])
    attention_s: Mapping[AttentionCase, tuple[AttentionCost, ...]] = field(
        default_factory=dict[AttentionCase, tuple[AttentionCost, ...]]
    )
    read_bytes_per_s: float | None = None
    others_share: float = 0.0
    link: Link | None = None
    """To a device; None of the processor itself."""

    @property
    def flops_per_s(self) -> float | None:
        """The best that a wide batch reached with weights of any type."""
        ends = (curve[-1] for curve in self.weight_s.values() if curve and curve[-1][1])
        return max((2 * n_tokens / element_s for n_tokens, element_s in ends), default=None)

    def least(self, other: "Probe") -> "Probe":
        """Of two probes of the same cases, the lesser times: what disturbs only adds to them.

        Overheads and attention are differences of times, so the calmer probe's are kept whole.
        """
        calmer = min(self, other, key=lambda probe: probe.others_share)
        return replace(
            calmer,
            weight_s={
                case: curve.least(other.weight_s.get(case, curve))
                for case, curve in self.weight_s.items()
            },
            read_bytes_per_s=max(
                filter(None, (self.read_bytes_per_s, other.read_bytes_per_s)), default=None
            ),
            others_share=min(self.others_share, other.others_share),
        )


@dataclass(frozen=True, slots=True)
class ProbeNeeds:
    """What a prediction asks for: weights at all widths of a batch, or only for one token and for
    long prompts."""

    weights: tuple[WeightCase, ...]
    attention: tuple[AttentionCase, ...]
    weights_at_ends: tuple[WeightCase, ...] = ()

    def missing_from(self, probe: Probe) -> "ProbeNeeds":
        """What of this a probe has not measured."""
        known = probe.weight_s
        weights = tuple(c for c in self.weights if len(known.get(c, ())) <= len(END_WIDTHS))
        return ProbeNeeds(
            weights,
            tuple(case for case in self.attention if case not in probe.attention_s),
            tuple(c for c in self.weights_at_ends if c not in known and c not in weights),
        )

    @classmethod
    def of(cls, probe: Probe) -> Self:
        """All that a probe has measured."""
        ends = {case for case, curve in probe.weight_s.items() if len(curve) <= len(END_WIDTHS)}
        return cls(
            tuple(case for case in probe.weight_s if case not in ends),
            tuple(probe.attention_s),
            tuple(ends),
        )

    def with_more(self, more: "ProbeNeeds") -> "ProbeNeeds":
        """Both; what one asks for at all widths is not asked for at the ends."""
        weights = dict.fromkeys((*self.weights, *more.weights))
        ends = dict.fromkeys((*self.weights_at_ends, *more.weights_at_ends))
        attention = dict.fromkeys((*self.attention, *more.attention))
        return ProbeNeeds(
            tuple(weights), tuple(attention), tuple(case for case in ends if case not in weights)
        )

    @property
    def is_empty(self) -> bool:
        return not self.weights and not self.attention and not self.weights_at_ends


def width_class(n_embd: int) -> int:
    """The probed width that is nearest to a model's, by ratio."""
    return min(WIDTHS, key=lambda width: max(width / n_embd, n_embd / width))


def size_share(n_bytes: float) -> float:
    """Where a model's size lies between the probed ones, by ratio: 0 the small, 1 the large one."""
    small, large = SIZES_BYTES
    share = log(max(n_bytes, small) / small) / log(large / small)
    return min(1.0, share)


def sizes_around(n_bytes: float) -> tuple[int, ...]:
    """The probed sizes between which a model's lies; one where it is near that or beyond."""
    share = size_share(n_bytes)
    return SIZES_BYTES if 0.1 < share < 0.9 else (SIZES_BYTES[round(share)],)
