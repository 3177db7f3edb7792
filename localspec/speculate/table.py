"""What passes cost at the depth of the moment, worked out every few steps.

To draft after a plain pass changes the width of passes twice, there and back. After a wide pass the
way back is owed in any case: one more of the same width changes nothing. In plain passes:

    v'(n) = v(n) + change x (0 if n is the last width, 2 if that is 1, else 1),   v'(1) = 1
"""

from dataclasses import dataclass, field

from localspec.speculate.costs import PassCosts

HOPED = 0.06
_REFRESH_EVERY = 12


@dataclass(slots=True)
class VerifyTable:
    """`v[n]` of the target, changes of width included, n = 1 .. max_draft + 1, and what a plain
    pass takes."""

    costs: PassCosts
    max_draft: int
    margin: float
    depth: int = -1
    plain_s: float = 0.0
    v: list[float] = field(default_factory=list[float])
    least_draft: int = 0
    """The shortest draft that brings `margin` x plain speed if all of it is right; more than
    `max_draft` where none does."""
    last_width: int = 1
    _steady: list[float] = field(default_factory=list[float])
    _until_refresh: int = 0

    def look(self, depth: int) -> None:
        """Go to a depth; a second call of one step costs nothing."""
        if depth == self.depth:
            return
        self.depth = depth
        self._until_refresh -= 1
        if self._until_refresh > 0:
            return
        self._until_refresh = _REFRESH_EVERY
        self.plain_s = plain_s = self.costs.seconds(1, depth)
        widths = range(2, self.max_draft + 2)
        self._steady = [0.0, 1.0, *(self._hoped_s(n) / plain_s for n in widths)]
        self._add_changes()

    def passed(self, width: int) -> None:
        """The last pass had this width."""
        if width != self.last_width:
            self.last_width = width
            if self._steady:
                self._add_changes()

    def _add_changes(self) -> None:
        change, last = self.costs.change_s / self.plain_s, self.last_width
        more = 2 * change if last == 1 else change
        self.v = v = [*self._steady[:2], *(cost + more for cost in self._steady[2:])]
        if 1 < last < len(v):
            v[last] = self._steady[last]
        lengths = range(1, self.max_draft + 1)
        paying = (g for g in lengths if g + 1 > self.margin * v[g + 1])
        self.least_draft = next(paying, self.max_draft + 1)

    def _hoped_s(self, n: int) -> float:
        """A width that was seldom seen is hoped to be a little cheaper, so that it gets its try."""
        return self.costs.seconds(n, self.depth) * (1 - HOPED / (1 + self.costs.n_seen(n)))
