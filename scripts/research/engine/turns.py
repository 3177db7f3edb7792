"""Tokens that the turns of a thinking conversation evaluate, with checkpoints and without.

    scripts/research/run bench-turns [--json]

1. Ten turns with small random models whose memory is a state, and a template that drops thoughts.
   Random weights do, because the count depends on the template and on the memory alone.
2. Gemma-3-270M, whose window is 512: a prompt of about 1,500 tokens, an answer of 700, and another
   try at it.
"""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from hybrids import STATES, write_random_limited
from models import gemma
from turns import TEMPLATE, turns

from localspec.api import load

LONG, N_LONG_ANSWER = "On this day the keeper saw seven ships. " * 166, 700


@contextmanager
def without_checkpoints() -> Iterator[None]:
    """As if no place could be remembered."""
    from localspec.engine.llama.rollback import SequenceMemory  # noqa: PLC0415 - loads libllama

    real = SequenceMemory.checkpoint
    SequenceMemory.checkpoint = lambda self, n_held: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        SequenceMemory.checkpoint = real


def conversation(path: Path) -> list[int]:
    """Tokens evaluated before the first one of each answer."""
    with load(path, draft="none", spec="none", ctx=4096, threads=1, ubatch=64) as model:
        return [turn.reply.timings.n_prefilled for turn in turns(model)]


def second_try() -> list[int]:
    """The same of a prompt that is longer than the window, and of a second answer to it."""
    keywords: dict[str, Any] = {"max_tokens": N_LONG_ANSWER, "temperature": 0, "ignore_eos": True}
    with load(gemma(), draft="none", spec="none", ctx=4096) as model:
        return [model.chat(LONG, **keywords).timings.n_prefilled for _ in range(2)]


def measured() -> dict[str, list[int]]:
    """Tokens by turn, by model."""
    with tempfile.TemporaryDirectory(prefix="localspec-") as folder:
        found = {
            name: conversation(write_random_limited(Path(folder) / name, name, template=TEMPLATE))
            for name in STATES
        }
    return found | {"Gemma-3-270M, tried twice": second_try()}


def main(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    with without_checkpoints():
        before = measured()
    found = {"without": before, "with": measured()}
    if as_json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    for name in before:
        for way, rows in found.items():
            sys.stdout.write(f"{name:28} {way:8} {' '.join(f'{n:5,}' for n in rows[name])}\n")


if __name__ == "__main__":
    typer.run(main)
