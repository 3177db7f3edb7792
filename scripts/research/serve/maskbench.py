"""Schemas of MaskBench: valid instances accepted, invalid ones refused, with drafts; mask times.

    scripts/research/run maskbench FILE [--vocabulary MODEL.gguf]... [--limit N] [--json]

FILE has a JSON object a line: `name`, `schema`, `tests` with `valid` and `data`, as
https://github.com/guidance-ai/jsonschemabench writes them. A model that would say an instance is
played by its tokens; what it says is kept or not by a reply's own generation, with drafts that are
right, wrong and forced in turn. Times are those of a whole mask, at each place of the instances.
"""

import json
import random
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import typer
from models import smollm2

from localspec.decode.drafters.base import Draft
from localspec.decode.generation import Generation, Limits
from localspec.engine.constraint import Constraint, Grammar, GrammarTokenizer
from localspec.engine.sampling import Sampling
from localspec.errors import UserError

MOST_TOKENS = 4096
"""Of an instance; longer ones are left out and counted."""
N_DRAFT = 4
PROMPT = [0]


class Rows:
    """What a model's passes give that wants to say `wanted`, from place `start` on."""

    def __init__(self, wanted: Sequence[int], start: int, n_vocab: int) -> None:
        self._wanted, self._start, self._n_vocab = wanted, start, n_vocab

    def row(self, i: int) -> npt.NDArray[np.float32]:
        row = np.zeros(self._n_vocab, np.float32)
        row[self.argmax(i)] = 1.0
        return row

    def argmax(self, i: int) -> int:
        place = min(self._start + i, len(self._wanted) - 1)
        return self._wanted[place]


@dataclass
class Found:
    """Of one vocabulary. Times are seconds of one mask, of first masks, and of compiling."""

    vocabulary: str
    n_vocab: int
    schemas: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    mask_s: list[float] = field(default_factory=list[float])
    first_s: list[float] = field(default_factory=list[float])
    passes: int = 0
    tokens: int = 0

    @property
    def document(self) -> dict[str, Any]:
        """For JSON."""
        figures = {name: _quantiles(getattr(self, name)) for name in ("mask_s", "first_s")}
        return {**asdict(self), "counts": dict(self.counts), **figures}


def _quantiles(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds) or [0.0]
    return {
        "mean": statistics.fmean(ordered),
        "p50": ordered[len(ordered) // 2],
        "p99": ordered[int(0.99 * (len(ordered) - 1))],
        "max": ordered[-1],
    }


def keeps(wanted: list[int], constraint: Constraint, eog: frozenset[int], found: Found) -> bool:
    """Whether a reply that wants to say this can, to its end, whoever drafts."""
    n_vocab, end = found.n_vocab, min(eog)
    limits = Limits(len(wanted) + 64, None, eog)
    generation = Generation(PROMPT, Sampling(temperature=0), limits, "match", constraint)
    script, dice = [*wanted, end], random.Random(len(wanted))
    while not generation.is_finished:
        start = generation.n_tokens
        draft = _draft(script, start, generation.history, constraint, dice)
        room = max(0, generation.room)
        new = generation.accept(Draft(draft[:room], "played"), Rows(script, start, n_vocab))
        found.passes += 1
        found.tokens += len(new)
        if generation.tokens != wanted[: generation.n_tokens]:
            return False
    return generation.finish_reason == "stop" and generation.tokens == wanted


def _draft(
    script: list[int], start: int, history: list[int], constraint: Constraint, dice: random.Random
) -> list[int]:
    """Right, wrong in the middle, forced, or none."""
    kind, right = dice.randrange(4), script[start : start + N_DRAFT]
    if kind == 1 and len(right) > 1:
        right[len(right) // 2] = dice.choice(script)
    if kind == 2:
        return constraint.forced(history)
    return right if kind != 3 else []


def timed(wanted: list[int], constraint: Constraint, found: Found) -> None:
    """Seconds of each whole mask of an instance."""
    history = list(PROMPT)
    for i, token in enumerate([*wanted, -1]):
        started = perf_counter()
        constraint.allowed(history)
        seconds = perf_counter() - started
        (found.mask_s if i else found.first_s).append(seconds)
        history.append(token)


def _instances(case: dict[str, Any], vocabulary: Any) -> Iterator[tuple[bool, list[int]]]:
    for test in case.get("tests", []):
        text = json.dumps(test["data"], ensure_ascii=False)
        yield (
            test["valid"],
            vocabulary.tokenize(text, add_special=False, parse_special=False, goes_on=True),
        )


def judge(cases: Sequence[dict[str, Any]], path: Path) -> Found:
    """Every schema with the vocabulary of a model file."""
    from localspec.engine.llama.vocabulary import (  # noqa: PLC0415 - --help needs no engine
        load_vocabulary,
    )

    vocabulary = load_vocabulary(path)
    tokenizer = GrammarTokenizer(vocabulary)
    found = Found(path.name, vocabulary.n_tokens)
    for case in cases:
        found.schemas += 1
        try:
            grammar = Grammar("schema", json.dumps(case["schema"])).checked()
            tokenizer.matcher(grammar)
        except UserError:
            found.counts["schemas refused"] += 1
            continue
        found.counts["schemas taken"] += 1
        for is_valid, wanted in _instances(case, vocabulary):
            if len(wanted) > MOST_TOKENS:
                found.counts["instances left out"] += 1
                continue
            kept = keeps(wanted, Constraint.of(grammar, tokenizer, 1), vocabulary.eog, found)
            kind = "valid" if is_valid else "invalid"
            found.counts[f"{kind} {'accepted' if kept else 'refused'}"] += 1
            if kept != is_valid:
                found.wrong.append(f"{case['name']}: {kind}")
            elif is_valid:
                timed(wanted, Constraint.of(grammar, tokenizer, 1), found)
    return found


def main(
    file: Path,
    vocabulary: Annotated[list[Path] | None, typer.Option(help="A model file.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many schemas; 0: all.")] = 0,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Judge the schemas of a file."""
    cases = [json.loads(line) for line in file.read_text().splitlines()][: limit or None]
    for path in vocabulary or [smollm2()]:
        found = judge(cases, path)
        if as_json:
            print(json.dumps(found.document))
            continue
        counts = ", ".join(f"{n} {what}" for what, n in sorted(found.counts.items()))
        mask, first = (_quantiles(found.mask_s), _quantiles(found.first_s))
        print(f"{found.vocabulary} ({found.n_vocab:,} tokens): {found.schemas} schemas; {counts}")
        print(f"  {found.tokens:,} tokens in {found.passes:,} passes")
        for name, each in (("mask", mask), ("first mask", first)):
            times = ", ".join(f"{key} {1e6 * value:,.0f}" for key, value in each.items())
            print(f"  {name}, microseconds: {times}")
        for wrong in found.wrong:
            print(f"  wrong: {wrong}")


if __name__ == "__main__":
    typer.run(main)
