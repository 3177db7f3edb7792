"""Published runs, a row of CSV each, as what was run, where and how fast.

Columns: source, device, backend, model, params_b, file_size_gib, quant, test, tokens_per_s, notes.
`read_runs` sorts rows into runs that can be predicted and others, by reason: several devices,
models or devices that are not known, models that do not fit, runs on a GPU that took over twice as
long as the same run by the same source. A file without a size has that of its weights and
quantization.
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from pathlib import Path
from typing import Any, Self

from research.efficiency.notes import Notes, number
from research.efficiency.places import Place, class_of, place_of
from research.efficiency.shapes import MTP_SHARE, Shape, is_exact, shape_of

from localspec.prediction.conditions import BESIDE_LAYERS, LAUNCH_S, Part, RunConditions

GIB = 2**30
BACKENDS = (
    "cuda", "metal", "vulkan", "rocm", "cpu", "sycl", "opencl", "hexagon", "musa", "cann",
)  # fmt: skip
UNSAID = ("llamacpp", "unspecified", "unknown", "other", "gpu")
DECODE = re.compile(
    r"(?:(?:tg|server_gen) ?(?P<n>[1-9]\d*)?|decode|eval_rate|avgtps|localscore_gen)"
)
PREFILL = re.compile(r"(?:pp ?(?P<n>[1-9]\d*)|prefill|localscore_prompt)")
DEPTH = re.compile(r" ?@ ?d(\d+)$")
# A mean over LocalScore's nine mixes of prompt and answer lengths.
LOCALSCORE_PROMPT, LOCALSCORE_DEPTH = 900, 1500
USUAL_LENGTH, MICRO_BATCH = 256, 512
CONTRADICTED = 2.0
"""How much faster a source's own run is where a slower one was disturbed."""
# Bits of a weight on average over a file, by the start of a quantization's name.
_BITS: tuple[tuple[str, float], ...] = (
    (r"(B?F|FP)16", 16.0), (r"F(P)?32", 32.0), (r"Q8_K", 9.5), (r"Q8", 8.5), (r"Q6_K_", 7.2),
    (r"Q6", 6.6), (r"Q5_K_XL", 5.9), (r"Q5_K_S", 5.55), (r"Q5", 5.7), (r"Q4_K_XL", 4.95),
    (r"Q4_K_S|IQ4_NL|Q4_0", 4.65), (r"Q4_1", 5.1), (r"Q4", 4.9), (r"IQ4_XS", 4.35),
    (r"(MX|NV)FP4", 4.6), (r"Q3_K_L", 4.3), (r"Q3_K_(M|XL)", 3.95), (r"Q3_K", 3.55),
    (r"IQ3_(M|S)", 3.6), (r"I?Q3", 3.3), (r"IQ2_XX", 2.3), (r"IQ2", 2.7), (r"Q2_K", 3.1),
    (r"P?Q2_0", 2.13), (r"[PT]*Q1|IQ1", 1.4),
)  # fmt: skip
USUAL_BITS = 4.9
SPARE_BITS = {"Q8_0": 8.5}
BETTER_BITS = 6.5
"""Of weights beside the experts, in files whose experts have fewer: makers keep them better."""
CACHE_BITS = {"f32": 32.0, "f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q5_1": 6.0, "q5_0": 5.5,
              "q4_1": 5.0, "q4_0": 4.5, "iq4_nl": 4.5}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement. `depth`: cached tokens on average, `n_tokens` of the prompt or answer."""

    place: Place
    test: str
    shape: Shape
    file_bytes: float
    depth: float
    n_tokens: int
    tokens_per_s: float
    source: str
    month: str | None
    row: int
    micro_batch: int = MICRO_BATCH
    cache_bits: float = 16.0
    """Of a number in the cache, on average over keys and values."""

    @property
    def chip(self) -> str:
        return self.place.chip

    @property
    def conditions(self) -> RunConditions:
        return self.place.circumstances

    @property
    def setting(self) -> tuple[Any, ...]:
        """What runs have in common that differ in nothing that is known of them."""
        size = round(self.file_bytes / 1e7)
        return (
            self.conditions, self.source, self.test, self.shape, size, self.depth, self.n_tokens,
            self.micro_batch,
        )  # fmt: skip

    def later(self) -> Self:
        """As one of an engine that is younger than all runs of known months."""
        known = replace(self.conditions, is_later=True)
        return replace(self, place=replace(self.place, circumstances=known))

    @property
    def bases(self) -> dict[Part, float]:
        """Seconds of the parts of a pass, or of a prompt, by the device's figures alone."""
        return self._decode() if self.test == "decode" else self._prefill()

    @property
    def seconds(self) -> float:
        """Measured, of one pass or of the prompt."""
        return (1.0 if self.test == "decode" else self.n_tokens) / self.tokens_per_s

    def tokens_per(self, seconds: float) -> float:
        """Speed, of a pass or a prompt that takes so long."""
        return (1.0 if self.test == "decode" else self.n_tokens) / seconds

    @property
    def full_bandwidth_tps(self) -> float:
        """Tokens a second if nothing but the memory's bandwidth took time; of prompts no limit."""
        if self.test != "decode":
            return inf
        return 1 / sum(base for part, base in self.bases.items() if part != "launches")

    @property
    def streamed_bytes(self) -> float:
        """Of weights, by each decoded token."""
        return self._dense_bytes + self._expert_bytes * self.shape.used_share

    @property
    def _expert_bytes(self) -> float:
        """Of all experts. The weights beside them are no smaller."""
        shape = self.shape
        if not shape.is_mixture:
            return 0.0
        mean = 8 * self.file_bytes / shape.n_params
        beside = shape.n_params - shape.expert_params
        bits = min(mean * 1.5, max(mean, BETTER_BITS)) if mean < 8 else mean
        return max(0.5 * self.file_bytes, self.file_bytes - beside * bits / 8)

    @property
    def _dense_bytes(self) -> float:
        shape = self.shape
        rest = shape.n_params - shape.expert_params
        return (self.file_bytes - self._expert_bytes) * shape.dense_params / rest

    def _decode(self) -> dict[Part, float]:
        known, shape = self.conditions, self.shape
        cache = shape.cached_bytes(self.depth) * self.cache_bits / 16
        return {
            "launches": LAUNCH_S["decode"] * (shape.n_layers + BESIDE_LAYERS),
            "weights": (self._dense_bytes + 2 * shape.state_bytes) / known.bandwidth_bytes_per_s,
            "experts": self._expert_bytes * shape.used_share / known.bandwidth_bytes_per_s,
            "attention": cache / known.bandwidth_bytes_per_s,
        }

    def _prefill(self) -> dict[Part, float]:
        known, shape, n = self.conditions, self.shape, self.n_tokens
        n_passes = ceil(n / self.micro_batch)
        touched = self._expert_bytes * shape.touched_share(n / n_passes)
        pairs = n * (n + 2 * self.depth) / 2
        scores = 4 * pairs * shape.attending_layers * shape.query_width
        return {
            "launches": LAUNCH_S["prefill"] * (shape.n_layers + BESIDE_LAYERS) * n_passes,
            "weights": 2 * n * shape.multiplied_params / known.fp32_flops_per_s,
            "experts": 2 * n * shape.expert_params * shape.used_share / known.fp32_flops_per_s,
            "attention": scores / known.fp32_flops_per_s,
            "streaming": n_passes * (self._dense_bytes + touched) / known.bandwidth_bytes_per_s,
        }


