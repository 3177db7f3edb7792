"""`quality`: rows of quality, speed and memory, on a small real engine."""

import json
from pathlib import Path

import pytest
from command import folder, localspec, tiny

from localspec.quality.divergence import Divergence, of_cache, of_weights
from localspec.tuning.study import StudyRow, with_front
from localspec.tuning.target import Attention

QUICK = ("--tokens", "200", "--window", "128", "--depth", "64", "--threads", "1")


def row(tps: float, memory_bytes: int, kld: float) -> StudyRow:
    quality = Divergence(100, 10.0, 10.0, kld, 0.0, kld, 1.0)
    return StudyRow("Q4_0", Attention(), quality, tps, 1.0, memory_bytes)


def test_the_front_is_what_nothing_beats_in_all_three() -> None:
    rows = [row(10, 100, 0.0), row(20, 100, 0.01), row(20, 90, 0.02), row(15, 110, 0.03)]
    assert [r.is_front for r in with_front(rows)] == [True, True, True, False]
    twins = with_front([row(10, 100, 0.0), row(10, 100, 0.0)])
    assert all(r.is_front for r in twins), "equals do not beat each other"
    noise = with_front([row(10, 100, -1e-6), row(10, 90, 0.0)])
    assert [r.is_front for r in noise] == [False, True], "nothing diverges by less than nothing"


def test_published_figures_are_named() -> None:
    (pair,) = [p for p in of_cache("q8_0", "q8_0") if "7412" in p.source]
    assert (pair.model, pair.kld) == ("LLaMA 3 8B", 0.00098)
    assert of_weights("q8_0")[0].kld == pytest.approx(0.001355)
    assert of_cache("bf16", "q4_1") == ()


@pytest.mark.engine
def test_the_command_measures_what_it_is_asked(localspec_home: Path) -> None:
    arguments = ("quality", str(tiny()), "--kv", "bf16,q8_0/q4_0", "--weights", "Q8_0", *QUICK)
    document = localspec(*arguments, "--json").document
    names = [(r["weights"], r["kv_k"], r["kv_v"]) for r in document["rows"]]
    assert names == [
        ("F16", "f16", "f16"), ("F16", "bf16", "bf16"), ("F16", "q8_0", "q4_0"),
        ("Q8_0", "f16", "f16"),
    ]  # fmt: skip
    reference, bf16, mixed, weights = document["rows"]
    assert reference["is_reference"]
    assert reference["kld"] < bf16["kld"] < mixed["kld"]
    assert reference["n_tokens"] == 252
    assert weights["memory_bytes"] < reference["memory_bytes"]
    assert mixed["memory_bytes"] < reference["memory_bytes"]
    assert all(r["decode_tps"] > 0 for r in document["rows"])
    assert not list((localspec_home / "cache").glob("quality-*")), "made weights are removed"
    again = localspec(*arguments, "--json").document
    assert again["rows"][2]["kld"] == pytest.approx(mixed["kld"], rel=0.2), "kept reference"
    table = localspec("quality", str(tiny()), "--kv", "q8_0", *QUICK).stdout
    assert "Pareto front" in table
    assert "ppl" in table


@pytest.mark.engine
def test_a_text_and_a_reference_of_the_users(tmp_path: Path) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("A short text of my own, again and again. " * 40)
    run = localspec(
        "quality", str(tiny()), "--text", str(text), "--reference", str(tiny()),
        "--kv", "f16", *QUICK, "--json",
    )  # fmt: skip
    assert json.loads(run.stdout)["text"] == str(text)


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--kv", "q9_9"), "q9_9"),
        (("--text", "/nowhere/text"), "--text"),
        (("--weights", "Q9"), "Q9"),
        (("--tokens", "0"), "--tokens"),
    ],
)
def test_wrong_requests_are_sentences(flags: tuple[str, str], word: str) -> None:
    run = localspec("quality", str(tiny()), "--kv", "f16", *flags)
    assert (run.code, run.stdout) == (2, "")
    assert word in run.stderr.splitlines()[-1]


@pytest.mark.engine
def test_a_window_longer_than_a_micro_batch_is_read_and_one_longer_than_the_text_refused() -> None:
    flags = ("--kv", "f16", "--depth", "64", "--tokens", "300", "--json")
    run = localspec("quality", str(tiny()), "--window", "1200", *flags)
    assert run.document["rows"][0]["n_tokens"] == 599
    text = folder() / "short.txt"
    text.write_text("Hardly a text.")
    run = localspec("quality", str(tiny()), "--text", str(text), *flags)
    assert (run.code, run.stdout) == (2, "")
    assert "--text" in run.stderr.splitlines()[-1]
