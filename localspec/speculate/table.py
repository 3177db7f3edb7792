"""v(n) at the depth of the moment, worked out every few steps."""

from dataclasses import dataclass, field

from localspec.speculate.costs import PassCosts

HOPED = 0.06
_REFRESH_EVERY = 12


@dataclass(slots=True)
class VerifyTable:
    """`v[n]` of the target, n = 1 .. max_draft + 1, and what a plain pass takes."""

    costs: PassCosts
    max_draft: int
    margin: float
    depth: int = -1
    plain_s: float = 0.0
    v: list[float] = field(default_factory=list[float])
    least_draft: int = 0
    """The shortest draft that brings `margin` x plain speed if all of it is right; more than
    `max_draft` where none does."""
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
        self.v = v = [0.0, 1.0, *(self._hoped_s(n) / plain_s for n in widths)]
        lengths = range(1, self.max_draft + 1)
        paying = (g for g in lengths if g + 1 > self.margin * v[g + 1])
        self.least_draft = next(paying, self.max_draft + 1)

    def _hoped_s(self, n: int) -> float:
        """A width that was seldom seen is hoped to be a little cheaper, so that it gets its try."""
        return self.costs.seconds(n, self.depth) * (1 - HOPED / (1 + self.costs.n_seen(n)))
