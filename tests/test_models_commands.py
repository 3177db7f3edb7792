"""`list`, `verify`, `remove`, completion: what is here, whether it is whole, giving it back."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pexpect
import pytest
from babbling import write_babbling_model
from command import LOCALSPEC, Run, assert_refused, clean_environment, localspec
from hub import Hub

from localspec.model.synthetic import Shape
from localspec.registry.pull import BLOCK_BYTES

pytestmark = pytest.mark.slow
"""Each command asks a hub on loopback, in a process of its own."""

REPO, FILE = "owner/repo-GGUF", "model-F16.gguf"
NAME = f"hf:{REPO}/{FILE}"
TINY = Shape(n_layers=1, n_embd=64, n_heads=2, n_kv_heads=1, n_ff=128, n_vocab=320)
LARGE = replace(TINY, n_layers=8, n_embd=512, n_heads=8, n_kv_heads=4, n_ff=1536)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    write_babbling_model(path, TINY)
    return path.read_bytes()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    write_babbling_model(path, LARGE)
    assert path.stat().st_size > 6 * BLOCK_BYTES
    return path.read_bytes()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Other programs keep their models below the user's home."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("OLLAMA_MODELS", "LLAMA_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture
def command(hub: Hub, home: Path) -> Callable[..., Run]:
    def run(*arguments: str, **more: str) -> Run:
        return localspec(*arguments, **(hub.environment(home / "hf") | more))

    return run


def pulled_path(command: Callable[..., Run], name: str = NAME) -> Path:
    run = command("pull", name, "--json")
    assert run.code == 0, run.stderr
    return Path(run.document["files"][0]["path"])


def rows(command: Callable[..., Run], *arguments: str) -> dict[str, dict[str, Any]]:
    run = command("list", "--json", *arguments)
    assert run.code == 0, run.stderr
    return {row["name"]: row for row in run.document["models"]}


# --- verify ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_flipped_bit_is_found_named_and_mended(
    hub: Hub, command: Callable[..., Run], large: bytes
) -> None:
    """One block of 4 MiB is fetched for it, not the model."""
    hub.add(REPO, FILE, large)
    path = pulled_path(command)
    at = 5 * BLOCK_BYTES + 12_345
    flip(path, at)
    run = command("verify", "--json", HF_HUB_OFFLINE="1")
    assert run.code == 1
    (file,) = run.document["files"]
    assert (file["state"], file["path"]) == ("damaged", str(path))
    (damage,) = file["damage"]
    assert damage["begin"] <= at < damage["end"] == damage["begin"] + BLOCK_BYTES
    assert damage["tensors"]
    shown = command("verify", NAME)
    assert shown.code == 1
    assert NAME in shown.stdout
    assert damage["tensors"][0] in shown.stdout
    n_sent = hub.n_stored_sent
    mended = command("verify", "--repair")
    assert mended.code == 0, mended.stderr
    assert "whole again" in mended.stdout
    assert path.read_bytes() == large
    assert hub.n_stored_sent - n_sent == BLOCK_BYTES
    assert command("verify", HF_HUB_OFFLINE="1").code == 0


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_what_is_cut_or_gone_is_fetched_again(
    hub: Hub, command: Callable[..., Run], tiny: bytes
) -> None:
    hub.add(REPO, FILE, tiny)
    path = pulled_path(command)
    os.truncate(path, len(tiny) // 2)
    assert "damaged" in command("verify").stdout
    assert command("verify", "--repair").code == 0
    assert path.read_bytes() == tiny
    path.unlink()
    assert "is gone" in command("verify").stdout
    assert command("verify", "--repair").code == 0
    assert path.read_bytes() == tiny


def test_repair_says_when_the_hub_is_away(
    hub: Hub, command: Callable[..., Run], tiny: bytes
) -> None:
    hub.add(REPO, FILE, tiny)
    flip(pulled_path(command), len(tiny) - 1)
    run = command("verify", "--repair", "--offline")
    assert run.code == 1
    assert "HF_HUB_OFFLINE" in run.stderr
    assert run.stdout == ""


# --- list --------------------------------------------------------------------------------------


@pytest.mark.engine
def test_pulled_models_are_listed_with_what_their_headers_say(
    hub: Hub, command: Callable[..., Run], tiny: bytes
) -> None:
    hub.add(REPO, FILE, tiny)
    path = pulled_path(command)
    row = rows(command)[NAME]
    assert (row["path"], row["bytes"], row["origin"]) == (str(path), len(tiny), "pulled")
    assert (row["quantization"], row["context"]) == ("F16", TINY.n_ctx)
    assert (row["last_used"], row["predicted_tps"], row["problem"]) == (None, None, None)
    assert command("generate", NAME, "-p", "x", "-n", "1", HF_HUB_OFFLINE="1").code == 0
    assert rows(command)[NAME]["last_used"]
    text = command("list").stdout
    assert all(word in text for word in ("starter", NAME, "F16", "2,048"))


@pytest.mark.engine
def test_models_of_other_programs_are_usable_by_name_and_left_alone(
    command: Callable[..., Run], home: Path, tiny: bytes
) -> None:
    put(home / ".lmstudio/models/pub/repo/tiny-F16.gguf", tiny)
    put(home / ".lmstudio/models/pub/repo/mmproj-tiny-F16.gguf", tiny)
    put(home / ".cache/llama.cpp/pub_repo_other.gguf", tiny + b"other")
    put(home / ".cache/llama.cpp/half.gguf.downloadInProgress", tiny)
    put_in_ollama(home / ".ollama/models", "registry.ollama.ai/library/small/1b", tiny + b"small")
    put_in_ollama(home / ".ollama/models", "hf.co/pub/repo/latest", b"not a model")
    hub_file = home / "hf/hub/models--pub--cached/snapshots/abc/cached-Q8_0.gguf"
    put(hub_file, tiny + b"cached")
    before = snapshot(home)
    found = rows(command, "--all")
    names = {
        "lmstudio:pub/repo/tiny-F16.gguf": "LM Studio",
        "lmstudio:pub/repo/mmproj-tiny-F16.gguf": "LM Studio",
        "llama.cpp:pub_repo_other.gguf": "llama.cpp",
        "ollama:small:1b": "Ollama",
        "hf:pub/cached/cached-Q8_0.gguf@abc": "Hugging Face cache",
    }
    assert {name: row["origin"] for name, row in found.items() if name != "starter"} == names
    for name in ("lmstudio:pub/repo/tiny-F16.gguf", "SMALL:1B", "cached-Q8_0.gguf"):
        run = command("generate", name, "-p", "x", "-n", "1", "--threads", "1", HF_HUB_OFFLINE="1")
        assert run.code == 0, (name, run.stderr)
    assert_refused(command("remove", "ollama:small:1b", "--yes"), 2, "belongs to Ollama")
    assert_refused(command("generate", "small:2b", "-p", "x"), 2, "did you mean 'ollama:small:1b'")
    assert snapshot(home) == before


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def put_in_ollama(folder: Path, name: str, data: bytes) -> None:
    digest = f"sha256-{len(data):064x}"
    put(folder / "blobs" / digest, data)
    kind = "application/vnd.ollama.image.model"
    layers = [
        {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:0", "size": 1},
        {"mediaType": kind, "digest": digest.replace("-", ":"), "size": len(data)},
    ]
    put(folder / "manifests" / name, json.dumps({"schemaVersion": 2, "layers": layers}).encode())


def snapshot(home: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in home.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_one_name_for_two_models_is_asked_back(
    command: Callable[..., Run], home: Path, tiny: bytes
) -> None:
    put(home / ".lmstudio/models/a/b/twice.gguf", tiny)
    put(home / ".cache/llama.cpp/twice.gguf", tiny + b"x")
    run = command("generate", "twice", "-p", "x")
    assert_refused(run, 2, "llama.cpp:twice.gguf or lmstudio:a/b/twice.gguf")


# --- split models ------------------------------------------------------------------------------


def test_a_split_model_is_one_model(
    hub: Hub, command: Callable[..., Run], gguf_smollm2: Path
) -> None:
    names = [f"split-Q4_1-{i:05d}-of-00003.gguf" for i in (1, 2, 3)]
    data = [b"GGUF" + bytes([i]) * 1000 for i in (1, 2, 3)]
    for name, part in zip(names, data, strict=True):
        hub.add(REPO, name, part)
    run = command("pull", f"hf:{REPO}/{names[1]}", "--json")
    files = run.document["files"]
    assert [Path(file["path"]).name for file in files] == names
    assert [Path(file["path"]).read_bytes() for file in files] == data
    (row,) = (row for name, row in rows(command).items() if name != "starter")
    assert (row["name"], row["bytes"]) == (f"hf:{REPO}/{names[0]}", 3 * 1004)
    flip(Path(files[1]["path"]), 500)
    assert names[1] in command("verify").stdout.split("damaged")[0].splitlines()[-1]
    removed = command("remove", f"hf:{REPO}/{names[0]}", "--yes", "--json")
    assert removed.document["freed_bytes"] == 3 * 1004
    assert rows(command).keys() == {"starter"}


# --- remove ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_remove_asks_and_leaves_nothing(
    hub: Hub, command: Callable[..., Run], home: Path, tiny: bytes
) -> None:
    hub.add(REPO, FILE, tiny)
    path = pulled_path(command)
    assert_refused(command("remove", NAME), 2, "--yes")
    environment = clean_environment() | hub.environment(home / "hf")
    for answer, is_left in (("n", True), ("y", False)):
        child = pexpect.spawn(str(LOCALSPEC), ["remove", NAME], env=environment, timeout=30)
        child.expect(r"free [\d.]+ MB\?")
        child.sendline(answer)
        child.expect(pexpect.EOF)
        child.close()
        assert (child.exitstatus, path.exists()) == (1 if is_left else 0, is_left)
    assert not (home / "hf/hub/models--owner--repo-GGUF").exists()
    assert_refused(command("remove", NAME, "--yes"), 2, "no model is called")


def test_remove_keeps_what_others_need(
    hub: Hub, command: Callable[..., Run], home: Path, tiny: bytes
) -> None:
    """Another program's file of the repository, and bytes that another revision has, too."""
    hub.add(REPO, FILE, tiny)
    path = pulled_path(command)
    repository = path.parents[2]
    put(path.with_name("theirs.gguf"), b"GGUF theirs")
    other = repository / "snapshots" / ("0" * 40) / FILE
    other.parent.mkdir()
    other.symlink_to(os.path.relpath(path.resolve(), other.parent))
    run = command("remove", NAME, "--yes", "--json")
    assert run.document["freed_bytes"] == 0
    assert not path.exists()
    assert other.read_bytes() == tiny
    assert path.with_name("theirs.gguf").exists()


