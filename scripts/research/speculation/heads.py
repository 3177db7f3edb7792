"""What a draft head costs beside its own passes, and what one that does not pay costs a reply.

    scripts/research/run bench-heads [--json]

Heads with random weights draft, because times do not depend on values: EAGLE-3, DFlash and DSpark
for SmolLM2-135M; EAGLE-3 again, MTP and a Gemma 4 assistant for thin models of as many tokens
(49k), which leave more of the processor's caches to Python. Hardly any of their guesses stand.

1. In one process, by kind and length of draft: a step's wall time less the time inside the engine
   for the target and the head, less the same of plain steps, in turns. Goal: 0.2 ms a round.
2. The same with the engine's calls left out, which is Python alone, with warm caches and with data
   caches that are emptied before each step: what a round takes beyond that is caches that each call
   of the engine leaves cold.
3. Decode speed with EAGLE-3 parked over plain decoding without one: both decode the same reply
   on one context, in turns, 8 tokens each time; and plain decoding over itself. Goal: 0.99 at
   least. A process has a fast or a slow state, so that pairs within one show what replies do not.
"""

import json
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Any
from unittest.mock import patch

import numpy as np
import typer
from babbling import write_babbling_model
from beside import SMALL, write_assistant, write_dflash, write_eagle3, write_gemma4
from heads import write_agreeing
from models import smollm2

from localspec.decode.driver import Batch, Slot, drive, step
from localspec.decode.policy import Adaptive
from localspec.decode.speculator import Plain
from localspec.engine.sampling import Sampling
from localspec.gguf.reader import read_header
from localspec.model.synthetic import Shape
from localspec.session.reply_options import ReplyOptions
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig
from localspec.settings import NONE, OWN

SMOLLM2 = Shape(30, 576, 9, 3, 1536, 49152)
PROMPT = "The lighthouse keeper wrote in the log every evening. Tonight the entry began"
LENGTHS = (1, 3, 8)
BLOCK, N_LEARNING = 8, 3
"""Tokens of a block; rounds in which the head is tried and parked."""
LIMIT_MS, LIMIT_RATIO = 0.2, 0.99
N_CTX, WRONG = 1024, 1.0
WASTE = np.zeros(48 << 20, np.uint8)
"""More than the processor's caches hold."""


