"""The loop for many: each gets what it would get alone, however prompts are read."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeContext, FakeEngine, FakeHead
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import write_scripted

from localspec.decode.drafters.base import Draft
from localspec.decode.drafters.draft_model import ModelDrafter
from localspec.decode.drafters.heads import MtpDrafter
from localspec.decode.drafters.lookup import LookupDrafter
from localspec.decode.driver import Batch, Slot, drive, step
from localspec.decode.generation import Generation, Limits
from localspec.decode.speculator import Fixed, Plain, Speculator
from localspec.decode.step import Step
from localspec.engine.base import Engine, EngineConfig, Request, Result
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.llama.engine import LlamaEngine
from localspec.engine.sampling import Sampling
from localspec.errors import EngineError

GREEDY = Sampling(temperature=0)
SAMPLED = Sampling(temperature=1.0, seed=3)
PROMPTS = [[1, 2, 3, 1, 2], [4, 4, 5, 6, 4, 4, 5, 6, 7, 0, 1, 4, 4], [7], [1, 2, 3, 1, 3]]
SPECULATORS = {
    "plain": Plain,
    "lookup": lambda: Fixed(LookupDrafter(), 3),
    "draft": lambda: Fixed(ModelDrafter(FakeEngine(seed=9, n_sequences=4), 8), 3),
    "head": lambda: Fixed(MtpDrafter(FakeHead(FakeEngine(seed=9))), 3),
    "head of one token": lambda: Fixed(MtpDrafter(FakeHead(FakeEngine(), 1)), 3),
    "itself": lambda: Fixed(ModelDrafter(FakeEngine(n_sequences=4), 8), 2),
}


class Watched:
    """A speculator, and what its loop asked and told it."""

    def __init__(self, speculator: Speculator) -> None:
        self._speculator = speculator
        self.n_other_rows: list[int] = []
        self.passes: list[tuple[Sequence[Step], int, float]] = []

    def draft(
        self, generations: Sequence[Generation], n_other_rows: int = 0, limit_s: float = inf
    ) -> list[Draft]:
        self.n_other_rows.append(n_other_rows)
        return self._speculator.draft(generations, n_other_rows)

    def learn(self, steps: Sequence[Step], width: int, seconds: float) -> None:
        self.passes.append((steps, width, seconds))


def generations(sampling: Sampling = GREEDY, max_tokens: int = 12) -> list[Generation]:
    """One for each prompt; they end at different times."""
    return [
        Generation(prompt, replace(sampling, seed=i), Limits(512, max_tokens=max_tokens + 3 * i))
        for i, prompt in enumerate(PROMPTS)
    ]


def alone(generation: Generation, engine: FakeEngine | None = None) -> list[int]:
    """What the same request says on an engine of its own, without drafts."""
    twin = Generation(
        generation.history[: generation.n_prompt], generation._sampling, generation.limits
    )
    list(drive(twin, (engine or FakeEngine()).context(), Plain(), Interrupt()))
    return twin.tokens


def run(slots: Sequence[Slot], engine: Engine, speculator: Speculator, n_chunk: int = 512) -> None:
    """To the end of all; each pass is checked."""
    while not all(slot.generation.is_finished for slot in slots):
        batch = Batch.of(slots, n_chunk)
        before = [generation.n_tokens for generation in batch.generations]
        steps = step(batch, engine, speculator)
        for generation, n, done in zip(batch.generations, before, steps, strict=True):
            assert tuple(generation.tokens[n:]) == done.tokens
        for slot in slots:
            held = slot.context.tokens
            assert list(held) == slot.generation.history[: len(held)], "the cache is out of step"


@pytest.mark.parametrize("kind", SPECULATORS)
@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
@given(n_chunk=st.integers(1, 20), n_late=st.integers(0, 3))
@settings(max_examples=12, deadline=None)
def test_each_of_many_says_what_it_says_alone(
    kind: str, sampling: Sampling, n_chunk: int, n_late: int
) -> None:
    """Who shares a pass with strangers must get the same answer, in whatever chunks prompts come
    and whoever arrives late."""
    engine = FakeEngine(n_sequences=4)
    speculator = SPECULATORS[kind]()
    slots = [Slot(generation, engine.context()) for generation in generations(sampling)]
    early = slots[n_late:]
    for _ in range(3):
        step(Batch.of(early, n_chunk), engine, speculator)
    run(slots, engine, speculator, n_chunk)
    for slot in slots:
        assert slot.generation.tokens == alone(slot.generation)


@pytest.mark.parametrize("n_chunk", [1, 4, 5, 100])
def test_a_prompt_in_chunks_is_read_once_and_accounted_for(n_chunk: int) -> None:
    """Prefill speed and time are the first step's; chunks must neither vanish nor count twice."""
    engine = FakeEngine()
    prompt = PROMPTS[1]
    context = engine.context()
    watched = Watched(Plain())
    slot = Slot(Generation(prompt, GREEDY, Limits(512, max_tokens=3)), context)
    begun_s = slot.read_s
    run([slot], engine, watched, n_chunk)
    assert context.n_evaluated == len(prompt) + 2
    first = next(steps[0] for steps, _, _ in watched.passes if steps)
    assert first.evaluated == len(prompt)
    assert all(n <= n_chunk for n in watched.n_other_rows)
    assert sum(watched.n_other_rows) == len(prompt) - 1
    assert [steps[0].evaluated for steps, _, _ in watched.passes if steps][1:] == [1, 1]
    n_before = sum(not steps for steps, _, _ in watched.passes)
    assert n_before == (len(prompt) - 2) // n_chunk, "a chunk has no step"
    passes_s = sum(seconds for _, _, seconds in watched.passes[: n_before + 1])
    assert first.seconds == pytest.approx(begun_s + passes_s)


