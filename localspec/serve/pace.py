"""How much of the waiting prompts goes along with a pass: as much as the others' pace allows.

The rows of a pass that also answers are bounded by a latency target through the measured cost of
passes, v(n). Passes with prompts are wider than any draft, where the calibration extrapolates, so
their real time corrects it. Between the answers of nobody, a whole micro-batch is read.
"""

from collections.abc import Sequence
from math import exp, log

from localspec.decode.costs import PassCosts
from localspec.decode.drafters.base import Draft
from localspec.decode.generation import Generation
from localspec.decode.speculator import Gain, Speculator
from localspec.decode.step import Step

LEAST_TARGET_S, PLAIN_PASSES = 0.05, 2.0
"""Without a target of the user's: twice a pass without prompts, and at least so long."""
LEAST_ROWS = 8
"""Of prompts in each pass: a machine that is slower than its target still reads on."""
GAIN = 0.25
"""How fast the correction follows."""


class Paced:
    """A speculator whose passes tell how many rows of prompts fit beside the answers.

    `target_s`: seconds of a pass; None: the default. `n_most`: rows of prompts in any pass.
    """

    def __init__(
        self, speculator: Speculator, costs: PassCosts, n_most: int, target_s: float | None = None
    ) -> None:
        self._speculator, self._costs = speculator, costs
        self._n_most, self._target_s = n_most, target_s
        self._n_other_rows, self._depth, self._log = 0, 0, 0.0

    def n_rows(self, n_decoding: int, depth: int) -> int:
        """Rows of prompts beside so many replies, the longest of them `depth` tokens."""
        if not n_decoding:
            return self._n_most
        limit_s = self.limit_s(n_decoding, depth)
        low, high = min(LEAST_ROWS, self._n_most), self._n_most
        while low < high:
            middle = (low + high + 1) // 2
            if self._seconds(n_decoding + middle, depth) <= limit_s:
                low = middle
            else:
                high = middle - 1
        return low

    def limit_s(self, n_decoding: int, depth: int) -> float:
        """What a pass of so many replies may take with prompts."""
        if self._target_s is not None:
            return self._target_s
        return max(LEAST_TARGET_S, PLAIN_PASSES * self._costs.seconds(n_decoding, depth))

    def _seconds(self, n_rows: int, depth: int) -> float:
        return self._costs.seconds(n_rows, depth) * exp(self._log)

    def draft(self, generations: Sequence[Generation], n_other_rows: int = 0) -> list[Draft]:
        """As the speculator."""
        self._n_other_rows = n_other_rows
        self._depth = max((len(each.history) for each in generations), default=0)
        return self._speculator.draft(generations, n_other_rows)

    def learn(self, steps: Sequence[Step], width: int, seconds: float) -> None:
        """As the speculator, and from passes with prompts."""
        self._speculator.learn(steps, width, seconds)
        expected_s = self._costs.seconds(width, self._depth) if width else 0.0
        if self._n_other_rows >= LEAST_ROWS and expected_s > 0 and seconds > 0:
            self._log += GAIN * (log(seconds / expected_s) - self._log)

    @property
    def gain(self) -> Gain:
        """The speculator's."""
        return self._speculator.gain

    @property
    def reason(self) -> str:
        """The speculator's."""
        return self._speculator.reason
