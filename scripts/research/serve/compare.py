"""localspec's server and llama.cpp's under the same load, interleaved: ratios with intervals.

    scripts/research/run bench-servers --llama-server PATH [--model smollm2] [--users 1,2,4,8]

Both are started with the same file, the same context for each user and the same threads, and are
asked by the same client. For each number N of users: throughput of a closed loop, in which each of
N users asks the next question when the last one is answered; then Poisson arrivals at 70 % of the
slower one's throughput, for times to the first token and between tokens. Runs go A B B A, and a
ratio is that of neighbours; its interval is a bootstrap's over all of them. `--llama-spec` gives
llama-server flags of its own speculation, as a third server.
"""

import asyncio
import http.client
import itertools
import json
import random
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import psutil
import typer
from models import named
from research.serve.load import KINDS

READY_S = 120.0
UTILISATION = 0.7
N_BOOTSTRAP = 2000
PORT = 18800
N_EACH = 3
"""Questions of each user in a run."""
CTX = 2048
"""Tokens of each user."""


@dataclass(frozen=True, slots=True)
class Talked:
    """One reply as its client saw it, in seconds; `n_tokens` by the server's account."""

    n_tokens: int
    ttft_s: float
    gaps_s: list[float]


@dataclass(slots=True)
class Figures:
    """What runs of one server came to; `tps` of the closed loop, one a run."""

    tps: list[float] = field(default_factory=list)
    ttft_s: list[float] = field(default_factory=list)
    p99_gap_s: list[float] = field(default_factory=list)


def questions(kind: str, n: int, seed: int) -> list[str]:
    """Different ones, so that no server answers from its cache."""
    base = KINDS[kind]
    return [f"({seed}.{i}) {base[i % len(base)]}" for i in range(n)]


