"""Results of others and our own as plain runs that correct predictions.

Files are results of `localspec bench`, the document of `report --json`, and what llama-bench prints
with `-o json`, `-o jsonl` and `-o csv` (columns: tools/llama-bench of llama.cpp).
Only plain runs of one sequence on one device count: drafts, batches, layers or experts that stay on
the processor, and several devices at once are left out.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast, get_args

from localspec.bench.llama_bench import Row, is_row, rows_in
from localspec.bench.report.documents import document
from localspec.bench.store import path_of, read_results
from localspec.errors import UserError
from localspec.forecast.corrections import MeasuredRun
from localspec.format import count
from localspec.hardware.machine import backend_of
from localspec.notify import Notify
from localspec.settings import Attention, FlashAttention
from localspec.store import read_text


class _LeftOutError(Exception):
    """Why a row is no plain run."""


def runs_of(names: Iterable[str | Path], notify: Notify) -> tuple[MeasuredRun, ...]:
    """Of files by path, or by name in the folder of results."""
    return tuple(run for path in map(path_of, names) for run in read_runs(path, notify))


def read_runs(path: Path, notify: Notify) -> tuple[MeasuredRun, ...]:
    """Every run of a file that says something of other runs; `notify` hears of what is left out.

    Raises UserError for a file that is none, and where no run is left.
    """
    runs: list[MeasuredRun] = []
    left_out = Counter[str]()
    for row in _rows(path):
        try:
            runs += _of_llama_bench(path, row) if is_row(row) else _of_ours(path, row)
        except _LeftOutError as reason:
            left_out[str(reason)] += 1
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged or of another version ({error!r})") from error
    for reason, n in left_out.items():
        notify(f"{path.name}: left out {count(n, 'run')}: {reason}")
    if not runs:
        raise UserError(f"{path} has no plain run of one sequence on one device")
    return tuple(runs)


def _rows(path: Path) -> list[Row]:
    text = read_text(path, str(path))
    if rows := rows_in(text):
        return rows
    try:
        found: Any = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict) and isinstance(rows := cast("Row", found).get("rows"), list):
        return cast("list[Row]", rows)
    return list(document([read_results(path)])["rows"])


def _of_llama_bench(path: Path, row: Row) -> Iterator[MeasuredRun]:
    n_prompt, n_gen = int(row["n_prompt"]), int(row["n_gen"])
    if n_prompt and n_gen:
        raise _LeftOutError("a prompt and an answer timed together")
    speed = float(row["avg_ts"])
    if speed <= 0:
        raise _LeftOutError("no speed")
    device, backend = _llama_bench_device(row)
    flash: FlashAttention = "off" if str(row.get("flash_attn")) in ("0", "false", "False") else "on"
    yield MeasuredRun(
        source=str(path),
        device=device,
        backend=backend,
        file=str(row["model_filename"]),
        n_params=int(row["model_n_params"]),
        weight_bytes=int(row["model_size"]),
        type=str(row["model_type"]),
        test="prefill" if n_prompt else "decode",
        n_tokens=n_prompt or n_gen,
        depth=int(row.get("n_depth") or 0),
        attention=Attention(str(row["type_k"]), str(row["type_v"]), flash),
        tokens_per_s=speed,
    )


def _llama_bench_device(row: Row) -> tuple[str, str]:
    """The device that computed everything, and its backend."""
    n_layers = int(row.get("n_gpu_layers") or 0)
    backends = {backend_of(name.strip()) for name in str(row["backends"]).split(",")} - {"cpu"}
    if not backends or n_layers == 0:
        return str(row["cpu_info"]), "cpu"
    if int(row.get("n_cpu_moe") or 0):
        raise _LeftOutError("experts on the processor")
    devices = {name.strip() for name in str(row["gpu_info"]).split(",") if name.strip()}
    if len(devices) != 1 or len(backends) != 1:
        raise _LeftOutError("several devices")
    if 0 < n_layers < _MOST_LAYERS:
        raise _LeftOutError("perhaps some layers on the processor (-ngl 99 is all of them)")
    return devices.pop(), backends.pop()


_MOST_LAYERS = 64
"""As many or more are all of the layers of nearly every model."""


def _of_ours(path: Path, row: Row) -> Iterable[MeasuredRun]:
    work, config = row["case"]["work"], row["case"]["config"]
    reasons = {
        "drafts": config["spec"] != "none" and not work.get("widths"),
        "several sequences": work.get("batch", 1) != 1,
        "real questions": bool(work.get("prompts")),
        "passes of several widths": bool(work.get("widths")),
        "experts on the processor": bool(config.get("cpu_moe")),
        "layers on the processor": config["gpu_layers"] > 0,
    }
    if reason := next((name for name, holds in reasons.items() if holds), None):
        raise _LeftOutError(reason)
    tests = (("decode", "n_gen", "decode_tps"), ("prefill", "n_prompt", "prefill_tps"))
    for test, length, figure in tests:
        if work[length] and row.get(figure):
            yield _our_run(path, row, cast("Any", test), row[figure], work[length])


def _our_run(path: Path, row: Row, test: Any, speed: Any, n_tokens: int) -> MeasuredRun:
    config, model, machine = row["case"]["config"], row["model"], row["environment"]["machine"]
    devices = [d for d in machine["devices"] if d["backend"] != "cpu"]
    if len(devices) > 1 and config["gpu_layers"]:
        raise _LeftOutError("several devices")
    device = devices[0] if devices and config["gpu_layers"] else machine["devices"][-1]
    flash = config["flash_attn"]
    predicted = (row.get("prediction") or {}).get(f"{test}_tps")
    return MeasuredRun(
        source=str(path),
        device=device["name"],
        backend=device["backend"],
        file=str(config["model"]),
        n_params=model["n_params"],
        weight_bytes=model["weight_bytes"],
        type=model["type"],
        test=test,
        n_tokens=n_tokens,
        depth=row["case"]["work"].get("depth", 0),
        attention=Attention(
            config["kv_k"], config["kv_v"], flash if flash in get_args(FlashAttention) else "auto"
        ),
        tokens_per_s=speed,
        predicted_per_s=predicted and predicted["mid"],
        machine_key=machine["key"],
    )
