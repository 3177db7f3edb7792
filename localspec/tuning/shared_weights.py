"""Several settings of one model on one set of weights, timed in turns.

Each setting has a cache of its own, filled to a depth with the same made-up tokens. Turns go there
and back (A B C C B A), so the machine's drift affects all settings alike; ratios within a turn
decide. The first candidate is the anchor. A turn in which the anchor takes much longer than its
best is repeated, because another program probably used a core. On a machine that stays busy, these
turns count in the end.
"""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Self

from localspec.engine.base import EngineConfig
from localspec.engine.timing import TimedContext, TimedEngine, Timer, there_and_back
from localspec.errors import LocalspecError
from localspec.model.kv import CELLS_STEP, padded_cells
from localspec.quality.divergence import Windows, n_outputs_for
from localspec.settings import Attention, Settings

if TYPE_CHECKING:
    from localspec.engine.interrupt import Interrupt

N_TOKENS = 4
"""Tokens of one sample, unless the weights set another number; they are rolled back after it."""
DISTURBED = 1.25
"""Times the anchor's shortest time: a longer turn is measured again."""
PAUSE_S = 0.1


@dataclass(slots=True)
class Candidate:
    """A setting with a cache of its own, and the time that filling it took."""

    setting: Settings
    shared: "SharedWeights"
    context: TimedContext
    timer: Timer
    fill_s: float = 0.0
    n_filled: int = 0
    best_s: dict[int, float] = field(default_factory=dict[int, float])
    """The shortest time of a token as an anchor, by depth."""

    @property
    def engine(self) -> TimedEngine:
        return self.context.engine

    @property
    def fill_per_s(self) -> float | None:
        """Tokens a second of filling, on average."""
        return self.n_filled / self.fill_s if self.fill_s else None

    @property
    def threads(self) -> tuple[int, int]:
        """Numbers of threads for decoding and for prompts."""
        config = replace(self.engine.config, settings=self.setting)
        return config.n_threads, config.n_threads_batch

    def fill(self, depth: int) -> None:
        """Fill the cache with `depth` made-up tokens."""
        n_more = depth - len(self.context.tokens)
        seconds = self.timer.hold(depth)
        if n_more > 0:
            self.fill_s += seconds
            self.n_filled += n_more

    def sample(self, depth: int, n_tokens: int | None = None) -> float:
        """Seconds a token of decoding at a depth, measured once over `n_tokens`."""
        return self.timer.token_s(n_tokens or self.shared.n_tokens, depth)

    def is_disturbed(self, depth: int, seconds: float) -> bool:
        """Whether a sample took much longer than the shortest one at that depth."""
        best_s = self.best_s[depth] = min(seconds, self.best_s.get(depth, seconds))
        return seconds > DISTURBED * best_s


class SharedWeights:
    """Weights loaded in one way, and candidates on them. Close it."""

    def __init__(self, config: EngineConfig, loading: Settings, interrupt: "Interrupt") -> None:
        """Loads. Raises ModelError, EngineError or Interrupted."""
        from localspec.engine.llama.engine import LlamaEngine  # noqa: PLC0415 - loads libllama

        self.loading = loading
        self.n_tokens = N_TOKENS
        settings = config.settings.with_loading(loading).with_attention(Attention())
        self.config = EngineConfig(config.model, replace(settings, ctx=CELLS_STEP))
        started = perf_counter()
        self.owner = LlamaEngine(self.config, interrupt)
        self.load_s = perf_counter() - started
        self.candidates: list[Candidate] = []

    def candidate(self, setting: Settings, n_ctx: int, n_outputs: int = 1) -> Candidate:
        """A cache of `n_ctx` tokens for a setting. EngineError where the engine refuses it."""
        config = EngineConfig(
            self.config.model, replace(setting, ctx=padded_cells(n_ctx)), n_outputs
        )
        context = self.owner.sibling(config).context()
        candidate = Candidate(setting, self, context, Timer(context))
        self.candidates.append(candidate)
        return candidate

    def free(self, candidate: Candidate) -> None:
        """Free a candidate's memory."""
        self.candidates.remove(candidate)
        candidate.engine.close()

    @contextmanager
    def borrowed(self, setting: Settings, n_ctx: int, n_outputs: int = 1) -> Generator[Candidate]:
        """A candidate for one measurement, freed after it."""
        candidate = self.candidate(setting, n_ctx, n_outputs)
        try:
            yield candidate
        finally:
            self.free(candidate)

    def reading(self, setting: Settings, windows: Windows) -> AbstractContextManager[Candidate]:
        """A borrowed candidate that reads windows."""
        n_outputs = n_outputs_for(windows, self.owner.vocabulary.n_tokens)
        return self.borrowed(setting, windows.n_ctx, n_outputs)

    def close(self) -> None:
        """Free all candidates, then the weights."""
        for candidate in self.candidates:
            with suppress(LocalspecError):
                candidate.engine.close()
        self.candidates.clear()
        self.owner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def gains_of(default_s: Sequence[float], candidate_s: Sequence[float]) -> list[float]:
    """The defaults' time over the candidate's, by turn."""
    return [a / b for a, b in zip(default_s, candidate_s, strict=True)]


def turns(candidates: Sequence[Candidate], depth: int, n_turns: int) -> list[list[float]]:
    """Seconds a token of each candidate at a depth, `n_turns` times, there and back.

    Candidates may use different weights. One token warms up first and does not count.
    """
    for candidate in candidates:
        candidate.fill(depth)
        candidate.sample(depth, 1)
    found: list[list[float]] = [[] for _ in candidates]
    n_again = n_turns
    for order in there_and_back(range(len(candidates)), 2 * n_turns):
        times = {i: candidates[i].sample(depth) for i in order}
        if candidates[0].is_disturbed(depth, times[0]) and n_again:
            n_again -= 1
            sleep(PAUSE_S)
            continue
        for i, seconds in times.items():
            found[i].append(seconds)
        if len(found[0]) == n_turns:
            break
    return found
