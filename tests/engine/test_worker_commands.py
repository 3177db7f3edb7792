"""Commands on another machine's device, on loopback, with no layer there, with some and with all.

What a worker computes is held against the processor in test_workers.py. Here the commands that
measure and predict find it, and each says how many layers were there.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from command import localspec
from working import Running, free_port

from localspec.model.synthetic import Shape, write_random_model

SHAPE = Shape(n_layers=12, n_embd=256, n_heads=4, n_kv_heads=2, n_ff=512, n_vocab=512)
LAYERS = ("0", "1", "10", "all")


@pytest.fixture(scope="module")
def worker() -> Iterator[str]:
    running = Running(free_port())
    yield running.address
    running.kill()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("models") / "random.gguf"
    write_random_model(path, SHAPE, "Q8_0", with_text=True)
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
