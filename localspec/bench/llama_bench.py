"""llama-bench's results read as ours; `report.llama_bench` writes ours as llama-bench's.

A row of llama-bench is one test: a prompt (pp) or an answer (tg), whose samples are the seconds
inside the engine. Source: tools/llama-bench of llama.cpp (fields; -1 is automatic).
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from localspec.bench.case import Case, Work
from localspec.bench.sample import Measurement, Sample
from localspec.bench.store import Results, ResultsHeader, Visited
from localspec.errors import UserError
from localspec.hardware.activity import Circumstances
from localspec.hardware.machine import backend_of
from localspec.session.asking import SessionConfig
from localspec.settings import NONE, Settings

Row = Mapping[str, Any]
UNKNOWN = "unknown"
FLASH = {"off": 0, "on": 1, "auto": -1}


def is_row(value: Any) -> bool:
    """Whether a JSON value is one of llama-bench's rows."""
    return isinstance(value, dict) and "avg_ts" in value


def rows_in(text: str) -> list[Row]:
    """The rows that llama-bench printed with `-o json`, `jsonl` or `csv`; none of another text."""
    text = text.strip()
    if text.startswith(("build_commit", '"build_commit')):
        return list(csv.DictReader(text.splitlines()))
    for document in (text, f"[{','.join(line for line in text.splitlines() if line.strip())}]"):
        try:
            found: Any = json.loads(document)
        except ValueError:
            continue
        rows = cast("list[Any]", found if isinstance(found, list) else [found])
        if rows and all(map(is_row, rows)):
            return rows
    return []


def results_of(path: Path, rows: Sequence[Row]) -> Results:
    """Each test as a case with one visit. Raises UserError where no row is a prompt or an answer.

    A prompt and an answer that were timed together are left out.
    """
    try:
        visits = tuple(
            _visited(number, row)
            for number, row in enumerate(rows)
            if not (int(row["n_prompt"]) and int(row["n_gen"]))
        )
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged or of another version ({error!r})") from error
    if not visits:
        raise UserError(f"{path} times no prompt and no answer alone")
    n_samples = max(len(v.measurement.samples) for v in visits if v.measurement)
    cases = tuple(dict.fromkeys(visited.case for visited in visits))
    header = ResultsHeader(str(rows[0].get("test_time", UNKNOWN)), cases, 1, n_samples)
    return Results(path, header, visits)


def _visited(number: int, row: Row) -> Visited:
    n_prompt, n_gen = int(row["n_prompt"]), int(row["n_gen"])
    seconds = _seconds_of(row)
    samples = tuple(
        Sample(prefill_s=s, n_prompt=n_prompt)
        if n_prompt
        else Sample(decode_s=s, engine_s=s, n_tokens=n_gen, n_passes=n_gen)
        for s in seconds
    )
    config = SessionConfig(Path(str(row["model_filename"])), _settings_of(row))
    return Visited(
        number=number,
        case=Case(config, Work(n_prompt, n_gen, int(row.get("n_depth") or 0))),
        is_anchor=False,
        measurement=Measurement(samples),
        reason=None,
        circumstances=Circumstances(UNKNOWN, sum(seconds)),
        prediction=None,
        environment=_environment_of(row),
        model=_model_of(row),
    )


def _seconds_of(row: Row) -> list[float]:
    """Of each sample; CSV has only their mean."""
    found = row.get("samples_ns") or [row["avg_ns"]]
    seconds = [float(ns) / 1e9 for ns in found]
    if not seconds or min(seconds) <= 0:
        raise ValueError("a test that took no time")
    return seconds


def _settings_of(row: Row) -> Settings:
    n_layers = int(row.get("n_gpu_layers", -1))
    flash = {str(code): word for word, code in FLASH.items()} | {"true": "on", "false": "off"}
    return Settings.of(
        spec=NONE,
        draft=NONE,
        threads=int(row["n_threads"]),
        kv_k=str(row["type_k"]),
        kv_v=str(row["type_v"]),
        flash_attn=flash[str(row.get("flash_attn", -1)).lower()],
        gpu_layers=-1 if n_layers < 0 or n_layers >= _ALL_LAYERS else n_layers,
        ubatch=int(row.get("n_ubatch") or 512),
        cpu_moe=int(row.get("n_cpu_moe") or 0),
        repack=str(row.get("repack", True)).lower() in ("true", "1"),
    )


_ALL_LAYERS = 99
"""What people write for all layers."""


def _environment_of(row: Row) -> dict[str, Any]:
    names = [str(row.get(key) or "") for key in ("gpu_info", "cpu_info")]
    backends = [backend_of(name.strip()) for name in str(row["backends"]).split(",")]
    name = " + ".join(dict.fromkeys(filter(None, names))) or UNKNOWN
    device = {"backend": backends[0], "name": next(filter(None, names), UNKNOWN), "bytes": None}
    build = str(row.get("build_commit") or UNKNOWN)
    return {
        "taken": str(row.get("test_time", UNKNOWN)),
        "localspec": None,
        "machine": {
            "name": name, "key": name, "power": f"power supply {UNKNOWN}", "devices": [device],
            "system": UNKNOWN, "cores": None, "memory_bytes": None,
        },
        "engine": {
            "version": f"llama-bench {build}", "fingerprint": build, "backends": backends,
        },
        "variables": {},
    }  # fmt: skip


def _model_of(row: Row) -> dict[str, Any]:
    """Without a digest: the size of the weights and the number of parameters identify it."""
    n_params, weight_bytes = int(row["model_n_params"]), int(row["model_size"])
    return {
        "file": Path(str(row["model_filename"])).name,
        "name": str(row["model_type"]),
        "architecture": str(row["model_type"]).split(" ")[0],
        "type": str(row["model_type"]).split(" ", 2)[-1],
        "n_params": n_params,
        "weight_bytes": weight_bytes,
        "digest": f"{n_params}-{weight_bytes}",
    }
