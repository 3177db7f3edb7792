"""What a draft head costs beside its own passes, and what one that does not pay costs a reply.

    scripts/research/run bench-heads [--json]

A head with random weights of EAGLE-3's shape drafts for SmolLM2-135M (49k tokens), because times do
not depend on values. None of its guesses stand.

1. In one process, by length of draft: a step's wall time less the time inside the engine for the
   target and the head, less the same of plain steps, in turns. Goal: 0.2 ms a round.
2. Decode speed of `auto` with that head loaded over plain decoding, reply by reply in the order
   A B B A; and of `auto` without a head, which may look up. Goal: 0.99 at least.
"""

import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any

import typer
from beside import write_eagle3
from models import smollm2

from localspec.engine.sampling import Sampling
from localspec.gguf.reader import read_header
from localspec.model.synthetic import Shape
from localspec.session.config import ReplyOptions, SessionConfig
from localspec.session.session import Session
from localspec.settings import NONE

SMOLLM2 = Shape(30, 576, 9, 3, 1536, 49152)
PROMPT = "The lighthouse keeper wrote in the log every evening. Tonight the entry began"
LENGTHS = (1, 3, 8)
LIMIT_MS, LIMIT_RATIO = 0.2, 0.99
N_CTX = 1024


def main(
    max_tokens: Annotated[int, typer.Option("-n", "--max-tokens")] = 128,
    rounds: Annotated[int, typer.Option(help="Rounds of A B B A.")] = 5,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure, and compare with the goals."""
    with TemporaryDirectory() as folder:
        head = _head(Path(folder) / "eagle3.gguf")
        found: dict[str, Any] = {
            "round_ms": _rounds(head, max_tokens, rounds),
            "ratio_to_plain": _parked(head, max_tokens, rounds),
        }
    print(json.dumps(found) if as_json else _text(found))


def _head(path: Path) -> Path:
    """It uses the target's embeddings and matrix for scores."""
    metadata = read_header(smollm2()).metadata
    vocabulary = {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
    return write_eagle3(path, SMOLLM2, vocabulary=vocabulary)


def _session(head: Path | None, **settings: Any) -> Session:
    config = SessionConfig.of(smollm2(), head or NONE, ctx=N_CTX, **settings)
    return Session.open(config)


def _options(n_tokens: int, temperature: float = 0.0) -> ReplyOptions:
    sampling = Sampling(temperature=temperature, seed=3)
    return ReplyOptions(sampling, n_tokens, ignore_eos=True, verify="rejection")


def _rounds(head: Path, n_tokens: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a drafting step outside the engine, beyond a plain step's."""
    found: dict[str, Any] = {}
    with _session(head, spec="eagle3", draft_max=max(LENGTHS)) as session:
        prompt = session.raw_prompt(PROMPT)
        for temperature, name in ((0.0, "greedy"), (0.8, "sampled")):
            costs: dict[int, list[float]] = {n: [] for n in (0, *LENGTHS)}
            for i in range(2 * rounds):
                for n in list(costs)[:: 1 if i % 2 else -1]:
                    costs[n] += _outside_ms(session, prompt, _options(n_tokens, temperature), n)
            plain = statistics.median(costs.pop(0))
            found[name] = {n: statistics.median(each) - plain for n, each in costs.items()}
    return found


def _outside_ms(
    session: Session, prompt: Sequence[int], options: ReplyOptions, n: int
) -> list[float]:
    """Of each step after the second, which builds graphs."""
    assert session.head
    spec = "eagle3" if n else NONE
    speculator = session.speculator(spec, n)
    last, last_busy, found = None, 0.0, list[float]()
    for _ in session.reply(prompt, options, speculator):
        now, busy = perf_counter(), session.target.busy_s + session.head.busy_s
        if last is not None:
            found.append(1e3 * ((now - last) - (busy - last_busy)))
        last, last_busy = now, busy
    return found[2:]


def _parked(head: Path, n_tokens: int, rounds: int) -> dict[str, Any]:
    """Ratios of decode speed to plain decoding's, over pairs of replies."""
    with ExitStack() as stack:
        open_sessions = {
            "plain": stack.enter_context(_session(None, spec=NONE)),
            "auto with a head": stack.enter_context(_session(head)),
            "auto": stack.enter_context(_session(None)),
        }
        prompt = open_sessions["plain"].raw_prompt(PROMPT)
        seconds: dict[str, list[float]] = {name: [] for name in open_sessions}
        for i in range(2 * rounds + 1):
            for name in list(open_sessions)[:: 1 if i % 2 else -1]:
                taken = _decode_s(open_sessions[name], prompt, n_tokens)
                if i:  # the first warms up, and lets auto learn
                    seconds[name].append(taken)
    plain = seconds.pop("plain")
    return {name: _ratio(plain, each) for name, each in seconds.items()}


def _decode_s(session: Session, prompt: Sequence[int], n_tokens: int) -> float:
    session.context.truncate(0)
    session.forget()
    reply = session.reply(prompt, _options(n_tokens))
    started = None
    for _ in reply:
        started = started or perf_counter()
    assert started
    return perf_counter() - started


def _ratio(plain: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    ratios = sorted(a / b for a, b in zip(plain, other, strict=True))
    quarter = len(ratios) // 4
    return {
        "median": statistics.median(ratios), "low": ratios[quarter], "high": ratios[-quarter - 1],
    }  # fmt: skip


def _text(found: dict[str, Any]) -> str:
    lines = [f"host time of a round beyond its passes, ms (goal {LIMIT_MS}):"]
    for name, by_length in found["round_ms"].items():
        each = ", ".join(f"{ms:.3f} with {n}" for n, ms in by_length.items())
        lines.append(f"  {name}: {each} drafted tokens")
    lines.append(f"decode speed over plain, A B B A (goal {LIMIT_RATIO} or more):")
    for name, ratio in found["ratio_to_plain"].items():
        lines.append(f"  {name}: {ratio['median']:.3f} ({ratio['low']:.3f} .. {ratio['high']:.3f})")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
