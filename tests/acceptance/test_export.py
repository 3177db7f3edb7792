"""llama-server knows every flag that `localspec export` gives it, and answers with them.

The server is LLAMA_SERVER or the one on PATH, built from llama.cpp (target llama-server); without
it the tests are skipped. Reached on 2026-11-25: of 320 flags none of ours is missing.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from itertools import product
from pathlib import Path

import pytest
from models import smollm2, variant

from localspec.export import TARGETS
from localspec.session.session_config import SessionConfig

pytestmark = pytest.mark.engine
SERVER = "llama-server"
START_S = 60.0
REMOVED = "the argument has been removed"


@pytest.fixture(scope="module")
def server() -> Path:
    found = os.environ.get("LLAMA_SERVER") or shutil.which(SERVER)
    if found is None:
        pytest.skip(f"{SERVER} is not here: LLAMA_SERVER names it")
    return Path(found)


def test_every_flag_is_known(server: Path) -> None:
    assert {flag for config in _configs() for flag in _flags(config)} - _known(server) == set()


@pytest.mark.parametrize(
    "name", ["a tuned cache", "no repacking, no mmap", "lookup", "a draft model"]
)
def test_the_server_starts_with_an_export_and_answers(server: Path, name: str) -> None:
    assert _answer(server, _started()[name])


def _known(server: Path) -> set[str]:
    """Flags of --help, but those that only say that they are gone."""
    text = subprocess.run(
        [str(server), "--help"], capture_output=True, text=True, check=True
    ).stdout
    entries = re.split(r"\n(?=-)", text)
    return {
        flag
        for entry in entries
        if REMOVED not in entry
        for flag in re.findall(r"--[a-z][\w-]*", entry.splitlines()[0])
    }


def _flags(config: SessionConfig) -> set[str]:
    return {word for word in _words(config) if word.startswith("--")}


def _words(config: SessionConfig) -> list[str]:
    """As a shell reads them."""
    return shlex.split(TARGETS[SERVER](config).text.replace("\\\n", " "))


def _configs() -> list[SessionConfig]:
    base = SessionConfig.of(Path("m.gguf"), ctx=2048, threads=2)
    return [
        base.with_draft(draft).with_settings(
            spec=spec, gpu_layers=layers, cpu_moe=moe, mmap=mmap, repack=repack, threads_batch=4
        )
        for (spec, draft), layers, moe, mmap, repack in product(
            (("none", None), ("lookup", None), ("auto", Path("d.gguf")), ("draft", Path("d.gguf"))),
            (-1, 0, 12), (0, 3), (True, False), (True, False),
        )
    ]  # fmt: skip


def _started() -> dict[str, SessionConfig]:
    base = SessionConfig.of(smollm2(), ctx=1024, threads=2, spec="none")
    return {
        "a tuned cache": base.with_settings(kv_k="q8_0", kv_v="bf16", flash_attn="on"),
        "no repacking, no mmap": base.with_settings(repack=False, mmap=False, flash_attn="off"),
        "lookup": base.with_settings(spec="lookup"),
        "a draft model": base.with_draft(variant(smollm2(), "Q4_0")).with_settings(spec="draft"),
    }


def _answer(server: Path, config: SessionConfig) -> str | None:
    """What the server completes, started with an export; None where it does not."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = _words(config)[1:]
    command = [str(server), *words, "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            return _completion(process, f"http://127.0.0.1:{port}")
        finally:
            process.terminate()


def _completion(process: "subprocess.Popen[bytes]", address: str) -> str | None:
    body = json.dumps({"prompt": "one two three one two three one two", "n_predict": 8}).encode()
    request = urllib.request.Request(f"{address}/completion", body)
    request.add_header("Content-Type", "application/json")
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=START_S) as answer:
                return json.load(answer)["content"]
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    return None