def test_only_the_first_pass_of_one_reply_reads_its_prompt() -> None:
    """A policy prices drafts by the rows that go along: later passes have none."""
    watched = Watched(Plain())
    generation = Generation(PROMPTS[0], GREEDY, Limits(512, max_tokens=3))
    list(drive(generation, FakeEngine().context(), watched, Interrupt()))
    assert watched.n_other_rows == [len(PROMPTS[0]) - 1, 0, 0]


def test_a_pass_is_split_by_rows() -> None:
    """A request pays for its own rows: the shares are the pass, and the widest pays most."""
    engine = FakeEngine(n_sequences=4)
    watched = Watched(Fixed(LookupDrafter(), 3))
    slots = [Slot(generation, engine.context()) for generation in generations()]
    for slot in slots:
        slot.read_s = 0.0
    run(slots, engine, watched)
    for steps, width, seconds in watched.passes:
        assert sum(done.evaluated for done in steps) == width
        assert sum(done.seconds for done in steps) == pytest.approx(seconds)
        widest = max(steps, key=lambda done: done.evaluated)
        assert widest.seconds == max(done.seconds for done in steps)


def test_a_request_without_room_ends_alone() -> None:
    """One user's overlong text must not end the answers of the others."""
    engine = FakeEngine(n_ctx=26, n_sequences=4)
    slots = [Slot(generation, engine.context()) for generation in generations(max_tokens=8)]
    too_long = Slot(Generation([1] * 30, GREEDY, Limits(512)), engine.context())
    watched = Watched(Plain())
    run([slots[0], too_long, *slots[1:2]], engine, watched, n_chunk=100)
    contexts = [too_long.context, *[slot.context for slot in slots[:2]]]
    n_evaluated = sum(context.n_evaluated for context in contexts)
    assert sum(width for _, width, _ in watched.passes) == n_evaluated, "costs are learned by it"
    assert isinstance(too_long.generation.error, EngineError)
    assert (too_long.generation.finish_reason, too_long.generation.tokens) == ("failed", [])
    for slot in slots[:2]:
        assert slot.generation.error is None
        assert slot.generation.tokens == alone(slot.generation)


