"""Several settings of one model, timed in turns.

Weights are loaded once and shared; every setting has a cache of its own on them, filled to a depth
with the same random tokens. Turns go there and back (A B C C B A), so that what the machine does
meanwhile meets all of them, and a difference is judged by ratios within a turn. The first seat is
the anchor: a turn in which it takes much longer than it once did is thrown away and measured again,
because another program then had a core. On a machine that stays busy, such turns count in the end.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Self

import numpy as np

from localspec.engine.base import EngineConfig
from localspec.engine.interrupt import Interrupted
from localspec.errors import LocalspecError
from localspec.settings import Attention, Settings

if TYPE_CHECKING:
    from localspec.engine.interrupt import Interrupt
    from localspec.engine.llama.context import LlamaContext
    from localspec.engine.llama.engine import LlamaEngine

N_TOKENS = 4
"""Of one sample, unless the rig says otherwise; between two samples they are forgotten."""
CELLS = 256
DISTURBED = 1.25
"""Of the anchor's shortest time: from here on a turn is measured again."""
PAUSE_S = 0.1
SEED = 1


@dataclass(slots=True)
class Candidate:
    """A setting with a cache, and how long filling it took."""

    setting: Settings
    engine: "LlamaEngine"
    context: "LlamaContext"
    fill_s: float = 0.0
    n_filled: int = 0
    best_s: dict[int, float] = field(default_factory=dict[int, float])
    """The shortest time of a token as an anchor, by depth."""

    @property
    def fill_per_s(self) -> float | None:
        """Tokens a second of filling, so far."""
        return self.n_filled / self.fill_s if self.fill_s else None

    @property
    def threads(self) -> tuple[int, int]:
        """For decoding, and for prompts."""
        config = replace(self.engine.config, settings=self.setting)
        return config.n_threads, config.n_threads_batch

    def close(self) -> None:
        self.engine.close()


class SharedWeights:
    """Weights loaded in one way, and seats on them. Close it."""

    def __init__(self, config: EngineConfig, loading: Settings, interrupt: "Interrupt") -> None:
        """Loads. Raises ModelError, EngineError or Interrupted."""
        from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - loads libllama

        self.loading = loading
        self.n_tokens = N_TOKENS
        settings = config.settings.with_loading(loading).with_attention(Attention())
        self.config = EngineConfig(config.model, replace(settings, ctx=CELLS))
        started = perf_counter()
        self.owner = LlamaEngine(self.config, interrupt)
        self.load_s = perf_counter() - started
        self.seats: list[Candidate] = []
        n_vocab = self.owner.vocabulary.n_tokens
        self._tokens = np.random.default_rng(SEED).integers(n_vocab, size=1 << 16).tolist()

    def seat(self, setting: Settings, n_ctx: int, n_outputs: int = 1) -> Candidate:
        """A cache of `n_ctx` tokens for a setting. EngineError where the engine refuses it."""
        n_cells = -(-n_ctx // CELLS) * CELLS
        config = EngineConfig(self.config.model, replace(setting, ctx=n_cells), n_outputs)
        engine = self.owner.sibling(config)
        seat = Candidate(setting, engine, engine.context())
        self.seats.append(seat)
        return seat

    def leave(self, seat: Candidate) -> None:
        """Give a seat's memory back."""
        self.seats.remove(seat)
        seat.close()

    def fill(self, seat: Candidate, depth: int) -> None:
        """Let a cache hold the first `depth` random tokens."""
        context = seat.context
        missing = depth - len(context.tokens)
        if missing < 0:
            context.truncate(depth)
        elif missing > 0:
            started = perf_counter()
            context.eval(self._tokens[len(context.tokens) : depth], 0)
            seat.fill_s += perf_counter() - started
            seat.n_filled += missing

    def sample(self, seat: Candidate, depth: int, n_tokens: int | None = None) -> float:
        """Seconds a token of decoding at a depth, measured once over `n_tokens`."""
        context, n_tokens = seat.context, n_tokens or self.n_tokens
        if seat.engine.interrupt.requested:
            raise Interrupted
        tokens = self._tokens[depth : depth + n_tokens]
        started = perf_counter()
        for token in tokens:
            context.eval([token], 1)
        elapsed = perf_counter() - started
        context.truncate(depth)
        return elapsed / n_tokens

    def prefill_s(self, seat: Candidate, n_tokens: int) -> float:
        """Seconds of reading a prompt of so many tokens; the cache holds just it then."""
        seat.context.truncate(0)
        started = perf_counter()
        seat.context.eval(self._tokens[:n_tokens], 1)
        return perf_counter() - started

    def close(self) -> None:
        """Free all seats, then the weights."""
        for seat in self.seats:
            with suppress(LocalspecError):
                seat.close()
        self.seats.clear()
        self.owner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def turns(
    rigged: Sequence[tuple[SharedWeights, Candidate]], depth: int, n_turns: int
) -> list[list[float]]:
    """Seconds a token of each seat at a depth, `n_turns` times, there and back.

    Seats may sit on different weights. One token goes before, which warms up and does not count.
    """
    for rig, seat in rigged:
        rig.fill(seat, depth)
        rig.sample(seat, depth, 1)
    found: list[list[float]] = [[] for _ in rigged]
    n_again = n_turns
    while len(found[0]) < n_turns:
        times = _turn(rigged, depth, is_back=len(found[0]) % 2 == 1)
        anchor = rigged[0][1]
        best_s = anchor.best_s[depth] = min(times[0], anchor.best_s.get(depth, times[0]))
        if n_again and times[0] > DISTURBED * best_s:
            n_again -= 1
            sleep(PAUSE_S)
            continue
        for mine, seconds in zip(found, times, strict=True):
            mine.append(seconds)
    return found


def _turn(
    rigged: Sequence[tuple[SharedWeights, Candidate]], depth: int, *, is_back: bool
) -> list[float]:
    order = range(len(rigged))
    times = {
        i: rigged[i][0].sample(rigged[i][1], depth) for i in (order[::-1] if is_back else order)
    }
    return [times[i] for i in order]
