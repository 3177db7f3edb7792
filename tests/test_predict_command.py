"""`localspec predict` as people use it."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from babbling import write_babbling_model
from command import Run, localspec

from localspec.model.synthetic import Shape


def predict(*arguments: str, columns: int = 80) -> Run:
    return localspec("predict", *arguments, COLUMNS=str(columns), NO_COLOR="1", HF_HUB_OFFLINE="")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("models") / "model.gguf"
    write_babbling_model(path, Shape(n_ctx=8192), "Q8_0")
    return str(path)


def test_a_machine_that_is_not_here(model: str) -> None:
    done = predict(
        model, "--device", "RTX 4090", "--depth", "0,4096", "--kv-k", "q8_0,f16", "--json"
    )
    document = json.loads(done.stdout)
    assert done.code == 0
    assert document["device"]["name"] == "NVIDIA GeForce RTX 4090"
    assert document["device"]["bandwidth_bytes_per_s"] == pytest.approx(1008e9)
    assert document["device"]["source"]
    assert [(r["kv_k"], r["kv_v"], r["depth"]) for r in document["rows"]] == [
        ("q8_0", "f16", 0), ("q8_0", "f16", 4096), ("f16", "f16", 0), ("f16", "f16", 4096),
    ]  # fmt: skip
    for row in document["rows"]:
        tps = row["decode_tps"]
        assert tps["low"] < tps["mid"] < tps["high"]
        assert row["prefill_tps"] > 0
        assert row["ttft_s"] > 0
        assert row["memory_bytes"] > 0
        assert row["bound"]
    assert document["speculation"] is None


def test_speed_up_by_draft_length(model: str) -> None:
    done = predict(
        model, "--device", "RTX 3090", "--draft", model, "--accept", ".5,.9", "--batch", "1,8",
        "--depth", "0", "--json",
    )  # fmt: skip
    rows = json.loads(done.stdout)["speculation"]["rows"]
    assert [row["batch"] for row in rows] == [1, 8]
    for row in rows:
        assert row["draft_cost"] == pytest.approx(1.0)
        needed = row["break_even_acceptance"]  # a draft as slow as its target
        assert needed is None or needed > 0.95
        assert [gain["n_draft"] for gain in row["best"]] == [0, 0]
        assert row["by_length"][0]["speedup"].keys() == {"0.5", "0.9"}


def test_the_narrowest_terminal_gets_a_table(model: str) -> None:
    done = predict(model, "--device", "RTX 4090", columns=24)
    assert (done.code, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 24


@pytest.mark.engine
def test_this_machine(model: str) -> None:
    done = predict(model, "--threads", "1", "--kv-k", "f16", "--depth", "0,100")
    assert done.code == 0, done.stderr
    assert "tok/s" in done.stdout
    assert "a probe of this machine" in " ".join(done.stdout.split())
    assert "measuring" in done.stderr
    split = [
        predict(
            model, "--threads", "1", "--kv-k", "f16", "--depth", "0", "--device", "RTX 4090",
            "--gpu-layers", n, "--json",
        )
        for n in ("0", "2", "99")
    ]  # fmt: skip
    speeds = [json.loads(run.stdout)["rows"][0]["decode_tps"]["mid"] for run in split]
    assert len(set(speeds)) == 3  # a tiny model's launches cost more there than its weights here
    # Beside other programs the first probe is replaced as soon as the machine is calm.
    assert "other programs" in done.stderr + split[0].stderr or "measuring" not in split[0].stderr


def test_batches_go_as_far_as_they_are_worth_it(model: str) -> None:
    done = predict(model, "--device", "RTX 3090", "--batch", "auto", "--depth", "0", "--json")
    document = json.loads(done.stdout)
    batches = list(dict.fromkeys(row["batch"] for row in document["rows"]))
    assert batches[0] == 1
    assert batches[-1] == document["break_even_batch"]
    for row in document["rows"]:
        assert row["token_s"] == pytest.approx(row["batch"] / row["decode_tps"]["mid"])


@pytest.mark.parametrize("columns", [50, 60, 80, 120])
def test_the_least_important_columns_go_first(model: str, columns: int) -> None:
    done = predict(model, "--device", "Apple M4 Max", "--batch", "1,64", columns=columns)
    assert "…" not in done.stdout
    assert "decode tok/s" in done.stdout
    assert ("latency" in done.stdout) == (columns > 50)
    assert ("first" in done.stdout) == (columns == 120)


def test_a_draft_of_another_family_is_refused(model: str) -> None:
    """Its tokens mean something else, so every number would be wrong."""
    done = predict(model, "--draft", "starter", "--device", "RTX 4090")
    assert (done.code, done.stdout) == (2, "")
    assert "cannot draft for" in done.stderr


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_tables_fit_the_terminal(model: str, columns: int) -> None:
    done = predict(model, "--device", "Apple M4 Max", "--quants", columns=columns)
    assert done.code == 0, done.stderr
    assert all(len(line) <= columns for line in done.stdout.splitlines())
    assert "Q4_K_M" in done.stdout
    assert "…" not in done.stdout


def test_a_picture(model: str, tmp_path: Path) -> None:
    path = tmp_path / "gain.svg"
    done = predict(
        model, "--device", "RTX 4090", "--draft", model, "--plot", str(path),
        "--depth", "0,100", "--batch", "1,8", "--accept", ".5,.9",
    )  # fmt: skip
    assert done.code == 0, done.stderr
    picture = ElementTree.parse(path).getroot()
    texts = [element.text or "" for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "drafts for" in texts[0]
    assert {"depth 0, batch 1", "depth 100, batch 8", "times plain speed"} <= set(texts)
    assert len([text for text in texts if "accepted" in text]) == 8
    assert "var(" not in path.read_text(), "the colours are in it"


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        (["--device", "h100"], "NVIDIA H100 SXM5 80 GB", 2),
        (["--device", "RTX 4091"], "did you mean", 2),
        (["--device", "toaster"], "add the bandwidth of its memory", 2),
        (["--device", "RTX 4090", "--depth", "1,x"], "--depth 'x' is no number", 2),
        (["--device", "RTX 4090", "--depth", ""], "--depth ''", 2),
        (["--device", "RTX 4090", "--batch", "0"], "--batch '0'", 2),
        (["--device", "RTX 4090", "--accept", "1.5"], "--accept '1.5'", 2),
        (["--device", "RTX 4090", "--depth", "9999"], "beyond the 8,192 tokens", 2),
        (["--device", "RTX 4090", "--kv-k", "q3_z"], "q3_z", 2),
        (["--device", "RTX 4090", "--kv-v", "q8_0", "--flash-attn", "off"], "flash attention", 2),
        (["--device", "RTX 4090", "--plot", "x.png"], "end it in .svg", 2),
        (["--device", "RTX 4090", "--plot", "/no/such/x.svg"], "cannot be written", 2),
        (["--probe", "off"], "--device", 1),
    ],
)
def test_what_is_wrong_is_one_sentence(
    model: str, arguments: list[str], sentence: str, code: int
) -> None:
    done = predict(model, *arguments)
    assert (done.code, done.stdout) == (code, "")
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_model_that_is_nowhere() -> None:
    done = predict("http://127.0.0.1:9/model.gguf", "--device", "RTX 4090")
    assert done.code == 1
    assert "cannot be read" in done.stderr
