"""Files that the first edition wrote are read, and mean what they meant (recorded/first_edition).

Later versions move, rename and merge; what people measured, tuned, pulled and said stays theirs.
"""

import csv
import hashlib
import json
import shutil
from io import StringIO
from math import exp
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from babbling import write_babbling_model
from command import folder, localspec, tiny
from talking import ANSWERS, notes, of_kind, second_talker, talker

from localspec import paths
from localspec.chat.archive import Record
from localspec.chat.conversation import Conversation
from localspec.engine.base import EngineConfig
from localspec.engine.health import engine_health
from localspec.engine.probe import ProbeSetting
from localspec.engine.probe import _kept as kept_probe
from localspec.gguf.reader import fingerprint
from localspec.hardware.machine import hardware_key
from localspec.model.synthetic import Shape
from localspec.quality.divergence import Windows, keep_reference, kept_reference
from localspec.quality.reference import Reference
from localspec.registry.resolve import resolve
from localspec.session.calibration import LearnedStore, calibration_path
from localspec.session.profile import TunedFor

pytestmark = pytest.mark.engine
RECORDED = Path(__file__).parent / "recorded" / "first_edition"
STARTER = "fdf93ab63a31bca1"
"""What the first edition called the starter's file."""
PULLED = Shape(n_layers=1, n_embd=64, n_heads=2, n_kv_heads=1, n_ff=128, n_vocab=320)
TALK, LONG_TALK, STARTER_TALK = (
    f"2026-11-28-{name}" for name in ("214520-742d", "214524-b220", "214527-50b1")
)


def document(name: str) -> Any:
    return json.loads((RECORDED / name).read_text())


def installed(name: str, path: Path, models: Path) -> Path:
    """A recorded text in its place, on a machine whose models are in another folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = (RECORDED / name).read_text()
    path.write_text(text.replace("/models/", f"{models}/"))
    return path


def same(found: Any, wanted: Any) -> None:
    """Equal, numbers to nine digits; what a later version adds is its own affair."""
    if isinstance(wanted, dict):
        for name, value in wanted.items():
            assert name in found
            same(found[name], value)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            same(one, other)
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=1e-9)
    else:
        assert found == wanted


def table(text: str) -> list[dict[str, Any]]:
    """A CSV's rows, with numbers where there are some."""

    def value(cell: str) -> Any:
        try:
            return float(cell)
        except ValueError:
            return cell

    return [
        {name: value(cell) for name, cell in row.items()} for row in csv.DictReader(StringIO(text))
    ]


@pytest.mark.parametrize("name", ["before", "after", "users", "questions"])
def test_report_prints_the_numbers_of_the_day(name: str) -> None:
    run = localspec("report", RECORDED / f"results/{name}.jsonl", "--format", "csv")
    assert run.code == 0, run.stderr
    printed = table((RECORDED / f"printed/{name}.csv").read_text())
    assert printed
    same(table(run.stdout), printed)


def test_a_page_has_several_results() -> None:
    files = [RECORDED / f"results/{name}.jsonl" for name in ("before", "questions")]
    run = localspec("report", *files, "--json")
    assert run.code == 0, run.stderr
    rows = run.document["rows"]
    assert [row["spec"] for row in rows] == ["none"] * 6 + ["lookup", "auto"]
    by_category = {row["name"]: row["acceptance"] for row in rows[-2]["categories"]}
    assert by_category == {"copy": 0.5, "chat": pytest.approx(2 / 3)}


def test_compare_finds_the_ratios_of_the_day() -> None:
    run = localspec(
        "compare", *(RECORDED / f"results/{name}.jsonl" for name in ("before", "after")), "--json"
    )
    assert run.code == 0, run.stderr
    printed = document("printed/compare.json")
    assert len(printed["cases"]) == 8
    for key in ("case", "measure", "ratio", "before_tps", "after_tps", "verdict"):
        same([case[key] for case in run.document["cases"]], [c[key] for c in printed["cases"]])


def test_an_unfinished_bench_can_go_on(tmp_path: Path) -> None:
    whole = (RECORDED / "results/before.jsonl").read_text()
    path = tmp_path / "before.jsonl"
    path.write_text(whole)
    run = localspec("bench", "--resume", "--dry-run", "-o", tmp_path)
    assert run.code == 2, "nothing is missing"
    path.write_text("".join(whole.splitlines(keepends=True)[:-2]))
    run = localspec("bench", "--resume", "--dry-run", "-o", tmp_path)
    assert run.code == 0, run.stderr
    assert len([line for line in run.stdout.splitlines() if "pp32+tg8" in line]) == 4


