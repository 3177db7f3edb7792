"""Results of llama-bench are results of ours, and ours are written as llama-bench's."""

import json
from pathlib import Path
from typing import Any

import pytest
from command import assert_refused, localspec
from measured import results

from localspec.bench import llama_bench
from localspec.bench.compare import compare
from localspec.bench.llama_bench import results_of, rows_in
from localspec.bench.report.tables import all_rows
from localspec.bench.row import rows_of
from localspec.errors import UserError

# What llama-bench of llama-cpp-python 0.3.36's source printed on 2026-11-29 (-p 32 -n 8 -r 2).
COMMON: dict[str, Any] = {
    "build_commit": "0c1e570", "build_number": 1, "cpu_info": "AMD EPYC", "gpu_info": "",
    "backends": "CPU", "model_filename": "/models/SmolLM2-135M-Instruct.Q4_1.gguf",
    "model_type": "llama 256M Q4_1", "model_size": 96576768, "model_n_params": 134515008,
    "n_batch": 2048, "n_ubatch": 512, "n_threads": 2, "cpu_mask": "0x0", "cpu_strict": False,
    "poll": 50, "type_k": "f16", "type_v": "f16", "n_gpu_layers": -1, "n_cpu_moe": 0,
    "split_mode": "layer", "main_gpu": 0, "no_kv_offload": False, "flash_attn": -1,
    "devices": "auto", "tensor_split": "0.00", "tensor_buft_overrides": "none",
    "load_mode": "auto", "lazy_mode": "auto", "embeddings": False, "no_op_offload": 0,
    "no_host": False, "repack": True, "fit_target": 0, "fit_min_ctx": 0,
}  # fmt: skip
PROMPT = COMMON | {
    "n_prompt": 32, "n_gen": 0, "n_depth": 0, "test_time": "2026-11-29T08:45:47Z",
    "avg_ns": 5389735017, "stddev_ns": 480019871, "avg_ts": 5.960853, "stddev_ts": 0.530885,
    "samples_ns": [5050309719, 5729160316], "samples_ts": [6.33625, 5.58546],
}  # fmt: skip
ANSWER = COMMON | {
    "n_prompt": 0, "n_gen": 8, "n_depth": 0, "test_time": "2026-11-29T08:46:01Z",
    "avg_ns": 2288002265, "stddev_ns": 1048574404, "avg_ts": 3.906774, "stddev_ts": 1.790445,
    "samples_ns": [3029456336, 1546548195], "samples_ts": [2.64074, 5.17281],
}  # fmt: skip
TABLE = """\
| model                          |       size |     params | backend    | threads |
| ------------------------------ | ---------: | ---------: | ---------- | ------: |
| llama 256M Q4_1                |  92.10 MiB |   134.52 M | CPU        |       2 |
"""


def texts() -> dict[str, str]:
    rows = [PROMPT, ANSWER]
    names = [name for name in PROMPT if not name.startswith("samples")]
    cells = [",".join(f'"{row[name]}"' for name in names) for row in rows]
    return {
        "json": json.dumps(rows, indent=2),
        "jsonl": "\n".join(map(json.dumps, rows)),
        "csv": "\n".join([",".join(names), *cells]),
    }


@pytest.mark.parametrize("form", texts())
def test_every_form_is_read(form: str) -> None:
    found = results_of(Path("theirs"), rows_in(texts()[form]))
    prompt, answer = all_rows([found])
    assert prompt.prefill_tps
    assert prompt.prefill_tps.mid == pytest.approx(5.96, rel=0.01)
    assert answer.engine_tps == pytest.approx(3.9 if form != "csv" else 3.5, rel=0.01)
    assert (prompt.case.work.text, answer.case.work.text) == ("pp32", "tg8")
    assert answer.machine == "AMD EPYC"
    assert answer.model["type"] == "Q4_1"


