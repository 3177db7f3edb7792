"""What is known of one candidate: its gain in speed over the defaults, and its cost in quality."""

from dataclasses import dataclass, field

from localspec.bench.statistics import Estimate, estimate
from localspec.quality import Divergence
from localspec.tune.goal import LEAST_GAIN, MOST_PREFILL, Goal, cell_bits
from localspec.tune.settings import Setting


@dataclass(slots=True)
class Trial:
    """A candidate and its turns beside the defaults.

    `gains`: of each turn, the defaults' seconds a token over the candidate's. `prefill_gain`: the
    same of reading a prompt. `quality` None: not measured. `is_finalist`: its turns were taken in
    the middle of the context.
    """

    setting: Setting
    gains: list[float] = field(default_factory=list[float])
    prefill_gain: float | None = None
    quality: Divergence | None = None
    is_finalist: bool = False

    @property
    def gain(self) -> Estimate:
        """Median and interval over turns. There must be one."""
        return estimate([[gain] for gain in self.gains])

    @property
    def is_significant(self) -> bool:
        """Whether the candidate is faster, and by enough for a change that costs quality."""
        gain = self.gain
        if gain.low is None or gain.low <= 1:
            return False
        return self.setting.attention.is_exact or gain.mid >= LEAST_GAIN

    def is_refused(self, goal: Goal) -> bool:
        """For a quality that was measured, or a prompt that takes much longer."""
        slow = self.prefill_gain is not None and self.prefill_gain < 1 / MOST_PREFILL
        return slow or (self.quality is not None and self.quality.kld > goal.max_loss)

    def wins(self, goal: Goal) -> bool:
        """Whether it should replace the defaults."""
        if self.is_refused(goal) or not self.gains:
            return False
        if not self.setting.attention.is_exact and self.quality is None:
            return False
        if goal.name == "memory":
            saves = cell_bits(self.setting.attention) < cell_bits(Setting(1, 1).attention)
            return self.is_significant or (saves and self.gain.mid >= goal.least_ratio)
        return self.is_significant

    def rank(self, goal: Goal) -> tuple[float, float]:
        """Smaller is better."""
        gain = self.gain.mid
        if goal.name == "memory":
            return (cell_bits(self.setting.attention) if gain >= goal.least_ratio else 1e9), -gain
        return -gain, 0.0
