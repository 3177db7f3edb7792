"""Samples as they were measured, and the parts of a token's time.

Stored samples hold nothing derived. Each part of the time is measured or computed on its own:

    weights, K, V      bytes / bandwidth                                          computed
    arithmetic of both time of their kernels beyond that                          probed
    overhead           of a pass and its layers                                   probed
    sampling, Python   wall time outside the engine                               measured
    draft              drafting                                                   measured
    rejected work      T(1 + drafted) - T(1 + accepted)                           computed
    rest               time that no part explains, with its sign

The first three are the roofline: an ideal machine takes only them. "Probed" parts come from small
random models on the same engine; see `predict`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

from localspec.bench.prediction import Prediction

LOOPING = "looping"
"""The category of replies that loop: they flatter whatever drafts from the text."""
LOOP_LENGTH, LOOP_TIMES = 8, 3


def loops(tokens: Sequence[int]) -> bool:
    """Whether a reply says the same eight tokens in a row three times."""
    starts = range(len(tokens) - LOOP_LENGTH + 1)
    said = Counter(tuple(tokens[i : i + LOOP_LENGTH]) for i in starts)
    return any(n >= LOOP_TIMES for n in said.values())


@dataclass(frozen=True, slots=True)
class Sample:
    """One repetition. Seconds are wall time; None is not measured.

    `prefill_s`: reading all sequences' prompts. `first_s`: from the request to the first token.
    `decode_s`: from the first token to the last, for `n_tokens` (of all sequences) in `n_passes` of
    the target. `engine_s` of it passed inside the target's engine, `draft_s` in drafting, and it
    took `decode_j` joules. `by_position`: accepted and judged tokens by their place in a draft.
    """

    prefill_s: float | None = None
    first_s: float | None = None
    n_prompt: int = 0
    decode_s: float | None = None
    engine_s: float = 0.0
    draft_s: float = 0.0
    n_tokens: int = 0
    n_passes: int = 0
    drafted: int = 0
    accepted: int = 0
    category: str | None = None
    decode_j: float | None = None
    by_position: Sequence[Sequence[int]] = ()

    @property
    def decode_tps(self) -> float | None:
        """Decoded tokens a second, of all sequences."""
        return self.n_tokens / self.decode_s if self.decode_s and self.n_tokens else None

    @property
    def prefill_tps(self) -> float | None:
        return self.n_prompt / self.prefill_s if self.prefill_s else None

    @property
    def outside_s(self) -> float | None:
        """The part of `decode_s` in sampling, text and Python."""
        return None if self.decode_s is None else self.decode_s - self.engine_s - self.draft_s

    def to_json(self) -> dict[str, Any]:
        """Without what was not measured."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result of one visit. `curve`: seconds of single passes, by width in tokens.

    `peak_bytes`: most resident memory of the process. `speculation`: the mode that "auto" became.
    `notes`: the session's messages while it opened.
    """

    samples: tuple[Sample, ...]
    curve: Mapping[int, tuple[float, ...]] = field(default_factory=dict[int, tuple[float, ...]])
    load_s: float | None = None
    peak_bytes: int | None = None
    speculation: str = "none"
    notes: tuple[str, ...] = ()

    @property
    def plain_s(self) -> float | None:
        """Seconds in the engine of a pass of plain decoding; None where there was none."""
        passes = [s.engine_s / s.n_passes for s in self.samples if s.n_passes and not s.drafted]
        return median(passes) if passes else None


Basis = Literal["computed", "probed", "measured", "left"]


@dataclass(frozen=True, slots=True)
class GapPart:
    """Seconds of one token of one user; `basis` says how they are known."""

    name: str
    seconds: float
    basis: Basis


@dataclass(frozen=True, slots=True)
class Passes:
    """Averages of the target's passes, for one token of one user.

    `per_token`: passes; `width`: tokens verified in a pass; `useful`: accepted drafts plus one.
    """

    token_s: float
    per_token: float
    width: float
    useful: float
    outside_s: float
    draft_s: float


@dataclass(frozen=True, slots=True)
class Gap:
    """A token's time in parts, which sum to `token_s`."""

    token_s: float
    parts: tuple[GapPart, ...]

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
        GapPart("weights", passes.per_token * weights_s, "computed"),
        GapPart("K cache", passes.per_token * k_s, "computed"),
        GapPart("V cache", passes.per_token * v_s, "computed"),
        GapPart("weights: arithmetic", passes.per_token * (useful.weights_s - weights_s), "probed"),
        GapPart("attention: arithmetic", passes.per_token * attention_s, "probed"),
        GapPart("overhead", passes.per_token * useful.overhead_s, "probed"),
        GapPart("sampling, Python", passes.outside_s, "measured"),
        GapPart("draft", passes.draft_s, "measured"),
        GapPart("rejected work", passes.per_token * (checked.seconds - useful.seconds), "computed"),
    ]  # fmt: skip
    rest_s = passes.token_s - sum(part.seconds for part in known)
    return Gap(passes.token_s, (*known, GapPart("rest", rest_s, "left")))
