"""llama-bench's results read as ours, and ours as llama-bench prints them.

A row of llama-bench is one test: a prompt (pp) or an answer (tg), whose samples are the seconds
inside the engine. A case of ours has both, so it becomes two rows. Drafts, several sequences, real
questions and verification curves have no place there. Rows are for programs; a table and lines for
scoreboards are for people. Source: tools/llama-bench of llama.cpp (fields, where -1 is automatic,
and Markdown columns).
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, cast

from localspec.bench.case import Case, Work
from localspec.bench.row import ResultRow
from localspec.bench.sample import Measurement, Sample
from localspec.bench.store import Results, ResultsHeader, Visited
from localspec.errors import UserError
from localspec.hardware.activity import Circumstances
from localspec.hardware.machine import backend_of
from localspec.session.session_config import SessionConfig
from localspec.settings import NONE, Settings

Row = Mapping[str, Any]
UNKNOWN = "unknown"
FLASH = {"off": 0, "on": 1, "auto": -1}
_ALL_LAYERS = 99
"""What people write for all layers."""


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
    seconds = [float(ns) / 1e9 for ns in row.get("samples_ns") or [row["avg_ns"]]]
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


def _environment_of(row: Row) -> dict[str, Any]:
    names = [str(row[key]) for key in ("gpu_info", "cpu_info") if row.get(key)] or [UNKNOWN]
    backends = [backend_of(name.strip()) for name in str(row["backends"]).split(",")]
    name = " + ".join(dict.fromkeys(names))
    device = {"backend": backends[0], "name": names[0], "bytes": None}
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


def is_plain(row: ResultRow) -> bool:
    """Whether llama-bench could have measured a case."""
    work = row.case.work
    drafts = row.case.settings.spec != NONE and row.acceptance is not None
    return not (drafts or work.prompts or work.widths or work.batch > 1)


def rows_of(rows: Iterable[ResultRow]) -> Iterator[dict[str, Any]]:
    """A row of llama-bench's for the prompt of each plain case, and one for its answer."""
    for row in filter(is_plain, rows):
        prompts = [s.prefill_s for s in row.samples if s.prefill_s]
        answers = [s.engine_s or s.decode_s for s in row.samples if s.n_tokens and s.decode_s]
        n_gen = max((sample.n_tokens for sample in row.samples), default=0)
        if prompts:
            yield _row(row, row.case.work.n_prompt, 0, prompts)
        if answers:
            yield _row(row, 0, n_gen, [s for s in answers if s])


def _row(row: ResultRow, n_prompt: int, n_gen: int, seconds: Sequence[float]) -> dict[str, Any]:
    settings, model, engine = row.case.settings, row.model, row.environment["engine"]
    machine, n_params = row.environment["machine"], model["n_params"]
    on_gpus = [str(d["name"]) for d in machine["devices"] if d["backend"] != "cpu"]
    processor = [str(d["name"]) for d in machine["devices"] if d["backend"] == "cpu"]
    rates = [(n_prompt + n_gen) / s for s in seconds]
    deviation = stdev if len(seconds) > 1 else lambda _: 0.0
    return {
        "build_commit": f"llama-cpp-python-{engine['version']}",
        "build_number": 0,
        "cpu_info": ", ".join(processor),
        "gpu_info": ", ".join(on_gpus if settings.gpu_layers else []),
        "backends": ",".join(_BACKENDS.get(name, str(name)) for name in engine["backends"]),
        "model_filename": str(row.case.config.model),
        "model_type": f"{model['architecture']} {_parameters(n_params, '')} {model['type']}",
        "model_size": model["weight_bytes"],
        "model_n_params": n_params,
        "n_ubatch": settings.ubatch,
        "n_threads": settings.threads or machine["cores"],
        "type_k": settings.kv_k,
        "type_v": settings.kv_v,
        "n_gpu_layers": settings.gpu_layers,
        "n_cpu_moe": settings.cpu_moe,
        "flash_attn": FLASH[settings.flash_attn],
        "repack": settings.repack,
        "n_prompt": n_prompt,
        "n_gen": n_gen,
        "n_depth": row.case.work.depth,
        "test_time": row.visits[0].environment["taken"],
        "avg_ns": round(1e9 * mean(seconds)),
        "stddev_ns": round(1e9 * deviation(seconds)),
        "avg_ts": mean(rates),
        "stddev_ts": deviation(rates),
        "samples_ns": [round(1e9 * s) for s in seconds],
        "samples_ts": rates,
    }