def read_runs(path: Path, min_gib: float = 0.0) -> tuple[list[Run], Counter[str]]:
    """The runs that can be predicted, and how many rows cannot, by reason."""
    runs: list[Run] = []
    skipped = Counter[str]()
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        for i, row in enumerate(csv.DictReader(file)):
            run = _run({key: (row.get(key) or "").strip() for key in row if key}, min_gib, i)
            if isinstance(run, Run):
                runs.append(run)
            else:
                skipped[run] += 1
    kept = _undisturbed(runs)
    skipped["contradicted by its own source"] += len(runs) - len(kept)
    return kept, +skipped


def _undisturbed(runs: Sequence[Run]) -> list[Run]:
    """Without runs on a GPU that the same source made over twice as fast: something held them up,
    as a slot of few lanes or another program does, and nothing makes a device faster than it is.
    Threads that a row does not state may halve a processor's speed."""
    best: defaultdict[tuple[Any, ...], float] = defaultdict(float)
    for run in runs:
        best[run.setting] = max(best[run.setting], run.tokens_per_s)
    return [
        run
        for run in runs
        if run.conditions.backend == "cpu" or run.tokens_per_s > best[run.setting] / CONTRADICTED
    ]


def _run(row: dict[str, str], min_gib: float, index: int) -> Run | str:
    """A run, or why it is none."""
    notes = Notes(row.get("notes", ""))
    test = row["test"].lower()
    plain = DEPTH.sub("", test)
    decode, prefill = DECODE.fullmatch(plain), PREFILL.fullmatch(plain)
    speed, size_gib = number(row["tokens_per_s"]), number(row["file_size_gib"])
    backend = _backend(row, notes)
    checks = (
        (not decode and not prefill, "another kind of test"),
        (not speed, "no speed"),
        (notes.n_devices > 1 or _names_several(row), "several devices"),
        (notes.is_speculative, "speculative"),
        (notes.is_partly_offloaded, "partly on the processor"),
        (backend is None, "backend not known"),
    )
    reason = next((reason for failed, reason in checks if failed), None)
    if reason or speed is None or backend is None:
        return reason or "no speed"
    said = (number(row.get("params_b", "")) or 0) * 1e9 or None
    params = said or (size_gib * GIB * 8 / usual_bits(row["quant"]) if size_gib else None)
    shape = shape_of(row["model"], params, is_mixture=notes.is_mixture)
    if shape is None:
        return "neither size nor weights known"
    file_bytes = _file_bytes(size_gib, said, shape, row["quant"])
    if file_bytes < min_gib * GIB:
        return f"smaller than {min_gib:g} GiB"
    kind = class_of(row["model"], row["quant"], 8 * file_bytes / shape.n_params)
    place = place_of(row | {"backend": backend}, notes, kind, shape)
    if isinstance(place, str):
        return place
    length, depth = _lengths(test, decode or prefill)
    depth = max(depth, notes.prompt_tokens) + (length / 2 if decode else 0)
    run = Run(
        place=place.at_depth(depth if decode else depth + length / 2),
        test="decode" if decode else "prefill",
        shape=shape,
        file_bytes=file_bytes,
        depth=depth,
        n_tokens=length,
        tokens_per_s=speed,
        source=notes.source_of(row.get("source", "")),
        month=notes.month,
        row=index,
        micro_batch=notes.micro_batch or MICRO_BATCH,
        cache_bits=sum(CACHE_BITS.get(name, 16.0) for name in notes.cache_types) / 2,
    )
    return _checked(run)


