"""Settings for other engines: their own flags, and what they cannot do said aloud."""

import inspect
import json
import os
import re
import shlex
from pathlib import Path

import pytest
from command import localspec, tiny
from head_files import assistant, dflash, dspark, eagle3, mtp

from localspec.export import TARGETS, servers
from localspec.export.llama_cpp import SERVER_HEADS
from localspec.session.session_config import SessionConfig

MODEL, DRAFT = Path("/models/target.gguf"), Path("/models/a draft.gguf")


def config(**changes: object) -> SessionConfig:
    values = {"ctx": 2048, "threads": 2, "threads_batch": 4, "spec": "none"}
    return SessionConfig.of(MODEL, **(values | changes))


def flags(text: str) -> dict[str, str]:
    words = shlex.split(text.replace("\\\n", " "))[1:]
    pairs = zip(words, [*words[1:], ""], strict=True)
    return {a: "" if b.startswith("--") else b for a, b in pairs if a.startswith("--")}


def test_llama_server_gets_current_flags() -> None:
    """`--model-draft` alone drafts nothing, and `--draft-max` is refused (llama.cpp PR 23988)."""
    tuned = config(kv_k="q8_0", kv_v="bf16", flash_attn="on", draft=DRAFT, spec="auto")
    found = flags(TARGETS["llama-server"](tuned).text)
    assert found["--spec-type"] == "draft-simple"
    assert found["--spec-draft-model"] == str(DRAFT)
    assert found["--spec-draft-n-max"] == "3"
    assert (found["--cache-type-k"], found["--cache-type-v"]) == ("q8_0", "bf16")
    assert (found["--threads"], found["--threads-batch"]) == ("2", "4")
    assert "--draft-max" not in found
    assert "--spec-type" not in flags(TARGETS["llama-server"](config()).text)
    look_up = flags(TARGETS["llama-server"](config(spec="lookup", draft_max=5)).text)
    assert look_up["--spec-type"] == "ngram-simple"
    assert look_up["--spec-ngram-simple-size-m"] == "5"


def test_a_proxy_starts_the_server_or_knows_one_on_each_machine() -> None:
    workers = ("10.0.0.7:50052=8GB", "box")
    swap = TARGETS["llama-swap"](config(workers=workers)).text
    assert "llama-server --port ${PORT}" in swap
    assert "--rpc 10.0.0.7:50052,box:50052" in swap
    assert "\\" not in swap, "a block of YAML needs no backslashes"
    several = TARGETS["litellm"](config(workers=workers))
    bases = re.findall(r'api_base: "(.*)"', several.text)
    assert bases == [f"http://{host}:8080/v1" for host in ("127.0.0.1", "10.0.0.7", "box")]
    assert "--rpc" not in several.text, "each machine has all of the model"


def test_shares_of_devices_are_written() -> None:
    found = flags(TARGETS["llama-server"](config(device=("A", "B"), shares=("3", "1"))).text)
    assert (found["--device"], found["--tensor-split"]) == ("A,B", "3,1")


def test_servers_for_several_gpus_use_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "graphics", lambda names: ["one", "two"])
    assert flags(TARGETS["vllm"](config()).text)["--tensor-parallel-size"] == "2"
    assert flags(TARGETS["sglang"](config()).text)["--tp-size"] == "2"
    alone = config(gpu_layers=0)
    assert "--tensor-parallel-size" not in flags(TARGETS["vllm"](alone).text)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("spec", ["none", "lookup", "draft"])
def test_every_target_carries_the_context_and_says_what_it_cannot(name: str, spec: str) -> None:
    tuned = config(kv_k="q8_0", kv_v="q4_0", spec=spec, draft=DRAFT if spec == "draft" else None)
    exported = TARGETS[name](tuned)
    assert "2048" in exported.text
    assert all(clause[0].islower() and not clause.endswith(".") for clause in exported.cannot)
    if name not in ("llama-server", "llama-cpp-python", "lm-studio", "llama-swap", "litellm"):
        assert any("q8_0" in c or "different types" in c for c in exported.cannot)
    if spec != "none":
        assert any("draft" in clause for clause in exported.cannot)


HEADS = {"mtp": mtp(), "assistant": assistant(), "eagle3": eagle3(), "dflash": dflash(),
         "dspark": dspark()}  # fmt: skip


def with_head(folder: Path, kind: str) -> SessionConfig:
    if kind == "own":
        return config(spec="auto").with_settings(draft="own")
    return config(spec="auto", draft=HEADS[kind].write(folder / "head.gguf"))