_BACKENDS = {"cpu": "CPU", "cuda": "CUDA", "metal": "MTL", "vulkan": "Vulkan", "rocm": "ROCm"}


def _parameters(n: int, space: str = " ") -> str:
    return f"{n / 1e9:.2f}{space}B" if n >= 1e9 else f"{n / 1e6:.2f}{space}M"


_COLUMNS = ("model", "size", "params", "backend", "ngl", "threads", "test", "t/s")
_TEXTS = frozenset({"model", "backend", "chip", "build", "fa"})
_VARYING = {
    "n_ubatch": "n_ubatch", "type_k": "type_k", "type_v": "type_v", "flash_attn": "fa",
    "n_cpu_moe": "n_cpu_moe", "repack": "rpk",
}  # fmt: skip
"""Settings that are columns where they differ, and what llama-bench calls them."""


def markdown(rows: Sequence[Row]) -> str:
    """llama-bench's table, with the settings that differ between rows, and its line of the build.
    UserError for no rows."""
    rows = _some(rows)
    shown = [name for name in _VARYING if len({str(row[name]) for row in rows}) > 1]
    heads = [*_COLUMNS[:-2], *(_VARYING[name] for name in shown), *_COLUMNS[-2:]]
    body = [_cells(row, shown) for row in rows]
    build = f"build: {rows[0]['build_commit']} ({rows[0]['build_number']})"
    return "\n".join([*_table(heads, body), "", build, ""])


def scoreboard(rows: Sequence[Row]) -> str:
    """One line for each device, model and setting: pp, tg and the build, to paste into a list.
    UserError for no rows."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in _some(rows):
        chip = str(row["gpu_info"] or row["cpu_info"])
        flash = {"1": "on", "0": "off"}.get(str(row["flash_attn"]), "auto")
        key = (chip, str(row["backends"]), str(row["model_type"]) + _depth(row), flash)
        groups.setdefault(key, []).append(row)
    tests = list(dict.fromkeys(_test_name(row) for row in rows))
    heads = ["chip", "backend", "model", "fa", *(f"{test} t/s" for test in tests), "build"]
    body: list[list[str]] = []
    for key, own in groups.items():
        speeds = {_test_name(row): _speed(row) for row in own}
        cells = (speeds.get(test, "") for test in tests)
        body.append([*key, *cells, str(own[0]["build_commit"])])
    return "\n".join([*_table(heads, body), ""])


def _some(rows: Sequence[Row]) -> Sequence[Row]:
    if not rows:
        raise UserError(
            "no case is one that llama-bench measures: plain decoding of one sequence on random"
            " tokens (--spec none)"
        )
    return rows


def _cells(row: Row, shown: Sequence[str]) -> list[str]:
    n_bytes = int(row["model_size"])
    size = f"{n_bytes / 2**30:.2f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.2f} MiB"
    names = ("backends", "n_gpu_layers", "n_threads", *shown)
    more = (_parameters(int(row["model_n_params"])), *(str(row[name]) for name in names))
    return [str(row["model_type"]), size, *more, _test_name(row) + _depth(row), _speed(row)]


def _test_name(row: Row) -> str:
    return f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"


def _depth(row: Row) -> str:
    return f" @ d{row['n_depth']}" if row["n_depth"] else ""


def _speed(row: Row) -> str:
    return f"{row['avg_ts']:.2f} ± {row['stddev_ts']:.2f}"


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as their widest cell; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
    columns = [("<" if name in _TEXTS else ">", n) for name, n in zip(heads, widths, strict=True)]
    line = f"| {' | '.join(f'{{:{side}{n}}}' for side, n in columns)} |"
    yield line.format(*heads)
    yield line.format(*("-" * n if side == "<" else "-" * (n - 1) + ":" for side, n in columns))
    yield from (line.format(*cells) for cells in body)
