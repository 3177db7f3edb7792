"""Published runs, a row of CSV each, as what was run, where and how fast.

Columns: source, device, backend, model, params_b, file_size_gib, quant, test, tokens_per_s, notes.
`read_runs` sorts rows into runs that can be predicted and others, by reason: several devices,
mixtures of experts, models whose size or device is not known, models that do not fit.
"""

import csv
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from localspec.hardware.devices import Match, all_devices, match_reported
from localspec.predict.efficiency import NEWEST, TYPICAL_INTENSITY, Circumstances
from localspec.predict.families import type_class
from localspec.predict.published import circumstances

GIB = 2**30
BACKENDS = ("cuda", "metal", "vulkan", "rocm", "cpu")
DECODE = re.compile(r"tg(\d*)(?:@d(\d+))?$|decode$|localscore_gen$|server_gen(\d+)$")
PREFILL = re.compile(r"pp(\d+)(?:@d(\d+))?$|localscore_prompt$")
EXPERTS = re.compile(
    r"\d+B-A\d|\d+B\.A\d|x\d+B\b|moe|gpt-oss|mixtral|scout|glm-4\.[57]|dots\.llm|minimax|deepseek2"
    r"|hunyuan-a|\bE[24]B\b|ling-|kimi",
    re.IGNORECASE,
)
# A mean over LocalScore's nine mixes of prompt and answer lengths.
LOCALSCORE_PROMPT, LOCALSCORE_DEPTH = 900, 1500

# The engine's age by source, where a row's notes do not say it; what is in neither is of today.
ERAS: tuple[tuple[str, str], ...] = (
    ("discussion #4167 M5", NEWEST),
    ("discussion #4167 over-time", "2024"),
    ("discussion #4167", "2023"),
    ("XiongjieDai", "2024"),
    ("localscore", "llamafile"),
    ("PR #2707", "2023"),
    ("PR #4766", "2024"),
    ("PR #5625", "2024"),
    ("PR #5835", "2024"),
)
# Names that sources give to devices without saying which of several they are.
ALIASES = {
    "NVIDIA H100 80 GB": "NVIDIA H100 SXM5 80 GB",
    "NVIDIA Tesla V100": "NVIDIA Tesla V100 SXM2 16 GB",
    "NVIDIA Tesla P100": "NVIDIA Tesla P100 PCIe 16 GB",
}