@pytest.mark.engine
def test_theirs_and_ours_are_compared_by_the_time_inside_the_engine(tmp_path: Path) -> None:
    ours = results(tmp_path / "ours.jsonl")
    (row,) = [
        each
        for each in rows_of(ours.visits)
        if llama_bench.is_plain(each)
        and not each.case.work.depth
        and each.case.settings.kv_k == "f16"
    ]
    same = {
        "model_n_params": row.model["n_params"], "model_size": row.model["weight_bytes"],
        "n_threads": 1,
    }  # fmt: skip
    seconds = [s.engine_s for s in row.samples]
    n_gen = row.samples[0].n_tokens
    samples = {"n_gen": row.case.work.n_gen, "samples_ns": [2e9 * s for s in seconds]}
    theirs = results_of(tmp_path / "theirs.json", [ANSWER | same | samples])
    (case,) = compare(theirs, ours).cases
    rate = row.engine_tps
    assert rate
    assert case.b_tps == pytest.approx(rate)
    assert case.a_tps == pytest.approx(rate / 2 * row.case.work.n_gen / n_gen, rel=0.2)
    assert case.measure == "decode"


@pytest.mark.engine
def test_what_we_write_is_what_we_read(tmp_path: Path) -> None:
    rows = all_rows([results(tmp_path / "ours.jsonl")])
    written = list(llama_bench.rows_of(rows))
    assert set(PROMPT) - set(written[0]) == {
        "n_batch", "cpu_mask", "cpu_strict", "poll", "split_mode", "main_gpu", "no_kv_offload",
        "devices", "tensor_split", "tensor_buft_overrides", "load_mode", "lazy_mode",
        "embeddings", "no_op_offload", "no_host", "fit_target", "fit_min_ctx",
    }  # fmt: skip
    again = all_rows([results_of(Path("again"), rows_in(json.dumps(written)))])
    plain = [row for row in rows if llama_bench.is_plain(row)]
    assert [r.prefill_tps.mid for r in again if r.prefill_tps] == pytest.approx(
        [r.prefill_tps.mid for r in plain if r.prefill_tps], rel=0.01
    )
    assert [r.engine_tps for r in again if r.engine_tps] == pytest.approx(
        [r.engine_tps for r in plain], rel=0.01
    )


def test_the_table_is_theirs() -> None:
    lines = llama_bench.markdown([PROMPT, ANSWER]).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4]]
    heads = [cell.strip() for cell in TABLE.splitlines()[0].strip("|").split("|")]
    assert [name for name in cells[0] if name in heads] == heads
    assert cells[2][-2:] == ["pp32", "5.96 ± 0.53"]
    assert cells[3][-2:] == ["tg8", "3.91 ± 1.79"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[-1] == "build: 0c1e570 (1)"


def test_a_line_for_a_scoreboard_has_both_speeds() -> None:
    flash = [row | {"flash_attn": 1, "gpu_info": "RTX 4090"} for row in (PROMPT, ANSWER)]
    lines = llama_bench.scoreboard([PROMPT, ANSWER, *flash]).splitlines()
    assert len(lines) == 4
    assert "pp32 t/s" in lines[0]
    assert "5.96 ± 0.53" in lines[2]
    assert "3.91 ± 1.79" in lines[2]
    assert "RTX 4090" in lines[3]


@pytest.mark.parametrize("change", [
    {"n_threads": "many"}, {"samples_ns": [0]}, {"type_k": "f3"}, {"n_gen": 8},
    {"model_size": None},
])  # fmt: skip
def test_what_is_damaged_is_a_sentence(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="theirs"):
        results_of(Path("theirs"), [PROMPT | change])


@pytest.mark.engine
def test_the_command_reads_and_writes_both(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "theirs.json", tmp_path / "ours.jsonl"
    theirs.write_text(texts()["json"])
    results(ours)
    assert "pp32" in localspec("report", theirs).stdout
    assert localspec("report", ours, "--format", "bench-md").stdout.startswith("| model")
    assert rows_in(localspec("report", ours, "--format", "bench-json").stdout)
    assert_refused(localspec("compare", theirs, ours), 2, "model", "SmolLM2")
