"""Does llama-server know every flag that `localspec export` gives it, and answer with them?

    scripts/check-export --server build/bin/llama-server

Holds the flags of many configurations against the server's own --help, then starts it with the
exports of a tuned cache, of a draft model and of look-up, and asks each for a few tokens. Without
the server nothing is checked and the exit code is 0.
"""

import json
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
from typing import Annotated

import typer
from _models import smollm2, variant

from localspec.export import TARGETS
from localspec.session.config import SessionConfig

SERVER = "llama-server"
START_S = 60.0
REMOVED = "the argument has been removed"


def main(
    server: Annotated[Path | None, typer.Option(help="llama-server, built from llama.cpp.")] = None,
) -> None:
    """Check; exit code 1 where a flag is unknown or an export does not start."""
    found = server or (Path(path) if (path := shutil.which(SERVER)) else None)
    if found is None or not found.exists():
        typer.echo(f"skipped: {SERVER} is not here; name it with --server", err=True)
        return
    known = _known(found)
    unknown = {flag for config in _configs() for flag in _flags(config)} - known
    print(f"{len(known):,} flags known, unknown to it: {', '.join(sorted(unknown)) or 'none'}")
    failed = [name for name, config in _started().items() if not _answers(found, name, config)]
    if unknown or failed:
        raise typer.Exit(1)


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
        "look-up": base.with_settings(spec="lookup"),
        "a draft model": base.with_draft(variant(smollm2(), "Q4_0")).with_settings(spec="draft"),
    }


def _answers(server: Path, name: str, config: SessionConfig) -> bool:
    """Whether the server starts with an export and completes a text."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = _words(config)[1:]
    command = [str(server), *words, "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            text = _completion(process, f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
    print(f"{name}: {'no answer' if text is None else repr(text)}")
    return text is not None


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


if __name__ == "__main__":
    typer.run(main)