def main(
    max_tokens: Annotated[int, typer.Option("-n", "--max-tokens")] = 128,
    rounds: Annotated[int, typer.Option(help="Of both measurements.")] = 5,
    part: Annotated[str, typer.Option(help="rounds, python, parked or all.")] = "all",
    only: Annotated[str, typer.Option(help="Kinds of heads whose name begins so.")] = "",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Measure, and compare with the goals."""
    with TemporaryDirectory() as folder:
        pairs, found = _pairs_of(Path(folder)), dict[str, Any]()
        chosen = {name: pair for name, pair in pairs.items() if name.startswith(only)}
        for name, measure in {"rounds": _rounds, "python": _python}.items():
            if part in (name, "all"):
                found[f"{name}_ms"] = {
                    kind: measure(pair, max_tokens, rounds) for kind, pair in chosen.items()
                }
        if part in ("parked", "all"):
            found["ratio_to_plain"] = _parked(pairs["EAGLE-3"], max_tokens, rounds)
    print(json.dumps(found) if as_json else _text(found))


@dataclass(frozen=True)
class _Pair:
    """A target, a head, and the value of --spec that means it."""

    target: Path
    head: Path | str
    spec: str


def _pairs_of(folder: Path) -> dict[str, _Pair]:
    target, n = smollm2(), SMOLLM2.n_vocab
    metadata = read_header(target).metadata
    words = {key: value for key, value in metadata.items() if key.startswith("tokenizer.")}
    inside = write_agreeing(folder / "mtp.gguf", WRONG, "dense", n_vocab=n)
    gemma = write_gemma4(folder / "gemma.gguf", is_silent=False, n_vocab=n)
    assistant = write_assistant(folder / "assistant.gguf", WRONG, n)
    blocks = {
        name: write_dflash(folder / f"{name}.gguf", SMOLLM2, words, is_dspark=name == "DSpark")
        for name in ("DFlash", "DSpark")
    }
    thin, shape = folder / "thin.gguf", replace(SMALL, n_vocab=n)
    write_babbling_model(thin, shape, "F16")
    return {
        "EAGLE-3, thin model": _Pair(thin, write_eagle3(folder / "thin-e.gguf", shape), "eagle3"),
        "EAGLE-3": _Pair(target, write_eagle3(folder / "e.gguf", SMOLLM2, None, words), "eagle3"),
        "MTP": _Pair(inside, OWN, "mtp"),
        "Gemma 4 assistant": _Pair(gemma, assistant, "mtp"),
        **{name: _Pair(target, path, "dflash") for name, path in blocks.items()},
    }


def _session(pair: _Pair, **settings: Any) -> Session:
    return Session.open(SessionConfig.of(pair.target, pair.head, ctx=N_CTX, **settings))


def _options(n_tokens: int, temperature: float = 0.0) -> ReplyOptions:
    sampling = Sampling(temperature=temperature, seed=3)
    return ReplyOptions(sampling, n_tokens, ignore_eos=True, verify="rejection")


def _rounds(pair: _Pair, n_tokens: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a drafting step outside the engine, beyond a plain step's."""
    with _session(pair, spec=pair.spec, draft_max=max(LENGTHS)) as session:
        return {
            name: _beyond_plain(session, _options(n_tokens, temperature), pair.spec, rounds)
            for name, temperature in (("greedy", 0.0), ("sampled", 0.8))
        }


def _python(pair: _Pair, n_tokens: int, rounds: int) -> dict[str, Any]:
    """The same without any call of the engine, whose last scores stand for all."""
    with _session(pair, spec=pair.spec, draft_max=max(LENGTHS)) as session, ExitStack() as stack:
        assert session.head
        options = _options(n_tokens)
        _beyond_plain(session, options, pair.spec, 1)
        stack.enter_context(patch.object(session.target, "_decode_batch", lambda: 0))
        stack.enter_context(patch.object(session.head, "evaluate", _nothing))
        return {
            name: _beyond_plain(session, options, pair.spec, rounds, empties=empties)
            for name, empties in (("warm caches", False), ("emptied caches", True))
        }


def _nothing(filled: object, call: object = None) -> None:
    """In place of a head's pass."""


def _beyond_plain(
    session: Session, options: ReplyOptions, spec: str, rounds: int, *, empties: bool = False
) -> dict[int, float]:
    """By length of draft."""
    assert session.head
    prompt, n_longest = session.raw_prompt(PROMPT), session.head.n_longest
    costs: dict[int, list[float]] = {n: [] for n in (0, *LENGTHS) if n <= n_longest}
    for i in range(2 * rounds):
        for n in list(costs)[:: 1 if i % 2 else -1]:
            how = spec if n else NONE
            costs[n] += _outside_ms(session, prompt, options, (how, n), empties=empties)
    plain = statistics.median(costs.pop(0))
    return {n: statistics.median(each) - plain for n, each in costs.items()}


def _outside_ms(
    session: Session,
    prompt: Sequence[int],
    options: ReplyOptions,
    how: tuple[str, int],
    *,
    empties: bool,
) -> list[float]:
    """Of each step after the second, which builds graphs. `how`: --spec, and a draft's length."""
    assert session.head
    speculator = session.speculator(*how)
    last, last_busy, found = None, 0.0, list[float]()
    session.context.truncate(0)
    generation = session.generations.of(prompt, session.effective(options))
    for _ in drive(generation, session.context, speculator, session.target.interrupt):
        now, busy = perf_counter(), session.target.busy_s + session.head.busy_s
        if last is not None:
            found.append(1e3 * ((now - last) - (busy - last_busy)))
        if empties:
            WASTE[::64] += 1
        last, last_busy = perf_counter(), busy
    return found[2:]


class _Run:
    """A reply in progress on the session's context, with the head or as if there were none."""

    def __init__(self, session: Session, prompt: Sequence[int], n: int, *, has_head: bool) -> None:
        self._engine, self._context = session.target, session.context
        self._features = session.target.features if has_head else None
        self.generation = session.generations.of(prompt, session.effective(_options(n)))
        session.context.truncate(0)
        slot = Slot(self.generation, session.context)
        self._batch = Batch.of([slot], len(prompt))
        drafters = [session._drafters["eagle3"]]
        learned, n_longest = session.learned(), session.plan.max_draft
        self._speculator = Adaptive(learned, drafters, n_longest) if has_head else Plain()
        self.n_drafted = 0
        self.seconds_to(len(prompt) + 1)

    def seconds_to(self, n_tokens: int) -> float:
        """Decode until the text has so many tokens."""
        self._engine.features = self._features
        self._context.go_back(len(self.generation.history) - 1)
        started = perf_counter()
        while len(self.generation.history) < n_tokens and not self.generation.is_finished:
            (made,) = step(self._batch, self._engine, self._speculator)
            self.n_drafted += made.drafted
        return perf_counter() - started


def _parked(pair: _Pair, n_tokens: int, rounds: int) -> dict[str, Any]:
    """Ratios of decode speed to plain decoding's, over blocks of both in turns."""
    with _session(pair) as session:
        prompt, features = session.raw_prompt(PROMPT), session.target.features
        ratios: dict[str, list[float]] = {"parked head": [], "plain": []}
        for i in range(4 * rounds + N_LEARNING):
            for name, found in ratios.items():
                session.target.features = features
                session.forget()
                runs = [
                    _Run(session, prompt, n_tokens, has_head=has_head)
                    for has_head in (name != "plain", False)
                ]
                pairs = _pairs(runs, len(prompt) + 1, n_tokens)
                if i >= N_LEARNING and not runs[0].n_drafted:
                    found += pairs
        session.target.features = features
    return {name: _ratio(found) for name, found in ratios.items()}


def _pairs(runs: Sequence[_Run], start: int, n_tokens: int) -> list[float]:
    """Plain time over the other's, block by block."""
    found: list[float] = []
    for i, end in enumerate(range(start + BLOCK, start + n_tokens, BLOCK)):
        times = [0.0, 0.0]
        for k in (0, 1) if i % 2 else (1, 0):
            times[k] = runs[k].seconds_to(end)
        found.append(times[1] / times[0])
    return found


def _ratio(ratios: Sequence[float]) -> dict[str, float]:
    """Their mean without a tenth at each end, with its bootstrap interval."""
    random = np.random.default_rng(1)
    means = np.sort([_trimmed(random.choice(ratios, len(ratios))) for _ in range(1000)])
    return {
        "mid": _trimmed(np.array(ratios)), "low": float(means[25]), "high": float(means[-26]),
        "pairs": len(ratios),
    }  # fmt: skip


def _trimmed(ratios: np.ndarray) -> float:
    logs, n = np.sort(np.log(ratios)), len(ratios) // 10
    return float(np.exp(logs[n : len(logs) - n].mean()))


def _text(found: dict[str, Any]) -> str:
    lines: list[str] = []
    heads = {"rounds_ms": "beyond its passes", "python_ms": "without any pass"}
    for name, what in heads.items():
        if name not in found:
            continue
        lines.append(f"host time of a round {what}, ms (goal {LIMIT_MS}):")
        for kind, by_way in found.get(name, {}).items():
            for way, by_length in by_way.items():
                each = ", ".join(f"{ms:.3f} with {n}" for n, ms in by_length.items())
                lines.append(f"  {kind}, {way}: {each} drafted tokens")
    lines.append(f"decode speed over plain, in turns (goal {LIMIT_RATIO} or more):")
    for name, r in found.get("ratio_to_plain", {}).items():
        interval = f"({r['low']:.3f} to {r['high']:.3f}, {r['pairs']} pairs)"
        lines.append(f"  {name}: {r['mid']:.3f} {interval}")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
