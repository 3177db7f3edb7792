"""Published runs, a row of CSV each, as what was run, where and how fast.

Columns: source, device, backend, model, params_b, file_size_gib, quant, test, tokens_per_s, notes.
`read_runs` sorts rows into runs that can be predicted and others, by reason: several devices,
mixtures of experts, models whose size or device is not known, models that do not fit.
"""

import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from research.efficiency.places import Place, class_of, place_of
from research.efficiency.shapes import Shape, shape_of

GIB = 2**30
BACKENDS = ("cuda", "metal", "vulkan", "rocm", "cpu")
DECODE = re.compile(r"(?:(?:tg|server_gen) ?(?P<n>[1-9]\d*)?|decode|eval_rate|localscore_gen)")
PREFILL = re.compile(r"(?:pp ?(?P<n>[1-9]\d*)|prefill|localscore_prompt)")
DEPTH = re.compile(r" ?@ ?d(\d+)$")
EXPERTS = re.compile(
    r"\d+B-A\d|\d+B\.A\d|x\d+B\b|moe|gpt-oss|mixtral|scout|maverick|glm-4\.[57]|dots\.llm|minimax"
    r"|deepseek[- ]?(v[23]|r1$|r1-0|2)|hunyuan-a|\bE[24]B\b|ling-|kimi|\bA\d+B\b",
    re.IGNORECASE,
)
# A mean over LocalScore's nine mixes of prompt and answer lengths.
LOCALSCORE_PROMPT, LOCALSCORE_DEPTH = 900, 1500
USUAL_LENGTH = 256
BYTES_PER_WEIGHT = 0.6
"""Of files whose row does not say how many weights they hold: Q4_K_M with its larger tables."""
RESERVE_BYTES = 4e8
"""Beside the streamed weights: buffers and a short cache."""


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement. `depth`: cached tokens on average, `n_tokens` of the prompt or answer."""

    place: Place
    test: str
    shape: Shape
    file_bytes: float
    depth: float
    n_tokens: int
    flash: bool
    tokens_per_s: float

    @property
    def chip(self) -> str:
        return self.place.chip

    @property
    def streamed_bytes(self) -> float:
        """Of weights, by each decoded token."""
        return self.shape.streamed_bytes(self.file_bytes)


def read_runs(path: Path, min_gib: float) -> tuple[list[Run], Counter[str]]:
    """The runs that can be predicted, and how many rows cannot, by reason."""
    runs: list[Run] = []
    skipped = Counter[str]()
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        for row in csv.DictReader(file):
            run = _run({key: (row.get(key) or "").strip() for key in row if key}, min_gib)
            if isinstance(run, Run):
                runs.append(run)
            else:
                skipped[run] += 1
    return runs, skipped


def _run(row: dict[str, str], min_gib: float) -> Run | str:
    """A run, or why it is none."""
    notes = _notes(row.get("notes", ""))
    test = row["test"].lower()
    plain = DEPTH.sub("", test)
    decode, prefill = DECODE.fullmatch(plain), PREFILL.fullmatch(plain)
    speed, size_gib = _number(row["tokens_per_s"]), _number(row["file_size_gib"])
    checks = (
        (not decode and not prefill, "another kind of test"),
        (not speed, "no speed"),
        (not size_gib, "file size not known"),
        (size_gib is not None and size_gib < min_gib, f"smaller than {min_gib:g} GiB"),
        (_n_devices(notes) > 1, "several devices"),
        (_is_mixture(row, notes), "mixture of experts"),
        ("ple" in notes, "per-layer embeddings"),
        (notes.get("spec") == "1", "speculative"),
        (row["backend"].lower() not in BACKENDS, "backend not known"),
    )
    reason = next((reason for failed, reason in checks if failed), None)
    if reason or speed is None or size_gib is None:
        return reason or "no speed"
    file_bytes = size_gib * GIB
    n_params = (_number(row.get("params_b", "")) or 0) * 1e9 or file_bytes / BYTES_PER_WEIGHT
    shape = shape_of(row["model"], n_params)
    place = place_of(row, notes, class_of(row["quant"], 8 * file_bytes / shape.n_params))
    if isinstance(place, str):
        return place
    if place.memory_bytes and shape.streamed_bytes(file_bytes) + RESERVE_BYTES > place.memory_bytes:
        return "does not fit in the device's memory"
    if prefill and not place.knows_compute:
        return "arithmetic of the processor not known"
    length, depth = _lengths(test, decode or prefill)
    return Run(
        place=place,
        test="decode" if decode else "prefill",
        shape=shape,
        file_bytes=file_bytes,
        depth=depth + (length / 2 if decode else 0),
        n_tokens=length,
        flash=notes.get("fa") != "0",
        tokens_per_s=speed,
    )


def _lengths(test: str, match: re.Match[str] | None) -> tuple[int, float]:
    """Tokens of the prompt or answer, and of the context before them."""
    if test.startswith("localscore"):
        return LOCALSCORE_PROMPT, LOCALSCORE_DEPTH - LOCALSCORE_PROMPT / 2
    depth = DEPTH.search(test)
    length = int((match and match["n"]) or USUAL_LENGTH)
    return length, float(depth[1]) if depth else 0.0


def _is_mixture(row: dict[str, str], notes: dict[str, str]) -> bool:
    return notes.get("moe", "0") != "0" or bool(EXPERTS.search(row["model"]))


def _n_devices(notes: dict[str, str]) -> float:
    return _number(notes.get("n_gpu", "")) or 1


def _notes(text: str) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in text.split(";"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def _number(text: str | None) -> float | None:
    """The number that a cell begins with; thousands may be set off by commas."""
    found = re.match(r"~?(\d[\d,]*(?:\.\d+)?|\.\d+)", text or "")
    return float(found[1].replace(",", "")) if found else None