def test_numbers_that_are_none_end_only_the_reply_that_met_them() -> None:
    """NaN comes of some tokens of a damaged model; others go on, and no token is left that no step
    told of."""
    engine = FakeEngine(n_sequences=4)
    whole = alone(generations()[0])
    engine.table[whole[3], whole[4]] = np.nan
    watched = Watched(Fixed(ModelDrafter(FakeEngine(n_sequences=4), 8), 3))
    slots = [Slot(generation, engine.context()) for generation in generations()]
    run(slots, engine, watched)
    failed = [slot.generation for slot in slots if slot.generation.error]
    assert slots[0].generation in failed
    assert slots[0].generation.tokens == whole[: len(slots[0].generation.tokens)]
    assert sum(len(each.tokens) for steps, _, _ in watched.passes for each in steps) == sum(
        slot.generation.n_tokens for slot in slots
    )
    for slot in slots:
        if slot.generation not in failed:
            assert slot.generation.tokens == alone(slot.generation, engine)


def test_a_prompt_without_room_ends_while_it_is_read_in_chunks() -> None:
    """A server reads it for a while before it learns of that; the slot must come free."""
    engine = FakeEngine(n_ctx=26, n_sequences=4)
    too_long = Slot(Generation([1] * 60, GREEDY, Limits(512)), engine.context())
    other = Slot(generations(max_tokens=8)[0], engine.context())
    for _ in range(12):
        step(Batch.of([too_long, other], 10), engine, Plain())
    assert isinstance(too_long.generation.error, EngineError)
    assert other.generation.tokens == alone(other.generation)


@pytest.mark.parametrize("n_held", [0, 1, 3])
def test_after_an_interrupted_pass_all_go_on_as_if_nothing_had_been(n_held: int) -> None:
    """A server that stops a pass for one user goes on with the others."""
    engine = FakeEngine(n_sequences=4)
    speculator = Fixed(LookupDrafter(), 3)
    slots = [Slot(generation, engine.context()) for generation in generations()]
    for _ in range(4):
        step(Batch.of(slots, 512), engine, speculator)
    decode = engine.decode

    def interrupted(requests: Sequence[Request]) -> list[Result]:
        for context, tokens, _ in requests:
            assert isinstance(context, FakeContext)
            context.tokens.extend(tokens[:n_held])
        raise Interrupted

    engine.decode = interrupted
    with pytest.raises(Interrupted):
        step(Batch.of(slots, 512), engine, speculator)
    engine.decode = decode
    run(slots, engine, speculator)
    for slot in slots:
        assert slot.generation.tokens == alone(slot.generation)


ANSWERS = {
    "a": "Lighthouses are towers with a lamp that warns ships of rocks.",
    "b": "No.",
    "c": "One two three one two three one two three one two four.",
}


@pytest.fixture
def engine(tmp_path: Path) -> LlamaEngine:
    model = write_scripted(tmp_path / "scripted.gguf", ANSWERS)
    return LlamaEngine(EngineConfig.of(model, ctx=96, threads=1, n_sequences=4, n_outputs=16))


def asked(engine: LlamaEngine, key: str, max_tokens: int | None = None) -> Slot:
    vocabulary = engine.vocabulary
    prompt = vocabulary.tokenize(f"<|user|>What is it, {key}<|assistant|>{key}", add_special=True)
    limits = Limits(engine.config.n_ctx, max_tokens, vocabulary.eog)
    return Slot(Generation(prompt, GREEDY, limits), engine.context())


@pytest.mark.engine
@pytest.mark.parametrize("n_chunk", [3, 512])
@pytest.mark.parametrize("kind", ["plain", "lookup"])
def test_libllama_answers_many_at_once(engine: LlamaEngine, kind: str, n_chunk: int) -> None:
    """Rows of one request must reach only that one, also where one of them does not fit."""
    slots = [asked(engine, key) for key in ANSWERS]
    overlong = Slot(Generation([65] * 120, GREEDY, Limits(512)), engine.context())
    run([slots[0], overlong, *slots[1:]], engine, SPECULATORS[kind](), n_chunk)
    assert "--ctx" in str(overlong.generation.error)
    for slot, answer in zip(slots, ANSWERS.values(), strict=True):
        pieces = [engine.vocabulary.piece(token) for token in slot.generation.tokens]
        assert b"".join(pieces).decode() == answer
        assert slot.generation.finish_reason == "stop"
    engine.close()
