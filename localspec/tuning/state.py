"""The state of a search: loaded weights, trials with their gain and loss, and the time budget."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

from localspec.bench.statistics import Estimate, estimate
from localspec.engine.interrupt import Interrupt
from localspec.engine.timing import Clock
from localspec.errors import EngineError
from localspec.quality.divergence import Divergence
from localspec.settings import Attention, Settings
from localspec.tuning.shared_weights import Candidate, SharedWeights, gains_of, turns
from localspec.tuning.target import (
    LEAST_GAIN,
    MOST_PREFILL,
    Goal,
    TuneTarget,
    candidate_of,
    cell_bits,
)


@dataclass(slots=True)
class Trial:
    """A candidate and its turns beside the defaults.

    `gains`: in each turn, the defaults' seconds a token over the candidate's. `prefill_gain`: the
    same for reading a prompt. `quality` None: not measured. `is_finalist`: the turns are from the
    middle of the context.
    """

    setting: Settings
    gains: list[float] = field(default_factory=list[float])
    prefill_gain: float | None = None
    quality: Divergence | None = None
    is_finalist: bool = False

    @property
    def gain(self) -> Estimate:
        """Median and interval over turns; needs at least one turn."""
        return estimate([[gain] for gain in self.gains])

    @property
    def is_significant(self) -> bool:
        """Whether the candidate is faster, and by enough for a change that costs quality."""
        gain = self.gain
        if gain.low is None or gain.low <= 1:
            return False
        return self.setting.attention.is_exact or gain.mid >= LEAST_GAIN

    def is_refused(self, goal: Goal) -> bool:
        """Whether its measured loss is too large, or its prompts take much too long."""
        slow = self.prefill_gain is not None and self.prefill_gain < 1 / MOST_PREFILL
        return slow or (self.quality is not None and self.quality.kld > goal.max_loss)

    def wins(self, goal: Goal) -> bool:
        """Whether it should replace the defaults."""
        if self.is_refused(goal) or not self.gains:
            return False
        if not self.setting.attention.is_exact and self.quality is None:
            return False
        if goal.name == "memory":
            saves = cell_bits(self.setting.attention) < cell_bits(Attention())
            return self.is_significant or (saves and self.gain.mid >= goal.least_ratio)
        return self.is_significant

    def rank(self, goal: Goal) -> tuple[float, float]:
        """Smaller is better."""
        gain = self.gain.mid
        if goal.name == "memory":
            return (cell_bits(self.setting.attention) if gain >= goal.least_ratio else 1e9), -gain
        return -gain, 0.0


FIRST_TOKENS = 256
SLOW_TOKEN_S = 0.08
"""From this time on one token makes a sample: it is long enough to be timed well."""


SearchListener = Callable[[str, Settings | None, float | None], None]
"""Hears the stage, the best candidate so far and its gain."""


class SearchState:
    """One search in progress. `default`: the defaults, with which every candidate is compared.

    `shared` and `setting` change when other weights or threads are adopted. Close it.
    """

    def __init__(
        self,
        subject: TuneTarget,
        goal: Goal,
        clock: Clock,
        interrupt: Interrupt,
        listen: SearchListener,
    ) -> None:
        """Load the model and time the defaults. Raises LocalspecError or Interrupted."""
        listen("loading", None, None)
        self.subject, self.goal, self.clock = subject, goal, clock
        self.interrupt, self.listen = interrupt, listen
        self.setting = candidate_of(subject.config)
        self.trials, self.notes = list[Trial](), list[str]()
        self._candidates = dict[int, Candidate]()
        self.shared = SharedWeights(subject.config, self.setting.loading, interrupt)
        with ExitStack() as stack:
            stack.enter_context(self.shared)
            self.default = self.shared.candidate(self.setting, subject.n_ctx)
            times = turns([self.default], min(FIRST_TOKENS, subject.middle), 2)
            self.stack = stack.pop_all()
        self.token_s = median(times[0])
        if self.token_s > SLOW_TOKEN_S:
            self.shared.n_tokens = 1
        self.fill_per_s = self.default.fill_per_s or 1.0

    def turns_s(self, n_turns: int) -> float:
        """Estimated seconds of turns of a candidate and the defaults."""
        return 2 * (n_turns * self.shared.n_tokens + 1) * self.token_s

    def tell(self, stage: str) -> None:
        """Tell the listener the stage and the best candidate."""
        best = self.best
        self.listen(stage, best and best.setting, best and best.gain.mid)

    @property
    def best(self) -> Trial | None:
        """The best trial so far, proven or not; None where the defaults are best."""
        found = [t for t in self.trials if t.gains and not t.is_refused(self.goal)]
        found = [t for t in found if t.gain.mid >= self.goal.least_ratio]
        return min(found, key=lambda trial: trial.rank(self.goal), default=None)

    def try_attention(self, attention: Attention, depth: int, n_turns: int) -> Trial | None:
        """A trial with turns beside the defaults; None where the engine refuses it."""
        trial = Trial(self.setting.with_attention(attention))
        try:
            candidate = self.shared.candidate(trial.setting, depth + FIRST_TOKENS)
        except EngineError as error:
            self.notes.append(f"{attention.text}: {error}")
            return None
        try:
            self.compare(trial, candidate, depth, n_turns)
        finally:
            self.shared.free(candidate)
        self.trials.append(trial)
        return trial

    def compare(self, trial: Trial, candidate: Candidate, depth: int, n_turns: int) -> None:
        """Add `n_turns` turns beside the defaults at a depth to a trial."""
        default_s, candidate_s = turns([self.default, candidate], depth, n_turns)
        trial.gains += gains_of(default_s, candidate_s)
        if candidate.fill_per_s and candidate.n_filled >= FIRST_TOKENS // 2:
            default_per_s = self.default.fill_per_s or candidate.fill_per_s
            trial.prefill_gain = candidate.fill_per_s / default_per_s

    def candidate_for(self, trial: Trial) -> Candidate:
        """The trial's cache, as long as the user's context; `release` frees it."""
        if id(trial) not in self._candidates:
            self._candidates[id(trial)] = self.shared.candidate(trial.setting, self.subject.n_ctx)
        return self._candidates[id(trial)]

    def release(self, trial: Trial) -> None:
        if candidate := self._candidates.pop(id(trial), None):
            self.shared.free(candidate)
