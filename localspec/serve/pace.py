"""How much of the waiting prompts goes along with a pass: as much as the others' pace allows.

A pass that also answers is bounded by a latency target. What the answers take of it is v(n), the
measured cost of passes; each row of a prompt takes `row_s` more, which passes with prompts teach.
Where nobody waits for his next token, a whole micro-batch is read.

Drafts are bounded by the same target: a pass that one's drafts make long is long for all others,
who get one token of it. Of what the target leaves, prompts have half for sure, and all that drafts
do not use. A reply alone may draft as it pays, unless the user set a target.
"""

from collections.abc import Sequence
from math import inf

from localspec.decode.costs import PassCosts
from localspec.decode.drafters.base import Draft
from localspec.decode.generation import Generation
from localspec.decode.prices import REFRESH
from localspec.decode.speculator import Gain, Speculator
from localspec.decode.step import Step

LEAST_TARGET_S, PLAIN_PASSES = 0.05, 2.0
"""Without a target of the user's: twice a pass without prompts, and at least so long."""
LEAST_ROWS = 8
"""Of prompts in each pass: a machine that is slower than its target still reads on."""
FEW_ROWS = 17
"""A width that a calibration usually knows, for the first guess of a row's time."""
LEAST_SHARE, MOST_SHARE = 0.01, 0.5
"""Of a plain pass, what a row is taken to need before one was seen."""
GAIN = 0.25
"""How fast the estimate follows."""


class Paced:
    """A speculator whose passes tell how many rows of prompts fit beside the answers.

    `target_s`: seconds of a pass; None: the default. `n_most`: rows of prompts in any pass.
    `teaches`: nobody else corrects `costs` by the passes, as a speculator does that chooses by
    them; a calibration on a busy machine would promise too much for ever.
    """

    def __init__(
        self,
        speculator: Speculator,
        costs: PassCosts,
        n_most: int,
        target_s: float | None = None,
        *,
        teaches: bool = False,
    ) -> None:
        self._speculator, self._costs, self._teaches = speculator, costs, teaches
        self._width = 0
        self._n_most, self.target_s = n_most, target_s
        self._n_other_rows, self._depth, self._was_seen = 0, 0, False
        self.row_s = _first_guess(costs)
        """Seconds more for each row of a prompt."""
        self._drafts_s = 0.0
        """Seconds more for the drafted rows of a pass, of late."""
        self._most_s, self._n_bounded, self._look_in = inf, 0, 0
        """What drafts may make a pass of so many replies take, and when that is looked up again."""

    def n_rows(self, n_decoding: int, depth: int) -> int:
        """Rows of prompts beside so many replies, the longest of them `depth` tokens."""
        if not n_decoding:
            return self._n_most
        left_s = self.limit_s(n_decoding, depth) - self._costs.seconds(n_decoding, depth)
        left_s = max(left_s / 2, left_s - self._drafts_s)
        return min(self._n_most, max(LEAST_ROWS, int(left_s / self.row_s + 1e-6)))

    def limit_s(self, n_decoding: int, depth: int) -> float:
        """What a pass of so many replies may take with prompts."""
        if self.target_s is not None:
            return self.target_s
        return max(LEAST_TARGET_S, PLAIN_PASSES * self._costs.seconds(n_decoding, depth))

    def draft(
        self, generations: Sequence[Generation], n_other_rows: int = 0, limit_s: float = inf
    ) -> list[Draft]:
        """As the speculator, within the target where others wait for the pass."""
        self._n_other_rows = n_other_rows
        self._depth = max([len(each.history) for each in generations], default=0)
        is_alone = len(generations) == 1 and not n_other_rows
        if generations and not (is_alone and self.target_s is None):
            limit_s = min(limit_s, self._bound_s(len(generations)))
        return self._speculator.draft(generations, n_other_rows, limit_s)

    def _bound_s(self, n: int) -> float:
        """The limit of `n` replies, as old as the prices that drafts are chosen by."""
        self._look_in -= 1
        if self._look_in <= 0 or n != self._n_bounded:
            self._most_s, self._n_bounded = self.limit_s(n, self._depth), n
            self._look_in = REFRESH
        return self._most_s

    def learn(self, steps: Sequence[Step], width: int, seconds: float) -> None:
        """As the speculator, and from passes with prompts."""
        self._speculator.learn(steps, width, seconds)
        n_drafted, draft_s = 0, 0.0
        for step in steps:
            n_drafted, draft_s = n_drafted + step.drafted, draft_s + step.draft_s
        if self._teaches and steps and not self._n_other_rows:
            taken_s, changed = seconds - draft_s, width != self._width
            self._costs.learn(width, self._depth, taken_s, changed=changed)
        self._width = width
        if n_drafted or self._drafts_s:
            self._learn_drafts(len(steps), n_drafted)
        if self._n_other_rows < LEAST_ROWS or width < self._n_other_rows:
            return
        n_answers = width - self._n_other_rows
        answers_s = self._costs.seconds(n_answers, self._depth) if n_answers else 0.0
        plain_s = self._costs.seconds(1, 0)
        found_s = max(LEAST_SHARE * plain_s, (seconds - answers_s) / self._n_other_rows)
        self.row_s += (GAIN if self._was_seen else 1.0) * (found_s - self.row_s)
        self._was_seen = True

    def _learn_drafts(self, n: int, n_drafted: int) -> None:
        if n:
            plain_s = self._costs.seconds(n, self._depth)
            found_s = self._costs.seconds(n + n_drafted, self._depth) - plain_s
            self._drafts_s += GAIN * (found_s - self._drafts_s)

    @property
    def gain(self) -> Gain:
        """The speculator's."""
        return self._speculator.gain

    @property
    def reason(self) -> str:
        """The speculator's."""
        return self._speculator.reason


def _first_guess(costs: PassCosts) -> float:
    """As wide passes are known, or dear where they are not."""
    plain_s = costs.seconds(1, 0)
    row_s = (costs.seconds(FEW_ROWS, 0) - plain_s) / (FEW_ROWS - 1)
    is_known = len(costs.curve.points) > 1
    return max(LEAST_SHARE * plain_s, row_s) if is_known else MOST_SHARE * plain_s


def shares(wanted: Sequence[int], room: int) -> list[int]:
    """How much of `room` each of some prompts gets, in order of arrival.

    The first has half of it for sure; short ones go next, and what they leave is the first's.
    """
    if not wanted:
        return []
    given = [0] * len(wanted)
    given[0] = min(wanted[0], (room + 1) // 2)
    room -= given[0]
    for i in sorted(range(1, len(wanted)), key=lambda i: wanted[i]):
        given[i] = min(wanted[i], room)
        room -= given[i]
    given[0] += min(wanted[0] - given[0], room)
    return given