@pytest.mark.parametrize(
    ("kind", "server", "vllm", "sglang"),
    [
        ("own", "draft-mtp", "mtp", "NEXTN"),
        ("mtp", "draft-mtp", "mtp", "NEXTN"),
        ("assistant", "draft-mtp", "mtp", None),
        ("eagle3", "draft-eagle3", "eagle3", "EAGLE3"),
        ("dflash", "draft-dflash", "dflash", "DFLASH"),
        ("dspark", "draft-dspark", "dspark", None),
    ],
)
def test_each_kind_of_head_by_the_name_it_has_there(
    tmp_path: Path, kind: str, server: str, vllm: str, sglang: str | None
) -> None:
    """A head inside the model's file has no file of its own to name."""
    tuned = with_head(tmp_path, kind)
    found = flags(TARGETS["llama-server"](tuned).text)
    path = None if kind == "own" else str(tmp_path / "head.gguf")
    assert (found["--spec-type"], found.get("--spec-draft-model")) == (server, path)
    assert found["--spec-draft-n-max"] == "3"
    chosen = json.loads(flags(TARGETS["vllm"](tuned).text)["--speculative-config"])
    assert (chosen["method"], "model" in chosen) == (vllm, kind != "own")
    exported = TARGETS["sglang"](tuned)
    assert flags(exported.text).get("--speculative-algorithm") == sglang
    assert any("draft with a head" in clause for clause in exported.cannot) == (sglang is None)


@pytest.mark.parametrize("kind", ["own", *HEADS])
def test_ollama_drafts_with_some(tmp_path: Path, kind: str) -> None:
    exported = TARGETS["ollama"](with_head(tmp_path, kind))
    is_known = kind in ("own", "mtp", "assistant", "dflash")
    assert ("PARAMETER draft_num_predict 3" in exported.text) == is_known
    assert (f"DRAFT {tmp_path / 'head.gguf'}" in exported.text) == (is_known and kind != "own")
    assert any("(only MTP and DFlash)" in clause for clause in exported.cannot) == (not is_known)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", ["own", *HEADS])
def test_no_engine_takes_a_head_for_a_draft_model(tmp_path: Path, name: str, kind: str) -> None:
    exported = TARGETS[name](with_head(tmp_path, kind))
    assert "draft-simple" not in exported.text
    assert "draft_model" not in exported.text
    assert "STANDALONE" not in exported.text
    assert any("draft" in clause for clause in exported.cannot)


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("kind", ["own", *HEADS])
def test_who_drafts_nothing_is_not_said_to_draft_a_fixed_length(
    tmp_path: Path, name: str, kind: str
) -> None:
    """An engine either lacks the kind of head or cannot adapt to it: one clause says which."""
    cannot = TARGETS[name](with_head(tmp_path, kind)).cannot
    assert sum("adapt" in clause or "head" in clause for clause in cannot) == 1


def test_the_server_knows_these_kinds() -> None:
    folder = Path(os.environ.get("LOCALSPEC_LLAMA_CPP", "/nowhere"))
    if not folder.exists():
        pytest.skip("LOCALSPEC_LLAMA_CPP does not name llama.cpp's source")
    source = (folder / "common/speculative.cpp").read_text()
    assert all(f'{{"{name}",' in source for name in SERVER_HEADS.values())


@pytest.mark.engine
@pytest.mark.parametrize("spec", ["none", "lookup"])
def test_the_python_program_names_real_arguments(spec: str) -> None:
    import llama_cpp

    text = TARGETS["llama-cpp-python"](config(kv_k="q8_0", kv_v="bf16", spec=spec)).text
    compile(text, "exported.py", "exec")
    known = inspect.signature(llama_cpp.Llama.__init__).parameters
    assert set(re.findall(r"^    (\w+)=", text, re.M)) <= set(known)
    assert f"type_k={llama_cpp.GGML_TYPE_Q8_0},  # q8_0" in text


@pytest.mark.parametrize(
    ("kv", "kind"),
    [
        (("f16", "f16"), "f16"), (("q8_0", "q8_0"), "q8_0"), (("q4_0", "q4_0"), "q4_0"),
        (("bf16", "bf16"), "f16"), (("q8_0", "q4_0"), "q8_0"), (("f16", "q4_0"), "f16"),
        (("q5_1", "q5_1"), "q8_0"),
    ],
)  # fmt: skip
def test_ollama_gets_a_type_that_is_not_coarser(kv: tuple[str, str], kind: str) -> None:
    text = TARGETS["ollama"](config(kv_k=kv[0], kv_v=kv[1])).text
    assert f"OLLAMA_KV_CACHE_TYPE={kind}" in text
    assert f"FROM {MODEL}" in text


def test_lm_studio_gets_json_and_transformers_gets_python() -> None:
    document = json.loads(TARGETS["lm-studio"](config(kv_k="q8_0")).text)
    assert document["load"]["llamaKCacheQuantizationType"] == "q8_0"
    for spec in ("none", "lookup", "draft"):
        draft = DRAFT if spec == "draft" else None
        compile(TARGETS["transformers"](config(spec=spec, draft=draft)).text, "x.py", "exec")


def test_the_command_prints_the_text_alone() -> None:
    run = localspec("export", str(tiny()), "--to", "llama-server", "--kv-k", "q8_0")
    assert run.code == 0
    assert flags(run.stdout)["--cache-type-k"] == "q8_0"
    assert "cannot" in run.stderr
    document = localspec("export", str(tiny()), "--to", "ollama", "--json").document
    assert set(document) == {"to", "text", "cannot", "notes"}
    assert localspec("export", str(tiny()), "--to", "nobody").code == 2
