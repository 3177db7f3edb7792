"""What a probe of this machine found, as plain values: seconds by kind of work and by batch width.

The probe itself drives the engine and lies above; predictions are made from these values and know
no engine. Every curve is a list of points (width in tokens, seconds), straight between them: kernel
switches make cliffs that no smooth curve would follow.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Self

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class AttentionCost:
    """Attention at one width: points (cells in the cache, seconds a head and number of a head)."""

    width: int
    by_cells: Points


@dataclass(frozen=True, slots=True)
class Probe:
    """Measured costs of one machine, engine build and setting.

    `pass_s` and `layer_s`: overhead of a pass and of a layer. `weight_s`: seconds an element
    that is streamed and multiplied, by `weight_key`. `attention_s`: by "K/V/flash" or "K/V/plain".
    `read_bytes_per_s`: a plain read of memory by as many threads; None where that says nothing.
    """

    taken: str
    setting: str
    pass_s: Points = ()
    layer_s: Points = ()
    weight_s: Mapping[str, Points] = field(default_factory=dict[str, Points])
    attention_s: Mapping[str, tuple[AttentionCost, ...]] = field(
        default_factory=dict[str, tuple[AttentionCost, ...]]
    )
    read_bytes_per_s: float | None = None

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Raises KeyError, TypeError or ValueError where it is no probe."""
        return cls(
            taken=str(document["taken"]),
            setting=str(document["setting"]),
            pass_s=_points(document["pass_s"]),
            layer_s=_points(document["layer_s"]),
            weight_s={name: _points(points) for name, points in document["weight_s"].items()},
            attention_s={
                name: tuple(
                    AttentionCost(int(cost["width"]), _points(cost["by_cells"])) for cost in costs
                )
                for name, costs in document["attention_s"].items()
            },
            read_bytes_per_s=document["read_bytes_per_s"],
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


WIDTHS = (512, 1024, 2048)
"""Of the matrices that are probed: narrow ones take longer an element."""


def width_class(n_embd: int) -> int:
    """The probed width that is nearest to a model's, by ratio."""
    return min(WIDTHS, key=lambda width: max(width / n_embd, n_embd / width))


def weight_key(weight_type: str, width: int) -> str:
    """The key of `Probe.weight_s`."""
    return f"{weight_type}@{width}"


def type_of(key: str) -> str:
    """The weight type in a `weight_key`."""
    return key.partition("@")[0]


def attention_key(kv_k: str, kv_v: str, *, flash: bool) -> str:
    """The key of `Probe.attention_s` for cache types as the command line names them."""
    return f"{kv_k}/{kv_v}/{'flash' if flash else 'plain'}".lower()


def value_at(points: Points, x: float) -> float:
    """The value of a curve at `x`: straight between its points, beyond them the last goes on.

    Never negative; a curve of one point is flat.
    """
    if len(points) == 1:
        return points[0][1]
    pairs = list(pairwise(points))
    (x0, y0), (x1, y1) = next((pair for pair in pairs if x <= pair[1][0]), pairs[-1])
    return max(0.0, y0 + (y1 - y0) * (x - x0) / (x1 - x0))


def _points(pairs: Any) -> Points:
    return tuple((float(x), float(y)) for x, y in pairs)
