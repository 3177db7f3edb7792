"""Our results as llama-bench prints them: rows for programs, a table, and lines for scoreboards.

A case of ours has a prompt and an answer, so it becomes two rows. Drafts, several sequences, real
questions and verification curves have no place there. An answer counts the seconds inside the
engine, as llama-bench's. Source: tools/llama-bench of llama.cpp (fields and Markdown columns).
"""

from collections.abc import Iterable, Iterator, Sequence
from statistics import mean, stdev
from typing import Any

from localspec.bench.llama_bench import FLASH, Row
from localspec.bench.row import ResultRow
from localspec.errors import UserError
from localspec.settings import NONE


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
    machine = row.environment["machine"]
    on_gpus = [str(d["name"]) for d in machine["devices"] if d["backend"] != "cpu"]
    processor = [str(d["name"]) for d in machine["devices"] if d["backend"] == "cpu"]
    rates = [(n_prompt + n_gen) / s for s in seconds]
    return {
        "build_commit": f"llama-cpp-python-{engine['version']}",
        "build_number": 0,
        "cpu_info": ", ".join(processor),
        "gpu_info": ", ".join(on_gpus if settings.gpu_layers else []),
        "backends": ",".join(_BACKENDS.get(name, str(name)) for name in engine["backends"]),
        "model_filename": str(row.case.config.model),
        "model_type": f"{model['architecture']} {_parameters(model, '')} {model['type']}",
        "model_size": model["weight_bytes"],
        "model_n_params": model["n_params"],
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
        "stddev_ns": round(1e9 * _deviation(seconds)),
        "avg_ts": mean(rates),
        "stddev_ts": _deviation(rates),
        "samples_ns": [round(1e9 * s) for s in seconds],
        "samples_ts": rates,
    }


_BACKENDS = {"cpu": "CPU", "cuda": "CUDA", "metal": "MTL", "vulkan": "Vulkan", "rocm": "ROCm"}


def _deviation(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _parameters(model: Row, space: str = " ") -> str:
    n = model["n_params"]
    return f"{n / 1e9:.2f}{space}B" if n >= 1e9 else f"{n / 1e6:.2f}{space}M"


_COLUMNS = ("model", "size", "params", "backend", "ngl", "threads", "test", "t/s")
_TEXTS = frozenset({"model", "backend"})


def markdown(rows: Sequence[Row]) -> str:
    """llama-bench's table, with the settings that differ between rows, and its line of the build.

    Raises UserError for no rows.
    """
    rows = _some(rows)
    shown = [name for name in _VARYING if len({str(row[name]) for row in rows}) > 1]
    heads = [*_COLUMNS[:-2], *(_VARYING[name] for name in shown), *_COLUMNS[-2:]]
    body = [[*_cells(row), *(str(row[name]) for name in shown), *_test(row)] for row in rows]
    build = f"build: {rows[0]['build_commit']} ({rows[0]['build_number']})"
    return "\n".join([*_table(heads, body), "", build, ""])


_VARYING = {
    "n_ubatch": "n_ubatch", "type_k": "type_k", "type_v": "type_v", "flash_attn": "fa",
    "n_cpu_moe": "n_cpu_moe", "repack": "rpk",
}  # fmt: skip
"""Settings that are columns where they differ, and what llama-bench calls them."""


def scoreboard(rows: Sequence[Row]) -> str:
    """One line for each device, model and setting: pp, tg and the build, to paste into a list.

    Raises UserError for no rows.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in _some(rows):
        chip = str(row["gpu_info"] or row["cpu_info"])
        flash = {"1": "on", "0": "off"}.get(str(row["flash_attn"]), "auto")
        depth = f" @ d{row['n_depth']}" if row["n_depth"] else ""
        key = (chip, str(row["backends"]), str(row["model_type"]) + depth, flash)
        groups.setdefault(key, []).append(row)
    tests = list(dict.fromkeys(_test_name(row) for row in rows))
    heads = ["chip", "backend", "model", "fa", *(f"{test} t/s" for test in tests), "build"]
    body: list[list[str]] = []
    for key, own in groups.items():
        speeds = {_test_name(row): _speed(row) for row in own}
        build = str(own[0]["build_commit"])
        body.append([*key, *(speeds.get(test, "") for test in tests), build])
    return "\n".join([*_table(heads, body), ""])


def _some(rows: Sequence[Row]) -> Sequence[Row]:
    if not rows:
        raise UserError(
            "no case is one that llama-bench measures: plain decoding of one sequence on random"
            " tokens (--spec none)"
        )
    return rows


def _cells(row: Row) -> list[str]:
    n_bytes, n = int(row["model_size"]), {"n_params": int(row["model_n_params"])}
    size = f"{n_bytes / 2**30:.2f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.2f} MiB"
    layers, threads = str(row["n_gpu_layers"]), str(row["n_threads"])
    return [str(row["model_type"]), size, _parameters(n), str(row["backends"]), layers, threads]


def _test_name(row: Row) -> str:
    return f"pp{row['n_prompt']}" if row["n_prompt"] else f"tg{row['n_gen']}"


def _test(row: Row) -> list[str]:
    return [_test_name(row) + (f" @ d{row['n_depth']}" if row["n_depth"] else ""), _speed(row)]


def _speed(row: Row) -> str:
    return f"{row['avg_ts']:.2f} ± {row['stddev_ts']:.2f}"


def _table(heads: Sequence[str], body: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns as wide as their widest cell; numbers to the right."""
    widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
    lefts = [name in _TEXTS or name in ("chip", "build", "fa") for name in heads]
    for number, cells in enumerate([heads, *body]):
        padded = (
            cell.ljust(width) if left else cell.rjust(width)
            for cell, width, left in zip(cells, widths, lefts, strict=True)
        )
        yield f"| {' | '.join(padded)} |"
        if number == 0:
            rules = (
                "-" * w if left else "-" * (w - 1) + ":"
                for w, left in zip(widths, lefts, strict=True)
            )
            yield f"| {' | '.join(rules)} |"
