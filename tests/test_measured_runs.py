"""Runs measured here or elsewhere correct predictions: of their device, and of their model."""

import csv
import io
import json
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
from babbling import write_babbling_model
from command import localspec
from hypothesis import given
from hypothesis import strategies as st

import localspec as library
from localspec.bench.case import Case, Work
from localspec.bench.measured_runs import read_runs
from localspec.bench.report.documents import document as report_document
from localspec.bench.sample import Measurement, Sample
from localspec.bench.store import ResultsHeader, Visited, Writer, read_results
from localspec.errors import UserError
from localspec.hardware.activity import Circumstances
from localspec.model.facts import ModelFacts
from localspec.model.synthetic import Shape
from localspec.prediction.evidence import Evidence, Spreads, correction
from localspec.session.session_config import SessionConfig
from localspec.settings import Settings

SPREADS = Spreads(source=0.1, device=0.2, model=0.2, pair=0.01, noise=0.1)
RUN: dict[str, Any] = {
    "build_commit": "8cf427ff", "build_number": 5163, "cpu_info": "AMD Ryzen 7 7800X3D",
    "gpu_info": "NVIDIA GeForce RTX 3090", "backends": "CUDA", "model_filename": "a.gguf",
    "model_type": "qwen3 8B Q4_K - Medium", "model_size": 5_027_000_000,
    "model_n_params": 8_190_735_360, "type_k": "f16", "type_v": "f16", "n_gpu_layers": 99,
    "n_cpu_moe": 0, "flash_attn": 1, "n_prompt": 0, "n_gen": 128, "n_depth": 0, "avg_ts": 100.0,
}  # fmt: skip
OTHERS = (
    ("llama 8B Q8_0", 8_030_000_000, 8_541_000_000),
    ("qwen3 4B Q4_K - Medium", 4_022_000_000, 2_497_000_000),
    ("qwen3 14B Q4_K - Medium", 14_768_000_000, 9_001_000_000),
    ("llama 3B Q8_0", 3_213_000_000, 3_422_000_000),
)


def evidence(device: str, model: str, ratio: float) -> Evidence:
    return Evidence("a file", device, model, log(ratio))


@given(st.floats(0.5, 2.0), st.integers(1, 6))
def test_few_runs_move_little_and_many_as_far_as_they_agree(ratio: float, n: int) -> None:
    known = [evidence("B", f"model {i}", ratio) for i in range(n)]
    wanted = Evidence("a file", "B", "another")
    fewer, more = (correction(known[:k], wanted, SPREADS) for k in (n - 1, n))
    assert abs(log(fewer.factor)) <= abs(log(more.factor)) + 1e-9
    assert abs(log(more.factor)) <= abs(log(ratio)) + 1e-9
    assert more.unknown < fewer.unknown <= 1.0
    own = correction([*known, evidence("B", "another", ratio)], wanted, SPREADS)
    assert abs(log(own.factor) - log(ratio)) <= abs(log(more.factor) - log(ratio)) + 1e-9


def test_a_model_on_a_device_is_predicted_from_where_both_were_measured() -> None:
    """B takes 1.3 x what is published for it, the model 1.25 x what its bytes say."""
    models = [f"model {i}" for i in range(6)]
    known = [evidence("A", name, 1.0) for name in models]
    known += [evidence("B", name, 1.3) for name in models]
    wanted = Evidence("a file", "B", "asked")
    without = correction(known, wanted, SPREADS).factor
    found = correction([*known, evidence("A", "asked", 1.25)], wanted, SPREADS)
    assert 1.1 < without < 1.3
    assert without * 1.1 < found.factor < 1.3 * 1.25
    assert found.unknown < 0.8


