"""CPU time of the server's process outside libllama, for each pass and each sequence in it.

    scripts/research/run bench-server-cpu [--model smollm2] [--users 1,4] [--tokens 200]

A server runs in this process, its clients in another one. Threads' clocks are read, so neither
waiting nor the engine's own threads count: those of HTTP, and of the engine's thread what is
outside `llama_decode`, with choosing tokens apart. All users' replies are streamed at once.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from models import named
from serving import Served, served

from localspec.decode.generation import Generation
from localspec.serve.server import engine_thread_of
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

CLIENT = """
import asyncio, json, sys

async def ask(port, i, how):
    said = [{"role": "user", "content": f"({i}) Tell me about the sea."}]
    body = {"model": "x", "messages": said, "stream": True, "ignore_eos": True, **how}
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\\r\\nhost: localhost\\r\\nconnection: close\\r\\n"
    writer.write(f"{head}content-length: {len(data)}\\r\\n\\r\\n".encode() + data)
    await reader.read(-1)
    writer.close()

async def all_of(port, n, how):
    await asyncio.gather(*(ask(port, i, how) for i in range(n)))

asyncio.run(all_of(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])))
"""
LAWS = {"greedy": '"temperature": 0', "sampled": '"temperature": 0.8, "seed": 1'}
HEAD = (
    "| Model | Vocabulary | Users | Tokens | Passes | HTTP, ms | engine's thread, ms | both |"
    " choosing, ms |",
    "|---|---|---|---|---|---|---|---|---|",
)


class CpuClock:
    """Sums a thread's CPU seconds inside a method."""

    def __init__(self, kind: type, name: str) -> None:
        self.seconds, self.n_calls = 0.0, 0
        self._kind, self._name = kind, name
        self._method: Callable[..., Any] = getattr(kind, name)

    @contextmanager
    def counting(self) -> Iterator[None]:
        method = self._method

        def counted(*given: Any, **named_values: Any) -> Any:
            started = time.thread_time()
            try:
                return method(*given, **named_values)
            finally:
                self.seconds += time.thread_time() - started
                self.n_calls += 1

        setattr(self._kind, self._name, counted)
        try:
            yield
        finally:
            setattr(self._kind, self._name, method)


def cpu_s(thread: threading.Thread) -> float:
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def measured(made: Served, users: int, tokens: int, how: str) -> str:
    """The middle of a row: passes, and milliseconds of each part for each pass and sequence."""
    words = [sys.executable, "-c", CLIENT, str(made.port), str(users)]
    law = f'{{"max_tokens": {tokens}, {how}}}'
    threads = [each for each in threading.enumerate() if each is not threading.current_thread()]
    engine = next(each for each in threads if each.name == "engine")
    subprocess.run([*words, law], check=True)  # warm
    threads = [each for each in threads if each.is_alive()]
    from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - --help needs no engine

    evaluating, choosing = CpuClock(LlamaEngine, "_decode_batch"), CpuClock(Generation, "accept")
    with evaluating.counting(), choosing.counting():
        before = {each: cpu_s(each) for each in threads}
        subprocess.run([*words, law], check=True)
        spent = {each: cpu_s(each) - before[each] for each in threads if each.is_alive()}
    n = choosing.n_calls
    engine_s = spent[engine] - evaluating.seconds - choosing.seconds
    http_s = sum(spent.values()) - spent[engine]
    parts = [1e3 * each / n for each in (http_s, engine_s, http_s + engine_s, choosing.seconds)]
    return f"{evaluating.n_calls} | " + " | ".join(f"{each:.3f}" for each in parts)


def main(
    model: Annotated[str, typer.Option(help="smollm2, gemma, random or a path.")] = "smollm2",
    users: Annotated[str, typer.Option(help="Numbers of users.")] = "1,4",
    tokens: Annotated[int, typer.Option(min=8, help="Of each reply.")] = 200,
    spec: Annotated[str, typer.Option(help="none or auto.")] = "none",
) -> None:
    numbers = [int(part) for part in users.split(",")]
    path = named(model) if not Path(model).is_file() else Path(model)
    config = SessionConfig.of(path, ctx=1024, n_sequences=max(numbers), kv_unified=True, spec=spec)
    print(*HEAD, sep="\n")
    with Session.open(config) as session, served(session, engine_thread_of(session)) as made:
        n_vocab = session.target.vocabulary.n_tokens
        for n in numbers:
            for law, how in LAWS.items():
                middle = measured(made, n, tokens, how)
                print(f"| {path.stem} | {n_vocab:,} | {n} | {law} | {middle} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