@pytest.fixture
def talks() -> Path:
    """The conversations, and the scripted models that they were held with."""
    assert {talker().parent, second_talker().parent} == {folder()}
    sessions = paths.data_dir() / "sessions"
    for path in sorted((RECORDED / "sessions").glob("*.jsonl")):
        installed(f"sessions/{path.name}", sessions / path.name, folder())
    return sessions


def going_on(name: str, *lines: str, options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    arguments = ("chat", "--session", name, "--threads", "1", "--json-lines", *options)
    run = localspec(*arguments, stdin="\n".join(lines).encode())
    assert run.code == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def said(found: list[dict[str, Any]]) -> str:
    return "".join(event["text"] for event in of_kind("text", found))


def test_a_conversation_goes_on_with_its_turns_and_settings(talks: Path, tmp_path: Path) -> None:
    exported = tmp_path / "talk.json"
    asked = ("/system", "/temp", "/seed", "/model", "/spec", f"/export {exported}")
    run = localspec("chat", "--session", "first edition", stdin="\n".join(asked).encode())
    assert run.code == 0, run.stderr
    assert "3 turns of first edition" in notes(run)[0]
    assert notes(run)[1:4] == ["system prompt: Be brief.", "temperature: 0.5", "seed: 10"]
    assert notes(run)[4] == f"model: {second_talker()}"
    assert notes(run)[5].startswith("speculation: lookup")
    messages = json.loads(exported.read_text())["messages"]
    assert [message["content"] for message in messages] == [
        "Be brief.",
        "Tell me a", ANSWERS["a"],
        "what do you think of it t", "It is forty-two.",
        "Again: a", "Aleph, in my opinion.",
    ]  # fmt: skip
    assert messages[4]["thought"] == "First I wonder.\nThen I am sure of it."


def test_what_was_undone_and_asked_again_is_kept(talks: Path) -> None:
    events = Record(talks / f"{TALK}.jsonl").events()
    assert len(events) == 18, "every line but the first"
    conversation = Conversation.of(events)
    assert (conversation.name, conversation.n_retries) == ("first edition", 1)
    assert conversation.settings == {
        "model": str(second_talker()), "draft": "auto", "temp": 0.5, "seed": 9, "spec": "lookup",
    }  # fmt: skip
    last = conversation.turns[-1].answer
    assert last
    assert last.tokens == (262, 263, 264, 265, 266)
    assert last.figures["tokens_per_pass"] == 2.5


def test_a_real_conversation_goes_on_from_the_tokens_that_were_said(talks: Path) -> None:
    """The prompt is two turns, their answers as they were said, and this question."""
    found = going_on(STARTER_TALK, "Why?", options=("-n", "3", "--temp", "0"))
    answer = of_kind("answer", found)[0]
    assert answer["n_prompt"] == 126
    kept = Conversation.of(Record(talks / f"{STARTER_TALK}.jsonl").events())
    assert kept.turns[1].answer
    assert kept.turns[1].answer.finish_reason == "length"
    assert kept.turns[1].answer.figures["decode_tps"] == pytest.approx(23.984898532250245)
    assert len(kept.turns) == 3


def test_a_saved_cache_is_made_again(talks: Path) -> None:
    """It is named after the engine and what it was set to, so a chat of today tells the name."""
    going_on(LONG_TALK, "tell b", options=("--temp", "0"))
    state = next((paths.cache_dir() / "conversations").glob(f"{LONG_TALK}.*"))
    installed(f"sessions/{LONG_TALK}.jsonl", talks / f"{LONG_TALK}.jsonl", folder())
    shutil.copy(RECORDED / f"sessions/{LONG_TALK}.state", state)
    found = going_on(LONG_TALK, "tell a", options=("--temp", "0"))
    assert of_kind("loaded", found)[0]["n_restored"] == 0, "it has no checkpoint, so it is not held"
    answer = of_kind("answer", found)[0]
    assert answer["n_prompt"] < 170, "the model no longer sees the first turn"
    assert answer["n_evaluated"] == answer["n_prompt"], "once, and then it is saved as today"
    assert said(found) == ANSWERS["a"]


def installed_profile(**changes: object) -> Path:
    """The last of the recorded profiles is for this machine as it is now, but for `changes`."""
    kept = document(f"profiles/{STARTER}.json")
    now = TunedFor.now()
    here = {"engine": now.engine, "power": now.power, "memory_bytes": now.memory_bytes}
    kept["profiles"][-1]["circumstances"] = here | changes
    path = paths.data_dir() / "profiles" / f"{STARTER}-{hardware_key()}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(kept))
    return path


def test_a_tuned_profile_is_found_and_shown() -> None:
    assert fingerprint(resolve("starter")) == STARTER
    installed_profile()
    run = localspec("tune", "starter", "--show", "--json")
    assert run.code == 0, run.stderr
    recorded = document(f"profiles/{STARTER}.json")["profiles"][-1]
    same(run.document["settings"], recorded["settings"])
    same(run.document["ratio"], {"low": 1.21, "mid": 1.25, "high": 1.29})
    assert (run.document["kld"], run.document["seconds"]) == (0.0031, 18.7)


def test_its_settings_are_applied() -> None:
    installed_profile()
    run = localspec("generate", "starter", "-p", "Hello", "-n", "2", "--kv-v", "f16", "--json")
    assert run.code == 0, run.stderr
    assert "tuned 2026-11-28" in run.stderr
    config = run.document["config"]
    assert (config["kv_k"], config["kv_v"], config["flash_attn"]) == ("q8_0", "f16", "on")
    assert (config["threads"], config["spec"], config["draft_max"]) == (1, "lookup", 4)
    assert config["extra_buffers"] is False


def test_a_profile_of_another_engine_build_is_a_line() -> None:
    installed_profile(engine="e205c79c5f2b5241x")
    run = localspec("generate", "starter", "-p", "Hello", "-n", "2", "--json")
    assert "was tuned with another engine build" in run.stderr
    assert run.document["config"]["kv_k"] == "f16"


@pytest.fixture
def hub_cache(tmp_path: Path) -> Path:
    """The hub's cache with the model that was pulled and a quarter of the one that was cut off."""
    files = {Path(file["file"]).name: file for file in document("models.lock.json")["files"]}
    house, large = (
        tmp_path / files[n]["path"].removeprefix("/models/") for n in sorted(files)[::-1]
    )
    house.parent.mkdir(parents=True)
    write_babbling_model(house, PULLED)
    digest = hashlib.sha256(house.read_bytes()).hexdigest()
    assert digest == files["model-F16.gguf"]["sha256"], "this random model is another one"
    refs = house.parents[2] / "refs"
    refs.mkdir()
    (refs / "main").write_text(house.parent.name)
    part = tmp_path / files[large.name]["partial"].removeprefix("/models/")
    part.parent.mkdir(parents=True)
    with part.open("wb") as file:
        file.truncate(files[large.name]["n_bytes"] // 4)
    installed("models.lock.json", paths.data_dir() / "models.lock.json", tmp_path)
    installed("models.toml", paths.config_dir() / "models.toml", tmp_path)
    used = {str(house): document("last-used.json")["/models/talker.gguf"]}
    (paths.data_dir() / "last-used.json").write_text(json.dumps(used))
    return tmp_path


def test_what_was_pulled_is_listed(hub_cache: Path) -> None:
    run = localspec("list", "--json", HF_HOME=str(hub_cache))
    assert run.code == 0, run.stderr
    rows = {row["name"]: row for row in run.document["models"]}
    same(
        rows["house"],
        {
            "origin": "pulled", "bytes": 122_048, "quantization": "F16", "context": 2048,
            "draft": "starter", "last_used": "2026-11-28T21:45:25+00:00", "problem": None,
        },
    )  # fmt: skip
    assert Path(rows["house"]["path"]).is_relative_to(hub_cache)
    unfinished = rows["hf:owner/large-GGUF/large-F16.gguf"]
    assert (unfinished["origin"], unfinished["bytes"]) == ("unfinished", 1_618_176)
    assert "25 %" in unfinished["problem"]


def test_what_was_pulled_is_verified_and_removed(hub_cache: Path) -> None:
    run = localspec("verify", "house", "--json", HF_HOME=str(hub_cache))
    assert run.code == 0, run.stderr
    assert [file["state"] for file in run.document["files"]] == ["whole"]
    path = Path(run.document["files"][0]["path"])
    with path.open("r+b") as file:
        file.seek(60_000)
        file.write(b"damage")
    assert localspec("verify", "house", HF_HOME=str(hub_cache)).code == 1
    assert localspec("remove", "house", "--yes", HF_HOME=str(hub_cache)).code == 0
    assert not path.exists()


def test_the_users_own_models_are_known(hub_cache: Path) -> None:
    run = localspec("list", "--known", "--json", HF_HOME=str(hub_cache))
    assert run.code == 0, run.stderr
    house = next(entry for entry in run.document["models"] if entry["name"] == "house")
    same(
        house,
        {
            "repository": "owner/repo-GGUF", "file": "model-F16.gguf", "draft": "starter",
            "kv_k": "q8_0", "aliases": ["our-model"], "verified": True,
        },
    )  # fmt: skip


def test_the_verdict_on_the_engine_is_not_asked_for_again() -> None:
    kept = next((paths.cache_dir() / "engine-health").glob("*.json"))
    shutil.copy(RECORDED / "engine-health.json", kept)
    health = engine_health(lambda message: pytest.fail(message))
    assert health.errors == document("engine-health.json")["errors"]
    assert health.can_repack


def test_a_prediction_is_made_from_the_kept_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """How threads wait for each other is part of its name."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    monkeypatch.setenv("GOMP_SPINCOUNT", "1000")
    path = kept_probe(ProbeSetting(n_threads=2, n_gpu_layers=0, repack=True)).path
    path.parent.mkdir()
    # A disturbed one would be measured again on a calm machine.
    path.write_text(json.dumps(document("probe.json") | {"others_share": 0.0}))
    run = localspec("predict", "starter", "--threads", "2", "--gpu-layers", "0", "--json")
    assert (run.code, run.stderr) == (0, ""), "nothing is measured"
    printed = document("printed/predict.json")
    assert run.document["device"]["rates"] == printed["rates"]
    rows = run.document["rows"][: len(printed["rows"])]
    for row in rows:  # which counted neither the program nor a second copy of the weights
        row["memory_bytes"] -= row["memory"]["program_bytes"] + row["memory"]["repacked_bytes"]
    same(rows, printed["rows"])


def engine_config(name: str, folder: Path) -> EngineConfig:
    path = folder / name
    path.touch()
    return EngineConfig.of(path, ctx=256, threads=1)


def test_costs_and_acceptance_of_a_pair_are_remembered(tmp_path: Path) -> None:
    """Half of what was seen of acceptance still counts. There is no engine that could measure."""
    target, draft = engine_config("f16.gguf", tmp_path), engine_config("q4_0.gguf", tmp_path)
    shutil.copy(RECORDED / "calibration.json", calibration_path(target, draft))
    pair: list[Any] = [SimpleNamespace(config=config) for config in (target, draft)]
    plan: Any = SimpleNamespace(facts=None, max_draft=16)
    learned = LearnedStore(plan, *pair).load()
    assert learned.target.seconds(1, 100) == pytest.approx(0.010938839482006052)
    assert learned.target.seconds(4, 0) / learned.target.seconds(1, 0) == pytest.approx(
        0.02507416149039878 / 0.010938839482006052
    )
    assert learned.target.change_s == pytest.approx(5.148844371064102e-05)
    draft_s = 0.005962742788825776 + 256 * 1.5318694873907093e-05
    assert learned.drafting["model"].seconds(1, 256) == pytest.approx(draft_s)
    lookup = learned.chances("greedy", "lookup").counts()
    assert lookup["any"] == pytest.approx([3.498041929186204 / 2, 11.825136776624346 / 2])


def test_a_kept_quality_reference_has_the_perplexity_of_the_day() -> None:
    windows = Windows(np.zeros((1, 32), np.int32))
    recorded = Reference.load(RECORDED / "quality.npz", windows.n_windows)
    assert recorded
    assert exp(recorded.nll.mean()) == pytest.approx(498.0240701671292)
    keep_reference(recorded, tiny(), windows)
    kept = next((paths.cache_dir() / "quality").iterdir())
    shutil.copy(RECORDED / "quality.npz", kept)
    found = kept_reference(tiny(), windows)
    assert found
    np.testing.assert_array_equal(found.windows[0].ids, recorded.windows[0].ids)
    assert found.windows[0].log_p.shape == (15, 320)