def test_nothing_known_changes_nothing() -> None:
    found = correction([], Evidence("", "B", "asked"), SPREADS)
    assert (found.factor, found.unknown) == (1.0, 1.0)
    other = correction([Evidence("x", "A", "m", log(1.5))], Evidence("y", "B", "n"), SPREADS)
    assert (other.factor, other.unknown) == pytest.approx((1.0, 1.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model.gguf"
    write_babbling_model(path, Shape(n_ctx=8192), "Q8_0")
    return path


def rows_of(gpu: str, factor: float) -> list[dict[str, Any]]:
    """Runs of four models on a device, at `factor` of some speeds."""
    speeds = (90.0, 150.0, 55.0, 190.0)
    return [
        RUN | {"gpu_info": gpu, "model_filename": f"{name}.gguf", "model_type": name,
               "model_n_params": n, "model_size": size, "avg_ts": factor * speed}
        for (name, n, size), speed in zip(OTHERS, speeds, strict=True)
    ]  # fmt: skip


def written(path: Path, rows: Any) -> Path:
    path.write_text(json.dumps(rows))
    return path


def mid(model: Path, device: str, *runs: Path) -> tuple[float, float]:
    """Tokens a second, and how wide the interval is."""
    more = {"runs": runs} if runs else {}
    row = library.predict(model, device, depth=0, kv_k="f16", **more).rows[0].decode
    return row.mid, row.high / row.low


def test_a_device_that_is_slower_than_published_is_predicted_slower(
    model: Path, tmp_path: Path
) -> None:
    plain, width = mid(model, "RTX 3090")
    found = [
        mid(model, "RTX 3090", written(tmp_path / f"{n}.json", rows_of(RUN["gpu_info"], f)[:n]))
        for n, f in ((1, 0.5), (2, 0.5), (4, 0.5), (4, 1.0))
    ]
    speeds = [speed for speed, _ in found]
    assert plain > speeds[0] > speeds[1] > speeds[2]
    assert speeds[3] > speeds[2]
    assert all(narrower < width for _, narrower in found)


def test_runs_of_the_model_elsewhere_tell_of_the_model(model: Path, tmp_path: Path) -> None:
    facts = library.predict(model, "RTX 3090").facts
    elsewhere = rows_of("NVIDIA GeForce RTX 4090", 1.0)
    known = written(tmp_path / "without.json", elsewhere + rows_of(RUN["gpu_info"], 1.0))
    here = mid(model, "RTX 4090", known)[0]
    own = RUN | {"gpu_info": "NVIDIA GeForce RTX 4090", "model_n_params": facts.n_params,
                 "model_size": facts.weight_bytes, "avg_ts": 0.5 * here}  # fmt: skip
    rows = [*elsewhere, *rows_of(RUN["gpu_info"], 1.0), own]
    slow = written(tmp_path / "slow.json", rows)
    assert mid(model, "RTX 3090", slow)[0] < 0.97 * mid(model, "RTX 3090", known)[0]
    forecast = library.predict(model, "RTX 3090", runs=slow)
    assert [each.is_of_model for each in forecast.machine.experience.runs].count(True) == 1
    assert "9 measured runs, 4 of this machine and 1 of this model elsewhere" in " ".join(
        forecast.machine.notes
    ).replace("\u00a0", " ")


def test_a_device_of_no_table_is_known_by_its_runs(model: Path, tmp_path: Path) -> None:
    """A processor's speed follows from its own runs alone: twice as fast, twice the prediction."""

    def run_of(factor: float) -> Path:
        rows = [row | {"backends": "CPU", "n_gpu_layers": 0} for row in rows_of("", factor)]
        return written(tmp_path / f"{factor}.json", rows)

    slow, fast = (mid(model, "ryzen 7800X3D", run_of(factor))[0] for factor in (0.1, 0.2))
    assert fast == pytest.approx(2 * slow, rel=0.15)
    facts: ModelFacts = library.predict(model, "RTX 3090").facts
    assert 0.3 < slow * facts.streamed_bytes / (9 * 8.5e9) < 2
    with pytest.raises(UserError, match="no device"):
        library.predict(model, "toaster 9000", runs=run_of(0.1))
    other = library.predict(model, "EPYC 9554", runs=run_of(0.1))
    assert other.machine.bandwidth_bytes_per_s == pytest.approx(460.8e9, rel=0.01)


def test_another_backend_is_that_of_the_runs(model: Path, tmp_path: Path) -> None:
    rows = [row | {"backends": "Vulkan"} for row in rows_of(RUN["gpu_info"], 1.0)]
    forecast = library.predict(model, "RTX 3090", runs=written(tmp_path / "v.json", rows))
    assert "vulkan" in forecast.machine.rates.source


def test_every_form_of_llama_bench_reads_alike(tmp_path: Path) -> None:
    prompt = RUN | {"n_prompt": 512, "n_gen": 0, "avg_ts": 3000.0}
    rows = [*rows_of(RUN["gpu_info"], 1.0), prompt]
    as_json = read_runs(written(tmp_path / "a", rows), print)
    lines = tmp_path / "b"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
    table, out = tmp_path / "c", io.StringIO()
    writer = csv.DictWriter(out, list(RUN), quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    table.write_text(out.getvalue())
    kinds = [[(r.text, r.tokens_per_s, r.attention, r.test) for r in found] for found in
             (as_json, read_runs(lines, print), read_runs(table, print))]  # fmt: skip
    assert kinds[0] == kinds[1] == kinds[2]
    assert (len(as_json), as_json[-1].test, as_json[-1].n_tokens) == (5, "prefill", 512)


def test_what_says_nothing_of_one_device_is_left_out_with_a_word(tmp_path: Path) -> None:
    said: list[str] = []
    odd = (
        {"gpu_info": "NVIDIA A, NVIDIA B"}, {"n_cpu_moe": 4}, {"n_gpu_layers": 12},
        {"n_prompt": 512, "n_gen": 128},
    )  # fmt: skip
    path = written(tmp_path / "odd.json", [RUN, *(RUN | each for each in odd)])
    assert len(read_runs(path, said.append)) == 1
    assert len(said) == 4
    with pytest.raises(UserError, match="no plain run"):
        read_runs(written(tmp_path / "none.json", [RUN | odd[0]]), said.append)


def test_our_own_results_are_read_and_drafts_left_out(model: Path, tmp_path: Path) -> None:
    """Plain decoding of one user counts, of all that `bench` measures."""
    path, said = tmp_path / "own.jsonl", list[str]()
    machine = {"name": "a card", "key": "k", "system": "", "architecture": "", "cores": 8,
               "memory_bytes": 1, "power": "", "devices": [
                   {"backend": "cuda", "name": "NVIDIA GeForce RTX 3090", "bytes": 1},
                   {"backend": "cpu", "name": "a processor", "bytes": 1}]}  # fmt: skip
    environment = {"machine": machine, "engine": {"fingerprint": "f", "features": ""}}
    sample = Sample(prefill_s=0.1, n_prompt=512, decode_s=2.0, n_tokens=128, n_passes=128)
    cases = [
        Case(SessionConfig(model, Settings(spec=spec, gpu_layers=n)), Work(batch=batch))
        for spec, n, batch in (("none", -1, 1), ("lookup", -1, 1), ("none", -1, 4), ("none", 3, 1))
    ]  # fmt: skip
    calm = Circumstances("on mains power", 1.0, 0.0, 0.0)
    record = {"file": model.name, "name": "m", "architecture": "llama", "type": "Q8_0",
              "n_params": 10, "weight_bytes": 11, "digest": "d"}  # fmt: skip
    with Writer.open(path, ResultsHeader("2026-11-29", tuple(cases), 1, 1)) as writer:
        for i, case in enumerate(cases):
            done = Measurement((sample,))
            writer.add(Visited(i, case, False, done, None, calm, None, environment, record))
    runs = read_runs(path, said.append)
    assert [(run.test, run.tokens_per_s) for run in runs] == [("decode", 64.0), ("prefill", 5120.0)]
    assert (runs[0].device, runs[0].backend, runs[0].machine_key) == (
        "NVIDIA GeForce RTX 3090", "cuda", "k",
    )  # fmt: skip
    assert len(said) == 3
    document = written(tmp_path / "own.json", report_document([read_results(path)]))
    again = read_runs(document, said.append)
    assert [replace(run, source="") for run in again] == [replace(run, source="") for run in runs]


@pytest.mark.parametrize("text", ["", "{}", "[1]", "hello", '{"record": 1}', '[{"avg_ts": 1}]'])
def test_what_is_no_result_is_one_sentence(model: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"x\.json"):
        read_runs(path, lambda _: None)


def test_on_the_command_line(model: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "runs.json", rows_of(RUN["gpu_info"], 0.5))
    plot = tmp_path / "p.svg"
    done = localspec(
        "predict", str(model), "--device", "RTX 3090", "--from", str(path), "--json", "--plot",
        str(plot),
    )  # fmt: skip
    assert done.code == 0, done.stderr
    document = json.loads(done.stdout)
    assert [run["is_of_machine"] for run in document["runs"]] == [True] * 4
    assert "4 measured runs" in " ".join(document["notes"])
    assert "rests on 4 measured runs" in plot.read_text()
    missing = localspec("predict", str(model), "--device", "RTX 3090", "--from", "no.json")
    assert (missing.code, missing.stdout) == (2, "")