def test_what_another_program_brought_is_adopted_and_not_removed(
    hub: Hub, command: Callable[..., Run], home: Path, tiny: bytes
) -> None:
    hub.add(REPO, FILE, tiny)
    path = pulled_path(command)
    shutil.rmtree(home.parent / "localspec-home" / "data")  # localspec forgets that it pulled it
    run = command("pull", NAME, "--json")
    assert run.document["files"][0]["fetched_bytes"] == 0
    assert command("verify").stdout.endswith("is whole\n")
    assert_refused(command("remove", NAME, "--yes"), 2, "was here before localspec")
    assert path.exists()


@pytest.mark.slow
def test_an_unfinished_pull_is_listed_and_can_be_removed(
    hub: Hub, command: Callable[..., Run], home: Path, tiny: bytes
) -> None:
    hub.add(REPO, FILE, tiny)

    def down(request: Any) -> bool:
        if not request.is_storage:
            return False
        if request.ask.begin:
            request.refuse(404)
            return True
        request.send_part(5000)
        request.connection.close()
        return True

    hub.faults.append(down)
    assert command("pull", NAME).code == 1
    row = rows(command)[NAME]
    assert (row["origin"], row["bytes"]) == ("unfinished", 5000)
    assert "resumes" in row["problem"]
    removed = command("remove", NAME, "--yes", "--json")
    assert removed.document["freed_bytes"] == 5000
    assert rows(command).keys() == {"starter"}
    assert not (home / "hf/hub/models--owner--repo-GGUF").exists()


# --- completion --------------------------------------------------------------------------------


def complete(command: Callable[..., Run], *words: str) -> list[str]:
    line = " ".join(("localspec", *words))
    run = command(_LOCALSPEC_COMPLETE="complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words)))
    return run.stdout.split()


@pytest.mark.slow
def test_the_shell_completes_model_names(
    hub: Hub, command: Callable[..., Run], tiny: bytes
) -> None:
    hub.add(REPO, FILE, tiny)
    pulled_path(command)
    assert complete(command, "generate", "start") == ["starter"]
    assert "qwen3-8b" in complete(command, "pull", "qwen3")
    assert complete(command, "verify", "hf") == [NAME]
    assert complete(command, "predict", "no-such") == []


def test_completion_loads_nothing_slow(command: Callable[..., Run]) -> None:
    program = (
        "import sys; from localspec.cli.options import model_names;"
        "assert 'starter' in model_names('st');"
        "assert not {'huggingface_hub', 'numpy', 'llama_cpp'} & set(sys.modules), 'slow'"
    )
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", program]) == 0
