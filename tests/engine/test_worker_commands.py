"""Commands on another machine's device, on loopback, with no layer there, with some and with all.

What a worker computes is held against the processor in test_workers.py. Here the commands that
measure and predict find it, and each says how many layers were there.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from babbling import write_babbling_model
from command import ANSWER, clean_environment, localspec
from working import Running, free_port

from localspec.model.synthetic import Shape

SHAPE = Shape(n_layers=12, n_embd=256, n_heads=4, n_kv_heads=2, n_ff=512, n_vocab=512)
LAYERS = ("0", "1", "10", "all")


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    running = Running(free_port())
    yield running.address
    running.kill()


@pytest.fixture(scope="module")
def second() -> Iterator[str]:
    running = Running(free_port())
    yield running.address
    running.kill()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("models") / "random.gguf"
    write_babbling_model(path, SHAPE, "Q8_0")
    return str(path)


def test_a_prediction_places_layers_on_both_sides(model: str, worker: str) -> None:
    """From a probe of the worker and one of the processor. The output matrix goes first."""
    asked = ("predict", model, "--workers", worker, "--threads", "1", "--ctx", "512", "--json")
    there: list[int | None] = []
    for n in LAYERS:
        document = localspec(*asked, "--gpu-layers", n).document
        assert document["rows"][0]["token_s"] > 0
        devices = document["devices"] or []
        found = [each["n_layers"] for each in devices if each["name"] == worker]
        there.append(found[0] if found else None)
        assert not devices or sum(each["n_layers"] for each in devices) == SHAPE.n_layers
    assert there == [None, 0, 9, SHAPE.n_layers]


def test_a_bench_sweeps_the_layers(model: str, worker: str) -> None:
    run = localspec("bench", model, "--workers", worker, "--gpu-layers", "0,1,10,-1", "-p", "16",
                    "-n", "8", "--rounds", "1", "-r", "1", "--threads", "1", "--probe", "off",
                    "--json")  # fmt: skip
    assert run.code == 0, run.stderr
    rows = run.document["rows"]
    assert {row["gpu_layers"] for row in rows} == {0, 1, 10, -1}
    assert all(row["decode_tps"] > 0 for row in rows)


SEARCH = """
import json, sys
from pathlib import Path
from localspec.session.session_config import SessionConfig
from localspec.tuning.search import tune_model
from localspec.tuning.target import Goal

model, worker, n_layers = sys.argv[1:]
config = SessionConfig.of(
    Path(model), ctx=512, threads=1, workers=(worker,), gpu_layers=int(n_layers), draft="none"
)
found = tune_model(config, Goal(), 6).outcome
settings = [trial.setting for trial in found.tried]
print(json.dumps({
    "tried": [(each.kv_k, each.kv_v) for each in settings],
    "layers": [each.gpu_layers for each in settings],
    "excluded": list(found.excluded.values()),
}))
"""
"""In a process of its own: a worker that is gone ends every process that knew it."""


@pytest.mark.parametrize("n_layers", [0, 1, 10, -1])
def test_a_search_ends_with_settings_that_can_be_used_there(
    model: str, worker: str, n_layers: int
) -> None:
    """It compares caches on one set of weights. Drafts would need several at a time."""
    run = subprocess.run(
        [sys.executable, "-c", SEARCH, model, worker, str(n_layers)],
        env=clean_environment(), capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    tried = {(k, v) for k, v in found["tried"]}
    assert set(found["layers"]) <= {n_layers}
    if n_layers:
        assert tried >= {("q8_0", "q8_0"), ("q4_0", "q4_0")}
        assert all(k == v for k, v in tried)
        assert "q8_0 keys with q4_0 values can end a worker" in found["excluded"]


def test_the_command_tunes_on_a_worker(model: str, worker: str) -> None:
    run = localspec("tune", model, "--workers", worker, "--quick", "--draft", "none")
    assert run.code == 0, run.stderr
    assert "a worker serves one at a time" in " ".join(run.stdout.split())


@pytest.mark.parametrize("n_layers", LAYERS)
def test_a_draft_model_on_one_worker_drafts_for_layers_on_another(
    model: str, worker: str, second: str, n_layers: str
) -> None:
    asked = ("generate", model, *ANSWER, "-p", "Count to ten.", "-n", "16", "--no-repack",
             "--ctx", "256", "--raw", "--json")  # fmt: skip
    plain = localspec(*asked, "--spec", "none", "--gpu-layers", "0").document
    far = localspec(
        *asked, "--spec", "draft", "--draft", model, "--draft-device", second,
        "--workers", worker, "--gpu-layers", n_layers,
    )  # fmt: skip
    assert far.code == 0, far.stderr
    assert far.document["text"] == plain["text"]
    assert far.document["config"]["draft_device"] == second
