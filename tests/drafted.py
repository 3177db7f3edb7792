"""Replies with drafts, run to their end, and the law of what they say."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf

import numpy as np

from localspec.decode.drafters.base import Draft
from localspec.decode.driver import Batch, Slot, step
from localspec.decode.generation import Generation
from localspec.decode.speculator import Fixed, Plain, Speculator
from localspec.decode.step import Step
from localspec.engine.base import Context, Engine, hold
from localspec.engine.sampling import Chooser


def run(slots: Sequence[Slot], engine: Engine, speculator: Speculator) -> list[list[Step]]:
    """To the end of all: the steps of each."""
    steps: dict[int, list[Step]] = {id(slot.generation): [] for slot in slots}
    while not all(slot.generation.is_finished for slot in slots):
        batch = Batch.of(slots, 512)
        done = step(batch, engine, speculator)
        for generation, one in zip(batch.generations, done, strict=True):
            steps[id(generation)].append(one)
    return [steps[id(slot.generation)] for slot in slots]


def assert_same(
    context: Context,
    prompts: Sequence[Sequence[int]],
    found: Sequence[Sequence[int]],
    plain: Sequence[Sequence[int]],
) -> None:
    """Each text is the plain one, or parts from it where the best two all but tie: passes of other
    widths round otherwise, and their margin is at most twice what rounding makes there."""
    for prompt, text, other in zip(prompts, found, plain, strict=True):
        if list(text) == list(other):
            continue
        place = next(i for i, pair in enumerate(zip(text, other, strict=False)) if len({*pair}) > 1)
        before = [*prompt, *text[:place]]
        at_once = hold(context, before, 1).row(0).copy()
        context.truncate(0)
        for token in before[:-1]:
            context.eval([token], 0)
        rounding = float(np.abs(context.eval(before[-1:], 1).row(0) - at_once).max())
        margin = abs(float(at_once[text[place]] - at_once[other[place]]))
        assert margin <= 2 * rounding, f"{text} parts from {other} at {place}"
        context.truncate(0)


class SometimesFixed(Fixed):
    """Drafts in some passes only, and leaves the head alone for long in between."""

    n_passes = 0

    def draft(
        self, asked: Sequence[Generation], n_other_rows: int = 0, limit_s: float = inf
    ) -> list[Draft]:
        self.n_passes += 1
        drafts = self.n_passes % 24 in (2, 3, 5, 6, 7, 21, 22, 23)
        return super().draft(asked) if drafts else Plain().draft(asked)


Pair = tuple[int, int]


def odds(context: Context, prompt: list[int], chooser: Chooser) -> dict[Pair, float]:
    """The target's own, of the first two tokens."""
    found: dict[Pair, float] = {}
    first = chooser.distribution(hold(context, prompt, 1), 0, prompt)
    for a, p in zip(first.ids.tolist(), first.probabilities.tolist(), strict=True):
        text = [*prompt, a]
        second = chooser.distribution(hold(context, text, 1), 0, text)
        for b, q in zip(second.ids.tolist(), second.probabilities.tolist(), strict=True):
            found[a, b] = p * q
    return found


@dataclass
class Sampled:
    """The first two tokens of many replies, and what became of drafts."""

    seen: Counter[Pair]
    drafted: int = 0
    accepted: int = 0

    @property
    def acceptance(self) -> float:
        return self.accepted / self.drafted

    def assert_law(self, expected: Mapping[Pair, float]) -> None:
        """Chi-square, at 5 standard deviations."""
        n = self.seen.total()
        cells = {cell: n * p for cell, p in expected.items() if n * p >= 3}
        chi_square = sum((self.seen[cell] - mean) ** 2 / mean for cell, mean in cells.items())
        assert chi_square < len(cells) + 5 * (2 * len(cells)) ** 0.5
        assert self.seen.keys() <= expected.keys()


def sampled(n: int, first: Generation, context: Context, speculator: Speculator) -> Sampled:
    """`n` replies like the first, each of another seed."""
    found, prompt = Sampled(Counter()), first.history[: first.n_prompt]
    for seed in range(n):
        sampling = replace(first.request(0).sampling, seed=seed)
        law = "rejection" if first.law == "rejection" else "match"
        generation = Generation(prompt, sampling, first.limits, law)
        (steps,) = run([Slot(generation, context)], context.engine, speculator)
        a, b = generation.tokens[:2]
        found.seen[a, b] += 1
        found.drafted += sum(each.drafted for each in steps)
        found.accepted += sum(each.accepted for each in steps)
    return found
