"""What measured runs say of others that share a machine, a model or a source with them.

    log(measured / predicted seconds) = source + device + model + device and model + noise

Each part is a normal variable around zero, whose spread is that of published runs
(`scripts/research/run fit-efficiency`). The expectation given what was measured is the correction:
few runs move a prediction a little, many move it as far as they agree, and the runs of another
device tell what a model takes beside its bytes (best linear unbiased prediction, Henderson 1975).
What stays unknown narrows the interval.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, sqrt

import numpy as np


@dataclass(frozen=True, slots=True)
class Spreads:
    """Standard deviations of the parts, in logarithms of seconds."""

    source: float
    device: float
    model: float
    pair: float
    noise: float


PROBED = Spreads(source=0.0, device=0.1, model=0.05, pair=0.1, noise=0.1)
"""Of a machine that was probed: one model moves others a third of the way, itself two thirds."""
UNKNOWN_DEVICE = 1.5
"""Of a device whose figures nobody published: its runs alone say how fast it is."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One run beside its prediction. `is_rough`: the device's figures are not known."""

    source: str
    device: str
    model: str
    log_ratio: float = 0.0
    is_rough: bool = False


@dataclass(frozen=True, slots=True)
class Correction:
    """`factor` on predicted seconds; `unknown`, the share of the interval's width that is left."""

    factor: float = 1.0
    unknown: float = 1.0


NONE = Correction()


def correction(known: Sequence[Evidence], wanted: Evidence, spreads: Spreads) -> Correction:
    """What runs say of another one."""
    if not known:
        return NONE
    shared = np.array([[_shared(a, b, spreads) for b in known] for a in known])
    beside = np.array([_shared(wanted, each, spreads) for each in known])
    noise = spreads.noise**2
    weights = np.linalg.solve(shared + noise * np.eye(len(known)), beside)
    before = _shared(wanted, wanted, spreads) + noise
    # Published intervals are those of published devices.
    usual = before if not wanted.is_rough else sum(x**2 for x in _parts(spreads)) + noise
    left = max(noise, before - float(weights @ beside))
    expected = float(weights @ np.array([each.log_ratio for each in known]))
    return Correction(exp(expected), sqrt(left / usual))


def _parts(spreads: Spreads) -> Iterator[float]:
    yield from (spreads.source, spreads.device, spreads.model, spreads.pair)


def _shared(one: Evidence, other: Evidence, spreads: Spreads) -> float:
    """The covariance of two runs."""
    source, device, model, pair = _parts(spreads)
    device = UNKNOWN_DEVICE if one.is_rough else device
    is_model, is_device = one.model == other.model, one.device == other.device
    return (
        source**2 * (one.source == other.source)
        + device**2 * is_device
        + model**2 * is_model
        + pair**2 * (is_model and is_device)
    )
