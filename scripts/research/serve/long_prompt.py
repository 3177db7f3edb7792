"""What a long prompt does to others, and what a second turn has to read, beside llama-server.

    scripts/research/run bench-long-prompt --llama-server PATH [--model smollm2] [--prompt 2000]

Some users are answered; in the middle of it a prompt of `--prompt` tokens arrives. The gaps between
their tokens are compared with those of a run without it, and the long prompt's own time to the
first token is given. Then a conversation goes on: of its second turn's prompt only what is new
should be read.
"""

import asyncio
import statistics
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from models import named
from research.serve.client import Talked, ask, p99, questions
from research.serve.load import TABLE
from research.serve.servers import all_of, commands

CTX = 4096
SETTLED_S = 1.5
"""Until the others' first tokens have come."""
HEAD = (
    "| Server | p99 gap alone, ms | beside the prompt, ms | : | its first token, s |"
    " 2nd turn: tokens read | of | first token, ms | 1st turn's |",
    "|---|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True, slots=True)
class Run:
    """The others' gaps with and without a long prompt, in seconds, and its own first token's."""

    alone_s: list[float]
    beside_s: list[float]
    ttft_s: float


def text_of(n_tokens: int, seed: int) -> str:
    """About so many tokens; rows of numbers have about 15 each."""
    rows = [f"{seed + i}: shelf {i * 7 % 97}, {i * 13 % 89} pieces" for i in range(n_tokens // 15)]
    return "Sum this up in a word.\n" + "\n".join(rows)


async def beside(port: int, users: int, tokens: int, prompt: str, seed: int) -> Run:
    """The same load twice, the second time with the prompt."""
    alone = await asyncio.gather(*_others(port, users, tokens, seed))
    others = [asyncio.ensure_future(each) for each in _others(port, users, tokens, seed + 1)]
    await asyncio.sleep(SETTLED_S)
    long = await ask(port, prompt, 2)
    gaps = [
        b - a
        for each in await asyncio.gather(*others)
        for a, b in zip(each.ends_s, each.ends_s[1:], strict=False)
        if long.began_s <= b and a <= long.ends_s[0]
    ]
    return Run([gap for each in alone for gap in each.gaps_s], gaps, long.ttft_s)


def _others(port: int, users: int, tokens: int, seed: int) -> list[Coroutine[None, None, Talked]]:
    return [ask(port, question, tokens) for question in questions("conversation", users, seed)]


async def two_turns(port: int, seed: int) -> tuple[Talked, Talked]:
    """A question about a table, and one more."""
    said = [{"role": "user", "content": f"({seed}) What is in this table?\n{TABLE}"}]
    first = await ask(port, said, 24)
    said += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "And why?"}]
    return first, await ask(port, said, 24)


def main(
    llama_server: Annotated[str, typer.Option(help="llama.cpp's server, of the same source.")],
    model: Annotated[str, typer.Option(help="smollm2, gemma, random or a path.")] = "smollm2",
    users: Annotated[int, typer.Option(min=1, help="Who are answered.")] = 3,
    prompt: Annotated[int, typer.Option(min=100, help="Tokens.")] = 2000,
    tokens: Annotated[int, typer.Option(min=16, help="Of each of the others' replies.")] = 300,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    started = commands(named(model), llama_server, users + 1, CTX, ())
    runs: dict[str, list[Run]] = {name: [] for name in started}
    turns: dict[str, list[tuple[Talked, Talked]]] = {name: [] for name in started}
    with all_of(started, Path("bench-servers.log")) as ports:
        for name, port in [*ports.items()] * rounds:
            seed = 1000 * (1 + len(runs[name]))
            text = text_of(prompt, seed)
            runs[name].append(asyncio.run(beside(port, users, tokens, text, seed)))
            turns[name].append(asyncio.run(two_turns(port, seed)))
    print(*HEAD, *(_row(name, runs[name], turns[name]) for name in started), sep="\n")


def _row(name: str, runs: list[Run], turns: list[tuple[Talked, Talked]]) -> str:
    alone = p99([gap for run in runs for gap in run.alone_s])
    beside_s = p99([gap for run in runs for gap in run.beside_s])
    second = [turn[1] for turn in turns]
    n_read = statistics.median(each.n_prompt - each.n_cached for each in second)
    ttft_ms = [1e3 * statistics.median(turn[i].ttft_s for turn in turns) for i in (1, 0)]
    return (
        f"| {name} | {1e3 * alone:.0f} | {1e3 * beside_s:.0f} | {beside_s / alone:.1f} |"
        f" {statistics.median(run.ttft_s for run in runs):.1f} | {n_read:.0f} |"
        f" {statistics.median(each.n_prompt for each in second):.0f} | {ttft_ms[0]:.0f} |"
        f" {ttft_ms[1]:.0f} |"
    )


if __name__ == "__main__":
    typer.run(main)