def _names_several(row: dict[str, str]) -> bool:
    """Sockets of processors are one device."""
    counted = re.search(
        r"^[2-9] ?[x\xd7] ?(?=[a-z])|(?<![a-z])[x\xd7] ?[2-9]$", row["device"].lower()
    )
    return " + " in row["device"] or bool(counted and row["backend"] != "cpu")


def _checked(run: Run) -> Run | str:
    place = run.place
    if place.memory_bytes and 0.97 * run.file_bytes > place.memory_bytes:
        return "does not fit in the device's memory"
    if run.test == "prefill" and not place.knows_compute:
        return "arithmetic of the processor not known"
    return run


def _backend(row: dict[str, str], notes: Notes) -> str | None:
    """None for one that is not known; "" where the device decides."""
    said = re.split(r"[ ,(]", row["backend"].lower())[0]
    if notes.n_gpu_layers == 0 or said == "cpu":
        return "cpu"
    said = {"hip": "rocm", "mps": "metal"}.get(said, said)
    return said if said in BACKENDS else "" if said in UNSAID else None


def usual_bits(quant: str) -> float:
    name = quant.upper().removeprefix("UD-")
    return next((bits for start, bits in _BITS if re.match(start, name)), USUAL_BITS)


def _file_bytes(size_gib: float | None, said: float | None, shape: Shape, quant: str) -> float:
    """Of the model's own weights: a head for drafts that is in the file, too, is not streamed."""
    if not size_gib:
        return shape.n_params * usual_bits(quant) / 8
    extra = said / shape.n_params - 1 if said and is_exact(said) else 0.0
    return size_gib * GIB / (1 + extra if 0 < extra <= MTP_SHARE else 1)


def _lengths(test: str, match: re.Match[str] | None) -> tuple[int, float]:
    """Tokens of the prompt or answer, and of the context before them."""
    if test.startswith("localscore"):
        return LOCALSCORE_PROMPT, LOCALSCORE_DEPTH - LOCALSCORE_PROMPT / 2
    depth = DEPTH.search(test)
    length = int((match and match["n"]) or USUAL_LENGTH)
    return length, float(depth[1]) if depth else 0.0
