"""All visits to one case as one row, which derives every figure that reports show."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import median
from typing import Any, Literal

from localspec.bench.case import Case
from localspec.bench.prediction import Prediction
from localspec.bench.sample import Gap, Passes, Sample, gap_of
from localspec.bench.statistics import Estimate, estimate, more_visits
from localspec.bench.store import Visited
from localspec.prediction.rates import Speed


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """One category of real questions."""

    name: str
    decode_tps: float | None
    acceptance: float | None
    tokens_per_pass: float | None
    n_questions: int


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One case. Speeds count all sequences together; None is unknown or not measured.

    `decode_visits` and `prefill_visits`: tokens per second by visit, for comparisons.
    """

    case: Case
    model: Mapping[str, Any]
    environment: Mapping[str, Any]
    visits: tuple[Visited, ...]
    samples: tuple[Sample, ...]
    decode_visits: tuple[tuple[float, ...], ...]
    prefill_visits: tuple[tuple[float, ...], ...]
    decode_tps: Estimate | None
    prefill_tps: Estimate | None
    first_s: Estimate | None
    prediction: Prediction | None
    predicted_tps: Speed | None
    gap: Gap | None
    curve: Mapping[int, float]
    peak_bytes: int | None
    reason: str | None

    @property
    def machine(self) -> str:
        return self.environment["machine"]["name"]

    @property
    def model_name(self) -> str:
        """The file's name, which tells quantizations apart."""
        return str(self.model["file"]).removesuffix(".gguf")

    @property
    def is_of_llama_bench(self) -> bool:
        """Whether llama-bench measured it, which times the engine alone."""
        return self.environment["localspec"] is None

    def visits_by(self, cost: Literal["engine_s", "decode_j"]) -> tuple[tuple[float, ...], ...]:
        """Decoded tokens a second inside the engine, or a joule, by visit."""
        measured = [v.measurement.samples for v in self.visits if v.measurement]
        known = ([(s.n_tokens, getattr(s, cost)) for s in samples] for samples in measured)
        return _kept(tuple(n / spent for n, spent in part if spent) for part in known)

    @property
    def is_curve(self) -> bool:
        """Whether the case only times wider passes."""
        return bool(self.case.work.widths)

    @property
    def tpot_ms(self) -> float | None:
        """Milliseconds a token, for one user."""
        return 1e3 / self.decode_each_tps if self.decode_each_tps else None

    @property
    def decode_each_tps(self) -> float | None:
        """Tokens a second of one user."""
        return self.decode_tps.mid / self.case.work.batch if self.decode_tps else None

    @property
    def engine_tps(self) -> float | None:
        """Speed of all sequences by the time inside the engine, as llama-bench measures it."""
        rates = [s.n_tokens / s.engine_s for s in self.samples if s.engine_s and s.n_tokens]
        return median(rates) if rates else None

    @property
    def joules_per_token(self) -> float | None:
        """Of all sequences; None where the machine does not tell."""
        told = [s for s in self.samples if s.decode_j]
        return _share(sum(s.decode_j or 0.0 for s in told), sum(s.n_tokens for s in told))

    @property
    def acceptance(self) -> float | None:
        return _share(sum(s.accepted for s in self.samples), sum(s.drafted for s in self.samples))

    @property
    def acceptance_by_position(self) -> list[float] | None:
        """Of the tokens at each place of a draft, of those before which nothing was rejected."""
        places = zip_longest(*(s.by_position for s in self.samples), fillvalue=(0, 0))
        shares = [_share(*map(sum, zip(*place, strict=True))) for place in places]
        return [round(share or 0.0, 4) for share in shares] or None

    @property
    def tokens_per_pass(self) -> float | None:
        """Tokens a pass of one user."""
        n_passes = self.case.work.batch * sum(s.n_passes for s in self.samples)
        return _share(sum(s.n_tokens for s in self.samples), n_passes)

    @property
    def passes_per_s(self) -> float | None:
        per_pass = self.tokens_per_pass
        return self.decode_each_tps / per_pass if self.decode_each_tps and per_pass else None

    @property
    def bytes_per_s(self) -> float | None:
        """Weights and cache that passes stream, a second."""
        if self.prediction is None or self.passes_per_s is None:
            return None
        return self.prediction.pass_bytes * self.passes_per_s

    @property
    def roofline_share(self) -> float | None:
        """Streamed bytes over the memory's bandwidth."""
        bandwidth = self.prediction and self.prediction.bandwidth_bytes_per_s
        return self.bytes_per_s / bandwidth if self.bytes_per_s is not None and bandwidth else None

    @property
    def more_visits(self) -> int | None:
        """More visits that a precision of 2 % needs."""
        return more_visits(self.decode_visits) if self.decode_visits else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of any visit, each once."""
        return tuple(dict.fromkeys(w for v in self.visits for w in v.circumstances.warnings))

    @property
    def categories(self) -> tuple[CategoryRow, ...]:
        names = dict.fromkeys(s.category for s in self.samples if s.category is not None)
        return tuple(_category(name, self.samples) for name in names)


def rows_of(visits: Sequence[Visited]) -> list[ResultRow]:
    """One row for each case, machine, engine build and model file, in order of appearance."""
    groups: dict[tuple[Any, ...], list[Visited]] = {}
    for visited in visits:
        machine, engine = visited.environment["machine"], visited.environment["engine"]
        key = machine["key"], engine["fingerprint"], visited.model["digest"], visited.case
        groups.setdefault(key, []).append(visited)
    return [_row(group) for group in groups.values()]


def _row(visits: list[Visited]) -> ResultRow:
    measured = [v.measurement for v in _calm(visits) if v.measurement]
    case, prediction = visits[0].case, next((v.prediction for v in visits if v.prediction), None)
    samples = tuple(sample for m in measured for sample in m.samples)
    by_visit = [m.samples for m in measured]
    decode = _kept(_decode_of(part, real=case.work.prompts is not None) for part in by_visit)
    prefill = _kept(tuple(s.prefill_tps for s in part if s.prefill_tps) for part in by_visit)
    first = _kept(tuple(s.first_s for s in part if s.first_s) for part in by_visit)
    passes = _passes(case, samples, decode)
    return ResultRow(
        case=case,
        model=visits[0].model,
        environment=visits[0].environment,
        visits=tuple(visits),
        samples=samples,
        decode_visits=decode,
        prefill_visits=prefill,
        decode_tps=estimate(decode) if decode else None,
        prefill_tps=estimate(prefill) if prefill else None,
        first_s=estimate(first) if first else None,
        prediction=prediction,
        predicted_tps=_predicted(case, samples, passes, prediction),
        gap=gap_of(passes, prediction) if passes and prediction else None,
        curve=_curve([m.curve for m in measured]),
        peak_bytes=max((m.peak_bytes for m in measured if m.peak_bytes), default=None),
        reason=next((v.reason for v in visits if v.reason), None),
    )


def _calm(visits: list[Visited]) -> list[Visited]:
    """Undisturbed visits, or all where every one was disturbed."""
    done = [v for v in visits if v.measurement]
    return [v for v in done if not v.circumstances.disturbances] or done


def _decode_of(samples: Sequence[Sample], *, real: bool) -> tuple[float, ...]:
    """Each sample's speed; real questions differ by nature and give one speed together."""
    timed = [s for s in samples if s.decode_s and s.n_tokens]
    if not real:
        return tuple(s.decode_tps for s in timed if s.decode_tps)
    seconds = sum(s.decode_s or 0.0 for s in timed)
    return (sum(s.n_tokens for s in timed) / seconds,) if seconds else ()