async def ask(port: int, question: str, n_tokens: int) -> Talked:
    """Stream one reply to its end."""
    body = {
        "model": "model", "messages": [{"role": "user", "content": question}], "stream": True,
        "max_tokens": n_tokens, "temperature": 0, "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    started = time.perf_counter()
    writer.write(head.encode() + data)
    times, n_said = list[float](), 0
    async for line in reader:
        text = line.decode(errors="replace").strip()
        if not text.startswith("data: {"):
            continue
        chunk = json.loads(text[6:])
        if any(each["delta"].get("content") for each in chunk.get("choices", ())):
            times.append(time.perf_counter())
        n_said = (chunk.get("usage") or {}).get("completion_tokens", n_said)
    writer.close()
    assert times, "the server answered nothing"
    gaps = [b - a for a, b in itertools.pairwise(times)]
    return Talked(n_said or len(times), times[0] - started, gaps)


async def closed_loop(port: int, users: int, asked: Sequence[str], n_tokens: int) -> float:
    """Tokens a second of all users together."""
    left, found = list(asked), list[Talked]()

    async def user() -> None:
        while left:
            found.append(await ask(port, left.pop(), n_tokens))

    started = time.perf_counter()
    await asyncio.gather(*(user() for _ in range(users)))
    return sum(each.n_tokens for each in found) / (time.perf_counter() - started)


async def arrivals(
    port: int, asked: Sequence[str], n_tokens: int, per_s: float, seed: int
) -> list[Talked]:
    """Requests that come as they like, `per_s` a second in the mean."""
    clock = random.Random(seed)
    tasks: list[asyncio.Task[Talked]] = []
    for question in asked:
        tasks.append(asyncio.create_task(ask(port, question, n_tokens)))
        await asyncio.sleep(clock.expovariate(per_s))
    return list(await asyncio.gather(*tasks))


@contextmanager
def running(command: Sequence[str], port: int, log: Path) -> Iterator[int]:
    """A server, once it is ready."""
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


def commands(model: Path, llama: str, users: int, spec: str) -> dict[str, list[str]]:
    """How each server is started, by its name."""
    threads = str(psutil.cpu_count(logical=False) or 1)
    ours = [sys.executable, "-P", "-m", "localspec", "serve", str(model), "--parallel", str(users),
            "--ctx", str(CTX), "--threads", threads, "--port"]  # fmt: skip
    theirs = [llama, "-m", str(model), "-np", str(users), "-c", str(CTX * users), "-t", threads,
              "-tb", threads, "--kv-unified", "--no-webui", "--port"]  # fmt: skip
    made = {
        "localspec": [*ours, str(PORT)],
        "localspec, no drafts": [*ours, str(PORT + 1), "--spec", "none"],
        "llama-server": [*theirs, str(PORT + 2)],
    }
    if spec:
        made["llama-server, drafts"] = [*theirs, str(PORT + 3), *shlex.split(spec)]
    return made


@dataclass(frozen=True, slots=True)
class Case:
    """One number of users and one kind of question."""

    users: int
    kind: str
    tokens: int


def measure(ports: dict[str, int], case: Case, rounds: int) -> dict[str, Figures]:
    """A B C C B A, `rounds` times; a first run warms each up."""
    found = {name: Figures() for name in ports}
    asked = questions(case.kind, case.users, 0)
    for port in ports.values():
        asyncio.run(closed_loop(port, case.users, asked, case.tokens))
    for i in range(rounds):
        for name in [*ports, *reversed(ports)]:
            asked = questions(case.kind, case.users * N_EACH, 10 + i)
            tps = asyncio.run(closed_loop(ports[name], case.users, asked, case.tokens))
            found[name].tps.append(tps)
    slowest = min(statistics.median(figures.tps) for figures in found.values())
    per_s = UTILISATION * slowest / case.tokens
    for i in range(rounds):
        for name in [*ports, *reversed(ports)]:
            asked = questions(case.kind, case.users * N_EACH, 100 + i)
            talked = asyncio.run(arrivals(ports[name], asked, case.tokens, per_s, i))
            gaps = sorted(gap for each in talked for gap in each.gaps_s)
            found[name].ttft_s.append(statistics.median(each.ttft_s for each in talked))
            found[name].p99_gap_s.append(gaps[min(len(gaps) - 1, int(0.99 * len(gaps)))])
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Of neighbours: the median, and the interval of 95 % of a bootstrap."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    clock = random.Random(0)
    medians = sorted(
        statistics.median(clock.choices(ratios, k=len(ratios))) for _ in range(N_BOOTSTRAP)
    )
    low, high = medians[int(0.025 * N_BOOTSTRAP)], medians[int(0.975 * N_BOOTSTRAP) - 1]
    return statistics.median(ratios), low, high


def rows_of(case: Case, found: dict[str, Figures]) -> Iterator[str]:
    """One line for each server, beside llama-server's."""
    base = found["llama-server"]
    for name, figures in found.items():
        mid, low, high = ratio(figures.tps, base.tps)
        yield (
            f"| {case.kind} | {case.users} | {name} | {statistics.median(figures.tps):.1f} |"
            f" {mid:.2f} ({low:.2f} to {high:.2f}) | {_ms(figures.ttft_s)} |"
            f" {ratio(figures.ttft_s, base.ttft_s)[0]:.2f} |"
            f" {_ms(figures.p99_gap_s)} |"
            f" {ratio(figures.p99_gap_s, base.p99_gap_s)[0]:.2f} |"
        )


def _ms(seconds: Sequence[float]) -> str:
    return f"{1e3 * statistics.median(seconds):.0f}"


HEAD = (
    "| Questions | Users | Server | tok/s | : llama-server | first token, ms | : | p99 gap, ms |"
    " : |",
    "|---|---|---|---|---|---|---|---|---|",
)


def main(
    llama_server: Annotated[str, typer.Option(help="llama.cpp's server, of the same source.")],
    model: Annotated[str, typer.Option(help="smollm2, gemma, random or a path.")] = "smollm2",
    users: Annotated[str, typer.Option(help="Numbers of users.")] = "1,2,4,8",
    rounds: Annotated[int, typer.Option(min=1, help="Of A B B A.")] = 4,
    tokens: Annotated[int, typer.Option(min=4, help="Of each reply.")] = 96,
    llama_spec: Annotated[str, typer.Option(help="Flags of its own speculation.")] = "",
) -> None:
    log = Path("bench-servers.log")
    print(*HEAD, sep="\n", flush=True)
    for n in map(int, users.split(",")):
        with _all(commands(named(model), llama_server, n, llama_spec), log) as ports:
            for kind in KINDS:
                case = Case(n, kind, tokens)
                print(*rows_of(case, measure(ports, case, rounds)), sep="\n", flush=True)


@contextmanager
def _all(started: dict[str, list[str]], log: Path) -> Iterator[dict[str, int]]:
    """All servers at once: those that are not asked wait without work."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(running(command, _port_of(command), log))
            for name, command in started.items()
        }


def _port_of(command: Sequence[str]) -> int:
    return int(command[list(command).index("--port") + 1])


if __name__ == "__main__":
    typer.run(main)
