"""Servers on this machine, started with the same file, context and threads."""

import http.client
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

READY_S = 120.0
PORT = 18800
THREADS = str(psutil.cpu_count(logical=False) or 1)


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[int]:
    """A server, once it is ready."""
    with socket.socket() as taken:
        assert taken.connect_ex(("127.0.0.1", port)), f"something listens at port {port}"
    with log.open("ab") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            _wait(process, port)
            yield port
        finally:
            process.terminate()
            process.wait(60)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(int(READY_S / 0.5)):
        assert process.poll() is None, "a server does not start: see its log"
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError("a server does not get ready")


def commands(
    model: Path, llama: str, users: int, ctx: int, specs: Sequence[str]
) -> dict[str, list[str]]:
    """How each server is started, by its name; `specs`: flags of llama-server's speculation, each
    set of which makes one more."""
    ours = [sys.executable, "-P", "-m", "localspec", "serve", str(model), "--parallel", str(users),
            "--ctx", str(ctx), "--threads", THREADS]  # fmt: skip
    theirs = [llama, "-m", str(model), "-np", str(users), "-c", str(ctx * users), "-t", THREADS,
              "-tb", THREADS, "--kv-unified", "--no-webui"]  # fmt: skip
    made = {
        "localspec": ours,
        "localspec, no drafts": [*ours, "--spec", "none"],
        "llama-server": theirs,
    }
    made |= {f"llama-server {spec}": [*theirs, *shlex.split(spec)] for spec in specs}
    return {name: [*words, "--port", str(PORT + i)] for i, (name, words) in enumerate(made.items())}


@contextmanager
def all_of(started: dict[str, list[str]], log: Path) -> Iterator[dict[str, int]]:
    """All servers at once: those that are not asked wait without work."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(running(command, port_of(command), log))
            for name, command in started.items()
        }


def port_of(command: Sequence[str]) -> int:
    return int(command[list(command).index("--port") + 1])
