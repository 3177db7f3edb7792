"""Random schedules of requests on an engine that is nothing but its cells.

The engine of these tests keeps a pool of cells. A cell has a token, the sequences that it belongs
to, and a digest of all that came before it. Logits come from the digest of the last cell alone, so
whatever a cache holds that it should not changes an answer. A sequence's `tokens` are kept apart
from its cells, as an engine's claim is from its memory, and compared after each pass.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import numpy as np
from fakes import FakeLogits, FakeVocabulary

from localspec.decode.costs import PassCosts
from localspec.decode.curve import PassCurve
from localspec.decode.drafters.base import NO_DRAFT, Draft
from localspec.decode.drafters.lookup import LookupDrafter
from localspec.decode.driver import drive
from localspec.decode.generation import Generation, Limits
from localspec.decode.speculator import Fixed, Plain, Speculator
from localspec.dialogue.answer_parser import AnswerParser
from localspec.dialogue.markup import PLAIN
from localspec.engine.base import Request, Result, rows_of
from localspec.engine.interrupt import Interrupt
from localspec.engine.sampling import Sampling
from localspec.errors import EngineError, ModelError
from localspec.serve.messages import END, Abort, Delta, Done, Drain, Event, Failed, Submit, Taken
from localspec.serve.pace import Paced
from localspec.serve.prefixes import Prefixes
from localspec.serve.queue import Room
from localspec.serve.scheduler import Scheduler

N_VOCAB, N_CTX = 6, 120
N_ROWS = 4096
TABLE = np.random.default_rng(7).normal(0, 2, (N_ROWS, N_VOCAB)).astype(np.float32)
N_POISONED = 6
"""Of the rows hold NaN: who comes there fails, and nobody else."""
TABLE[:N_POISONED] = np.nan
END_TOKEN = 5
COSTS = PassCosts(PassCurve.of([[1, 0.01, 0.0], [101, 0.11, 0.0]]))


def row_of(digest: int) -> np.ndarray:
    return TABLE[digest % N_ROWS]


@dataclass(eq=False, slots=True)
class Cell:
    token: int
    digest: int
    owners: set[int] = field(default_factory=set)


@dataclass(eq=False)
class CellContext:
    engine: "CellEngine"
    id: int
    tokens: list[int] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    n_before: int = 0
    checkpoints: list[int] = field(default_factory=list)

    def eval(self, tokens: Sequence[int], n_logits: int) -> FakeLogits:
        return rows_of(self.engine.decode([(self, tokens, n_logits)])[0])

    def go_back(self, n: int) -> None:
        assert n >= 0
        if n >= len(self.tokens):
            return
        limit = self.engine.rollback_limit
        if limit is not None and not (n > self.n_before and len(self.tokens) - n <= limit):
            n = max((c for c in self.checkpoints if c <= n), default=0)
        self.keep(n)

    def keep(self, n: int) -> None:
        for cell in self.cells[n:]:
            cell.owners.discard(self.id)
            self.engine.n_used -= not cell.owners
        del self.cells[n:], self.tokens[n:]
        self.checkpoints = [c for c in self.checkpoints if c <= n]
        self.n_before = min(self.n_before, n)

    def fork(self, other: "CellContext", n: int) -> None:
        if self.engine.rollback_limit is not None:
            return
        shared = other.cells[:n]
        for cell in shared:
            cell.owners.add(self.id)
        kept = set(map(id, shared))
        for cell in self.cells:
            if id(cell) not in kept:
                cell.owners.discard(self.id)
                self.engine.n_used -= not cell.owners
        self.cells, self.tokens = list(shared), list(other.tokens[:n])

    def checkpoint_place(self, n: int) -> int | None:
        return n if self.engine.rollback_limit is not None and n > len(self.tokens) else None

    def checkpoint(self) -> None:
        self.checkpoints.append(len(self.tokens))

    def check(self) -> None:
        """Memory and claim agree."""
        assert [cell.token for cell in self.cells] == self.tokens
        digest = 0
        for cell in self.cells:
            digest = digest_of(digest, cell.token)
            assert cell.digest == digest
            assert self.id in cell.owners


def digest_of(before: int, token: int) -> int:
    return hash((before, token))


class CellEngine:
    """`n_cells` for all sequences; `rollback_limit` as of an engine."""

    def __init__(self, n_cells: int, rollback_limit: int | None = None) -> None:
        self.vocabulary = FakeVocabulary(N_VOCAB)
        self.n_cells, self.rollback_limit = n_cells, rollback_limit
        self.n_used = self.n_without_room = self.n_evaluated = 0
        self.contexts: list[CellContext] = []
        self.fails = False

    def context(self) -> CellContext:
        self.contexts.append(CellContext(self, len(self.contexts)))
        return self.contexts[-1]

    def close(self) -> None:
        pass

    def decode(self, requests: Sequence[Request]) -> list[Result]:
        if self.fails:
            self.fails = False
            raise EngineError("the device was lost")
        assert len({id(context) for context, _, _ in requests}) == len(requests)
        return [self._one(*request) for request in requests]

    def _one(self, context: CellContext, tokens: Sequence[int], n_logits: int) -> Result:
        assert tokens
        if self.n_used + len(tokens) > self.n_cells or len(context.tokens) + len(tokens) > N_CTX:
            self.n_without_room += 1
            return EngineError("there is no room")
        context.n_before = len(context.tokens)
        for token in tokens:
            digest = digest_of(context.cells[-1].digest if context.cells else 0, token)
            context.cells.append(Cell(token, digest, {context.id}))
        context.tokens += tokens
        self.n_used += len(tokens)
        self.n_evaluated += len(tokens)
        rows = [row_of(cell.digest) for cell in context.cells[len(context.cells) - n_logits :]]
        return FakeLogits(np.array(rows).reshape(n_logits, N_VOCAB))


class Guesses:
    """Drafts of any length, right by chance, never longer than asked."""

    source = "lookup"
    n_longest = None

    def __init__(self, random: Random) -> None:
        self._random = random

    def draft(self, requests: Sequence[object]) -> list[Draft]:
        return [self._one(each.history, each.n_tokens) for each in requests]

    def _one(self, history: Sequence[int], n_tokens: int) -> Draft:
        n = self._random.randint(0, n_tokens) if n_tokens else 0
        digest, tokens = 0, []
        for token in history:
            digest = digest_of(digest, token)
        for _ in range(n):
            right = int(np.nan_to_num(row_of(digest)).argmax())
            tokens.append(right if self._random.random() < 0.7 else self._random.randrange(N_VOCAB))
            digest = digest_of(digest, tokens[-1])
        return Draft(tuple(tokens), self.source) if tokens else NO_DRAFT


class SetPace(Paced):
    """Believes the costs: passes of such an engine take no time."""

    def learn(self, *news: object) -> None:
        pass


def answer_of(generation: Generation) -> tuple[list[int], bool]:
    """What a request says alone on an engine of its own, and whether it fails."""
    twin = Generation(
        generation.history[: generation.n_prompt], generation._sampling, generation.limits
    )
    with suppress(ModelError):
        list(drive(twin, CellEngine(N_CTX).context(), Plain(), Interrupt()))
    return twin.tokens, twin.error is not None


def greedy_answer(prompt: Sequence[int], limits: Limits) -> list[int]:
    """The same for one that is greedy, without any of localspec's code."""
    said: list[int] = []
    digest = 0
    for token in prompt:
        digest = digest_of(digest, token)
    while limits.max_tokens is None or len(said) < limits.max_tokens:
        row = row_of(digest)
        if np.isnan(row).any() or len(prompt) + len(said) > limits.n_ctx:
            break
        token = int(row.argmax())
        if token in limits.stop_tokens:
            break
        said.append(token)
        digest = digest_of(digest, token)
    return said


