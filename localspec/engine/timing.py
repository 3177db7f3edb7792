"""Timed passes: what the engine takes over n tokens behind a context of some depth.

Contexts hold made-up tokens, because speed does not depend on the text. Only the time inside the
engine (`busy_s`) counts. Other programs only ever add to it, so compared things take turns, there
and back (A B C, C B A): a disturbance then falls on all of them alike.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from math import inf
from statistics import median
from time import perf_counter
from typing import Protocol, TypeVar

import numpy as np

from localspec.engine.base import Context, Engine, EngineConfig, Head, Holder, hold
from localspec.engine.interrupt import Interrupt, Interrupted
from localspec.engine.vocabulary import ModelVocabulary
from localspec.model.facts import HeadFacts

SEED = 1
FEWEST, MOST, ENOUGH_S, LONG_S = 2, 25, 0.03, 0.05
"""Repeats of a pass: until they have taken enough; a long one is not repeated."""

T = TypeVar("T")


class Timed(Protocol):
    """What sums the seconds inside it, and can be interrupted: an engine or a draft head."""

    busy_s: float

    @property
    def interrupt(self) -> Interrupt: ...

    @property
    def config(self) -> EngineConfig: ...

    @property
    def vocabulary(self) -> ModelVocabulary: ...

    def set_threads(self, n_threads: int, n_threads_batch: int) -> None:
        """From the next decode on."""
        ...

    def scratch(self) -> "Scratch":
        """The first sequence for measurements before it is used; to be left empty."""
        ...


class Scratch(Holder, Protocol):
    """A sequence for measurements; see `engine.base.Context`."""

    @property
    def engine(self) -> Timed: ...

    def truncate(self, n: int) -> None: ...

    def checkpoint(self) -> None: ...


class TimedEngine(Timed, Engine, Protocol):
    """An engine that can be timed."""

    @property
    def vocabulary(self) -> ModelVocabulary: ...

    def context(self) -> "TimedContext": ...

    def scratch(self) -> "TimedContext": ...

    def head(self, facts: HeadFacts, n: int) -> "TimedHead":
        """A draft head for drafts of at most `n` tokens. EngineError where this engine, or its
        build, cannot have it."""
        ...


class TimedHead(Timed, Head, Protocol):
    """A draft head that can be timed; hidden states of measurements are zeros."""


class TimedContext(Context, Scratch, Protocol):
    """A sequence of an engine that sums its seconds."""

    @property
    def engine(self) -> TimedEngine: ...


def made_up_tokens(n_vocab: int, n_tokens: int) -> list[int]:
    """The same tokens each time; fewer are a prefix of more, so that a cache of them is reused."""
    return np.random.default_rng(SEED).integers(n_vocab, size=n_tokens).tolist()


def there_and_back(items: Sequence[T], n_rounds: int) -> Iterator[Sequence[T]]:
    """The items of each round: as given, then backwards, and so on."""
    return (items[::-1] if i % 2 else items for i in range(n_rounds))


def shortest(
    items: Sequence[T],
    seconds: Callable[[T], float],
    n_rounds: int,
    is_over: Callable[[], bool] = lambda: False,
) -> dict[T, float]:
    """The least seconds of each item, in rounds there and back; when time `is_over`, whoever was
    timed once is not asked again."""
    found: dict[T, float] = {}
    for item in chain.from_iterable(there_and_back(items, n_rounds)):
        if item in found and is_over():
            break
        found[item] = min(seconds(item), found.get(item, inf))
    return found


class Clock:
    """A budget of seconds, running from its creation; `now` tells the time."""

    def __init__(self, budget_s: float, now: Callable[[], float] = perf_counter) -> None:
        self.budget_s = budget_s
        self._now, self._started = now, now()

    @property
    def spent_s(self) -> float:
        return self._now() - self._started

    @property
    def left_s(self) -> float:
        return self.budget_s - self.spent_s

    def until(self, share: float) -> float:
        """Seconds until that share of the whole budget is spent; negative afterwards."""
        return share * self.budget_s - self.spent_s

    def within(self, limit_s: float, most_s: float = inf) -> "Clock":
        """Another budget from now on: the lesser of both."""
        return Clock(min(limit_s, most_s), self._now)


class Timer:
    """Times passes of one sequence; what it holds at the end is for the caller to forget."""

    def __init__(self, context: Scratch) -> None:
        self.context = context
        self._tokens: list[int] = []

    def hold(self, depth: int) -> float:
        """Make the cache hold the first `depth` made-up tokens. Seconds that reading them took."""
        before = self.context.engine.busy_s
        hold(self.context, self._some(0, depth), 0)
        seconds = self.context.engine.busy_s - before
        self.context.checkpoint()
        return seconds

    def seconds(self, n_tokens: int, depth: int, turn: int = 0) -> float:
        """One pass over `n_tokens` behind `depth` cached ones, forgotten again.

        Logits come of all tokens, as a draft's check wants them, or of as many as the engine has
        room for. Another `turn` takes other tokens, because experts are chosen by token. Raises
        Interrupted on request.
        """
        context, engine = self._ready(depth), self.context.engine
        before = engine.busy_s
        tokens = self._some(depth + turn * n_tokens, n_tokens)
        context.eval(tokens, min(n_tokens, engine.config.n_outputs))
        seconds = engine.busy_s - before
        context.truncate(depth)
        return seconds

    def token_s(self, n_tokens: int, depth: int) -> float:
        """Seconds a token of decoding `n_tokens` one by one from `depth` on, forgotten again."""
        context, engine = self._ready(depth), self.context.engine
        before = engine.busy_s
        for token in self._some(depth, n_tokens):
            context.eval([token], 1)
        seconds = engine.busy_s - before
        context.truncate(depth)
        return seconds / n_tokens

    def median(self, n_tokens: int, depth: int) -> float:
        """The median of some passes, after one that builds the graph and warms up."""
        first_s = self.seconds(n_tokens, depth)
        if first_s > LONG_S:
            return first_s
        times: list[float] = []
        while len(times) < FEWEST or (len(times) < MOST and sum(times) < ENOUGH_S):
            times.append(self.seconds(n_tokens, depth, len(times) + 1))
        return median(times)

    def _ready(self, depth: int) -> Scratch:
        if self.context.engine.interrupt.requested:
            raise Interrupted
        if len(self.context.tokens) != depth:
            self.hold(depth)
        return self.context

    def _some(self, start: int, n_tokens: int) -> list[int]:
        end = start + n_tokens
        if end > len(self._tokens):
            n_vocab = self.context.engine.vocabulary.n_tokens
            self._tokens = made_up_tokens(n_vocab, max(1024, 2 * end))
        return self._tokens[start:end]
