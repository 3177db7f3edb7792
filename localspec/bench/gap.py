"""Where the time of a token goes: each part measured or computed on its own, and what is left.

    weights, K, V      bytes / bandwidth                                          computed
    arithmetic of both what their kernels take beyond that                        probed
    overhead           of a pass and its layers                                   probed
    sampling, Python   wall time outside the engine                               measured
    draft              drafting                                                   measured
    rejected work      T(1 + drafted) - T(1 + accepted)                           computed
    rest               what no part explains, with its sign

The first three are the roofline: a machine that lost nothing would take only them. "Probed" parts
come from small random models on the same engine; see `predict`.
"""

from dataclasses import dataclass
from typing import Literal

from localspec.bench.prediction import Prediction

Basis = Literal["computed", "probed", "measured", "left"]


@dataclass(frozen=True, slots=True)
class Part:
    """Seconds of one token of one user, and how they are known."""

    name: str
    seconds: float
    basis: Basis


@dataclass(frozen=True, slots=True)
class Passes:
    """What passes of the target did on average, for one token of one user.

    `per_token`: passes; `width`: tokens checked in a pass; `useful`: of them such that stood.
    """

    token_s: float
    per_token: float
    width: float
    useful: float
    outside_s: float
    draft_s: float


@dataclass(frozen=True, slots=True)
class Gap:
    """A token's time by parts; they sum to `token_s`."""

    token_s: float
    parts: tuple[Part, ...]

    @property
    def rest_s(self) -> float:
        return self.parts[-1].seconds

    @property
    def rest_share(self) -> float:
        return self.rest_s / self.token_s


def gap_of(passes: Passes, prediction: Prediction) -> Gap | None:
    """None where the bandwidth is not known."""
    bandwidth = prediction.bandwidth_bytes_per_s
    if bandwidth is None:
        return None
    useful, checked = prediction.pass_at(passes.useful), prediction.pass_at(passes.width)
    weights_s = prediction.weights_bytes / bandwidth
    k_s, v_s = prediction.k_bytes / bandwidth, prediction.v_bytes / bandwidth
    attention_s = useful.attention_s - k_s - v_s
    known = [
        Part("weights", passes.per_token * weights_s, "computed"),
        Part("K cache", passes.per_token * k_s, "computed"),
        Part("V cache", passes.per_token * v_s, "computed"),
        Part("weights: arithmetic", passes.per_token * (useful.weights_s - weights_s), "probed"),
        Part("attention: arithmetic", passes.per_token * attention_s, "probed"),
        Part("overhead", passes.per_token * useful.overhead_s, "probed"),
        Part("sampling, Python", passes.outside_s, "measured"),
        Part("draft", passes.draft_s, "measured"),
        Part("rejected work", passes.per_token * (checked.seconds - useful.seconds), "computed"),
    ]  # fmt: skip
    rest_s = passes.token_s - sum(part.seconds for part in known)
    return Gap(passes.token_s, (*known, Part("rest", rest_s, "left")))
