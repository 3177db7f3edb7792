"""One client for every server: streamed replies with their times, and users who ask in a loop."""

import asyncio
import itertools
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from research.serve.load import KINDS


@dataclass(frozen=True, slots=True)
class Talked:
    """One reply as its client saw it, in seconds; `n_tokens`, `n_prompt` and `n_cached` by the
    server's account, `ends_s` when its parts came."""

    text: str
    n_tokens: int
    n_prompt: int
    n_cached: int
    began_s: float
    ends_s: list[float]

    @property
    def ttft_s(self) -> float:
        return self.ends_s[0] - self.began_s

    @property
    def gaps_s(self) -> list[float]:
        return [b - a for a, b in itertools.pairwise(self.ends_s)]


def questions(kind: str, n: int, seed: int) -> list[str]:
    """Different ones, so that no server answers from its cache."""
    base = KINDS[kind]
    return [f"({seed}.{i}) {base[i % len(base)]}" for i in range(n)]


async def ask(port: int, said: str | list[dict[str, str]], n_tokens: int) -> Talked:
    """Stream one reply to its end."""
    messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
    body = {
        "model": "model", "messages": messages, "stream": True, "max_tokens": n_tokens,
        "temperature": 0, "ignore_eos": True, "stream_options": {"include_usage": True},
    }  # fmt: skip
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    started = time.perf_counter()
    writer.write(head.encode() + data)
    times, texts, usage = list[float](), list[str](), dict[str, Any]()
    async for line in reader:
        text = line.decode(errors="replace").strip()
        if not text.startswith("data: {"):
            continue
        chunk = json.loads(text[6:])
        new = "".join(each["delta"].get("content") or "" for each in chunk.get("choices", ()))
        if new:
            times.append(time.perf_counter())
            texts.append(new)
        usage = chunk.get("usage") or usage
    writer.close()
    assert times, "the server answered nothing"
    n_cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    n_said = usage.get("completion_tokens", len(times))
    n_prompt = usage.get("prompt_tokens", 0)
    return Talked("".join(texts), n_said, n_prompt, n_cached, started, times)


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


def p99(values: Sequence[float]) -> float:
    """Of not too few."""
    return sorted(values)[min(len(values) - 1, int(0.99 * len(values)))]


N_BOOTSTRAP = 2000


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Of neighbours: the median, and the interval of 95 % of a bootstrap."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    clock = random.Random(0)
    medians = sorted(
        statistics.median(clock.choices(ratios, k=len(ratios))) for _ in range(N_BOOTSTRAP)
    )
    low, high = medians[int(0.025 * N_BOOTSTRAP)], medians[int(0.975 * N_BOOTSTRAP) - 1]
    return statistics.median(ratios), low, high