def _kept(parts: Iterable[tuple[float, ...]]) -> tuple[tuple[float, ...], ...]:
    return tuple(part for part in parts if part)


def _passes(
    case: Case, samples: Sequence[Sample], decode: tuple[tuple[float, ...], ...]
) -> Passes | None:
    timed = [s for s in samples if s.decode_s and s.n_tokens]
    if not timed or not decode:
        return None
    batch, n_passes = case.work.batch, sum(s.n_passes for s in timed)
    n_tokens = sum(s.n_tokens for s in timed)
    return Passes(
        token_s=batch / median(x for visit in decode for x in visit),
        per_token=batch * n_passes / n_tokens,
        width=1 + sum(s.drafted for s in timed) / n_passes,
        useful=1 + sum(s.accepted for s in timed) / n_passes,
        outside_s=median(batch * (s.outside_s or 0.0) / s.n_tokens for s in timed),
        draft_s=batch * sum(s.draft_s for s in timed) / n_tokens,
    )


def _predicted(
    case: Case, samples: Sequence[Sample], passes: Passes | None, prediction: Prediction | None
) -> Speed | None:
    """The prediction for plain decoding; for drafts, corrected by the measured acceptance."""
    if prediction is None or not case.work.n_gen:
        return None
    plain = prediction.decode_tps
    if passes is None or passes.width == 1:
        return plain
    drafted = sum(s.drafted for s in samples) / max(1, sum(s.n_tokens for s in samples))
    token_s = passes.per_token * prediction.pass_at(passes.width).seconds
    mid = 1 / (token_s + drafted * prediction.draft_s)
    return Speed(mid * plain.low / plain.mid, mid, mid * plain.high / plain.mid)


def _curve(curves: Sequence[Mapping[int, tuple[float, ...]]]) -> dict[int, float]:
    widths = dict.fromkeys(width for curve in curves for width in curve)
    return {n: median(t for curve in curves for t in curve.get(n, ())) for n in sorted(widths)}


def _category(name: str, samples: Sequence[Sample]) -> CategoryRow:
    own = [s for s in samples if s.category == name]
    n_tokens = sum(s.n_tokens for s in own)
    return CategoryRow(
        name,
        _share(n_tokens, sum(s.decode_s or 0.0 for s in own)),
        _share(sum(s.accepted for s in own), sum(s.drafted for s in own)),
        _share(n_tokens, sum(s.n_passes for s in own)),
        len(own),
    )


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