class Schedule:
    """One house with all that can happen in it, drawn by `seed`; `run` checks everything."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        n_sequences = random.randint(1, 5)
        n_cells = random.randint(N_CTX, n_sequences * N_CTX)
        limit = random.choice([None, None, None, 8])
        self.engine = CellEngine(n_cells, limit)
        contexts = [self.engine.context() for _ in range(n_sequences)]
        self.prefixes, self.now = Prefixes(contexts), 0.0
        deadline_s = random.choice([None, None, 30.0])
        room = Room(n_cells, random.randint(0, 6), deadline_s)
        pace = SetPace(self._speculator(), COSTS, random.randint(1, 60))
        self.scheduler = Scheduler(self.engine, self.prefixes, pace, room, lambda: self.now)
        self.events: dict[int, list[Event]] = {}
        self.asked: dict[int, Generation] = {}
        self.aborted: set[int] = set()
        self.n_device_losses = 0
        stem = [random.randrange(N_VOCAB) for _ in range(90)]
        self.stems = [stem, [*stem[:40], *reversed(stem[:40])], stem[5:60]]

    def _speculator(self) -> Speculator:
        guesses = Fixed(Guesses(self.random), self.random.randint(1, 6))
        return self.random.choice([Plain(), guesses, Fixed(LookupDrafter(remembers=False), 3)])

    def run(self) -> None:
        for _ in range(self.random.randint(1, 12)):
            self._happen()
            for _ in range(self.random.randint(0, 4)):
                self._step()
        if self.random.random() < 0.2:
            self._note(self.scheduler.take(Drain()))
        for _ in range(5000):
            if self.scheduler.is_idle:
                break
            self._step()
        self._check_end()

    def _happen(self) -> None:
        kind = self.random.random()
        if kind < 0.75 or not self.asked:
            self._submit()
        elif kind < 0.93:
            self._abort(self.random.choice(list(self.asked)))
        elif kind < 0.96:
            self.now += self.random.choice([1.0, 40.0])
        else:
            self.engine.fails = True
            self.n_device_losses += 1

    def _submit(self) -> None:
        random, id_ = self.random, len(self.asked)
        earlier = [g.history for g in self.asked.values() if len(g.history) < N_CTX - 4]
        stem = random.choice([*self.stems, *earlier])
        prompt = list(stem[: random.randint(1, min(len(stem), N_CTX - 8))])
        prompt += [random.randrange(N_VOCAB) for _ in range(random.randint(0, 4))]
        sampling = Sampling(temperature=random.choice([0.0, 0.0, 1.0]), seed=id_)
        stops = frozenset({END_TOKEN}) if random.random() < 0.5 else frozenset()
        limits = Limits(N_CTX, random.choice([None, 0, 1, 5, 12, 30]), stops)
        made = self.asked[id_] = Generation(prompt, sampling, limits)
        parser = AnswerParser(PLAIN, self.engine.vocabulary)
        n_stable = random.choice([0, len(prompt) // 2])
        wait_s = random.choice([None, None, 20.0])
        self._note(self.scheduler.take(Submit(id_, made, parser, n_stable, wait_s)))

    def _abort(self, id_: int) -> None:
        if not isinstance(self.events[id_][-1], END):
            self.aborted.add(id_)
        self.scheduler.take(Abort(id_))

    def _step(self) -> None:
        self._note(self.scheduler.step())
        self.now += 0.01
        self._check()

    def _note(self, events: Sequence[Event]) -> None:
        for event in events:
            seen = self.events.setdefault(event.id, [])
            assert not (seen and isinstance(seen[-1], END)), "something comes behind the end"
            seen.append(event)

    def _check(self) -> None:
        """After each pass: memory and claims agree, and every sequence is somebody's or free."""
        for context in self.engine.contexts:
            context.check()
        live = {id(cell): cell for context in self.engine.contexts for cell in context.cells}
        assert len(live) == self.engine.n_used <= self.engine.n_cells
        assert self.engine.n_without_room == 0, "a running request met a full cache"
        running = self.scheduler.running
        assert self.prefixes.n_free + len(running) == len(self.engine.contexts)
        held = [id(job.slot.context) for job in running if job.slot]
        assert len(set(held)) == len(running), "two requests on one sequence"
        for job in running:
            history = job.generation.history
            assert job.slot.context.tokens == history[: len(job.slot.context.tokens)]

    def _check_end(self) -> None:
        assert self.scheduler.is_idle
        self._check()
        assert self.prefixes.n_free == len(self.engine.contexts), "a sequence leaked"
        for id_ in self.asked:
            self._check_request(id_)
        for context in self.engine.contexts:
            context.keep(0)
        assert self.engine.n_used == 0, "a cell leaked"

    def _check_request(self, id_: int) -> None:
        generation, last = self.asked[id_], self.events[id_][-1]
        alone, fails = answer_of(generation)
        if generation._sampling.is_greedy:
            oracle = greedy_answer(generation.history[: generation.n_prompt], generation.limits)
            assert alone == oracle
        said = "".join(
            part.text for e in self.events[id_] if isinstance(e, Delta) for part in e.parts
        )
        assert "".join(chr(97 + token) for token in alone).startswith(said)
        assert generation.tokens == alone[: generation.n_tokens]
        if id_ in self.aborted:
            assert isinstance(last, Taken | Delta)
        elif isinstance(last, Done):
            assert not fails
            assert generation.tokens == alone
            assert last.account.n_cached + last.account.timings.n_prefilled <= generation.n_prompt
            assert last.account.n_tokens == len(alone)
        else:
            assert isinstance(last, Failed)
            assert fails or not isinstance(last.error, ModelError), "somebody else's NaN"