# Layers, embedding length and bytes of F16 keys and values a token, up to so many 10^9 weights.
SHAPES: tuple[tuple[float, int, int, int], ...] = (
    (0.8, 24, 1_024, 12_288),
    (1.7, 16, 2_048, 32_768),
    (2.5, 28, 2_048, 50_000),
    (3.6, 28, 3_072, 114_688),
    (5.0, 36, 2_560, 147_456),
    (9.9, 32, 4_096, 131_072),
    (12.9, 40, 5_120, 163_840),
    (16.0, 48, 5_120, 196_608),
    (25.0, 40, 5_120, 163_840),
    (28.0, 62, 5_376, 300_000),
    (36.0, 64, 5_120, 262_144),
    (90.0, 80, 8_192, 327_680),
    (1e9, 94, 8_192, 400_000),
)
TIED = re.compile(r"gemma|llama[- ]3\.2|qwen ?[23][.\d]* ?(0|1|2|3|4)", re.IGNORECASE)
VOCABULARIES: tuple[tuple[str, int], ...] = (
    (r"llama[- ]?2|llama 7b|7b v2|llama 34b|codellama|mistral 7b", 32_000),
    (r"llama|shisa", 128_256),
    (r"mistral|ministral|devstral|nemo", 131_072),
    (r"phi", 100_352),
    (r"", 151_936),
)
LLAMA_2_KV = 524_288  # 7 B of 2023 have as many key heads as heads


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement. `streamed_bytes` of weights a token, `kv_bytes` a cached token in F16."""

    chip: str
    test: str
    circumstances: Circumstances
    n_layers: int
    n_params: float
    n_embd: int
    file_bytes: float
    streamed_bytes: float
    kv_bytes: float
    depth: float
    n_tokens: int
    flash: bool
    quant: str
    tokens_per_s: float
    bandwidth_range: tuple[float, float]


def read_runs(path: Path, min_gib: float) -> tuple[list[Run], Counter[str]]:
    """The runs that can be predicted, and how many rows cannot, by reason."""
    runs: list[Run] = []
    skipped = Counter[str]()
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            run = _run(row, min_gib)
            if isinstance(run, Run):
                runs.append(run)
            else:
                skipped[run] += 1
    return runs, skipped


def _run(row: dict[str, str], min_gib: float) -> Run | str:
    """A run, or why it is none."""
    notes = _notes(row.get("notes") or "")
    speed, size = _number(row["tokens_per_s"]), _number(row["file_size_gib"])
    decode, prefill = DECODE.match(row["test"]), PREFILL.match(row["test"])
    reason = _unfit(row, notes, speed, size, min_gib, is_known=bool(decode or prefill))
    if reason or speed is None or size is None:
        return reason or "no speed or size"
    found = _device(row, notes)
    if isinstance(found, str):
        return found
    chip, known, match = found
    memory = max(match.candidates[0].memory_bytes, default=0) if match.candidates else 0
    if known.backend not in ("cpu", "metal") and memory and size * GIB * 1.08 + 3e8 > memory:
        return "does not fit in the device's memory"
    length = _length(row["test"], decode or prefill)
    depth = _number((decode or prefill)[2] if (decode or prefill).lastindex else "") or 0.0
    n_params = (_number(row["params_b"]) or size * GIB / 0.6e9) * 1e9
    n_layers, n_embd, kv_bytes = _shape(row["model"], n_params)
    return Run(
        chip=chip,
        test="decode" if decode else "prefill",
        circumstances=known,
        n_layers=n_layers,
        n_params=n_params,
        n_embd=n_embd,
        file_bytes=size * GIB,
        streamed_bytes=size * GIB - _table_bytes(row["model"], n_params, size * GIB, n_embd),
        kv_bytes=kv_bytes,
        depth=depth + (length / 2 if decode else 0) + (LOCALSCORE_DEPTH * (length == 0)),
        n_tokens=length or LOCALSCORE_PROMPT,
        flash=notes.get("fa") != "0",
        quant=row["quant"],
        tokens_per_s=speed,
        bandwidth_range=match.bandwidth_range or (known.bandwidth_bytes_per_s,) * 2,
    )


def _unfit(
    row: dict[str, str], notes: dict[str, str], speed: float | None, size: float | None,
    min_gib: float, *, is_known: bool,
) -> str | None:  # fmt: skip
    n_gpu = _number(re.split(r"\D", notes.get("n_gpu", "1") + " ")[0])
    checks = (
        (not is_known, "another kind of test"),
        (not speed, "no speed"),
        (size is None, "file size not known"),
        (size is not None and size < min_gib, f"smaller than {min_gib:g} GiB"),
        ((n_gpu or 1) > 1, "several devices"),
        ("moe" in notes or bool(EXPERTS.search(row["model"])), "mixture of experts"),
        ("ple" in notes, "per-layer embeddings"),
        (notes.get("spec") == "1", "speculative"),
        (row["backend"] not in BACKENDS, "backend not known"),
    )
    return next((reason for failed, reason in checks if failed), None)


def _device(row: dict[str, str], notes: dict[str, str]) -> tuple[str, Circumstances, Match] | str:
    name, backend = row["device"], row["backend"]
    harness = re.split(r"@| results| \(", row["source"])[0].strip()
    era = _era(row["source"], row.get("notes") or "")
    if backend == "cpu":
        bandwidth = _number(notes.get("bw", ""))
        if bandwidth is None:
            return "memory bandwidth of the processor not known"
        run = Circumstances(
            "cpu",
            "processor",
            type_class(row["quant"]),
            bandwidth * 1e9,
            bandwidth * 1e9 / TYPICAL_INTENSITY,
            None,
            era,
            harness,
        )
        return name, run, Match(())
    cores, memory = _number(notes.get("gpu_cores", "")), _number(notes.get("accel_ram", ""))
    exact = [device for device in all_devices() if device.name == ALIASES.get(name, name)]
    match = Match(tuple(exact[:1])) if exact else match_reported(
        name,
        memory_bytes=round(memory * GIB) if memory else None,
        gpu_cores=round(cores) if cores else None,
    )  # fmt: skip
    if match.device is None or match.device.kind == "cpu":
        return "device not in the table"
    run = circumstances(match.device, backend)
    return match.device.name, _measured_by(run, row["quant"], era, harness), match


def _measured_by(run: Circumstances, quant: str, era: str, harness: str) -> Circumstances:
    return replace(run, type_class=type_class(quant), era=era, harness=harness)


def _era(source: str, notes: str) -> str:
    year = re.search(r"\b(2023|2024|2025|2026)-\d\d", notes)
    named = next((era for text, era in ERAS if text in source), None)
    if named is None and year:
        named = min(year[1], NEWEST)
    return named or NEWEST


def _shape(model: str, n_params: float) -> tuple[int, int, float]:
    shape = next(shape for shape in SHAPES if n_params / 1e9 <= shape[0])
    is_llama_2 = _vocabulary(model) == 32_000 and n_params < 7.1e9
    return shape[1], shape[2], LLAMA_2_KV if is_llama_2 else shape[3]


def _vocabulary(model: str) -> int:
    return next(size for text, size in VOCABULARIES if re.search(text, model, re.IGNORECASE))


def _table_bytes(model: str, n_params: float, file_bytes: float, n_embd: int) -> float:
    """Of the embedding table that is not streamed, in the file's own mean precision."""
    if (TIED.search(model) and n_params < 5e9) or "gemma" in model.lower():
        return 0.0
    return _vocabulary(model) * n_embd * min(2.0, file_bytes / n_params)


def _length(test: str, match: re.Match[str] | None) -> int:
    """Tokens of the prompt or answer; 0 for a mean over LocalScore's mixes."""
    if test.startswith("localscore"):
        return 0
    numbers = [int(text) for text in (match.groups() if match else ()) if text]
    return numbers[0] if numbers else 256


def _notes(text: str) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in text.split(";"))
    return {key.strip(): value.strip() for key, _, value in pairs}


def _number(text: str | None) -> float | None:
    found = re.match(r"\s*(\d+(?:\.\d+)?)", text or "")
    return float(found[1]) if found else None
