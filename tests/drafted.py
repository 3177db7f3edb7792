"""Replies with drafts, run to their end."""

from collections.abc import Sequence

from localspec.decode.drafters.base import Draft
from localspec.decode.driver import Batch, Slot, step
from localspec.decode.generation import Generation
from localspec.decode.speculator import Fixed, Plain, Speculator
from localspec.decode.step import Step
from localspec.engine.base import Engine


def run(slots: Sequence[Slot], engine: Engine, speculator: Speculator) -> list[list[Step]]:
    """To the end of all: the steps of each."""
    steps: dict[int, list[Step]] = {id(slot.generation): [] for slot in slots}
    while not all(slot.generation.is_finished for slot in slots):
        batch = Batch.of(slots, 512)
        done = step(batch, engine, speculator)
        for generation, one in zip(batch.generations, done, strict=True):
            steps[id(generation)].append(one)
    return [steps[id(slot.generation)] for slot in slots]


class SometimesFixed(Fixed):
    """Drafts in some passes only, and leaves the head alone for long in between."""

    n_passes = 0

    def draft(self, asked: Sequence[Generation], n_other_rows: int = 0) -> list[Draft]:
        self.n_passes += 1
        drafts = self.n_passes % 24 in (2, 3, 5, 6, 7, 21, 22, 23)
        return super().draft(asked) if drafts else Plain().draft(asked)
