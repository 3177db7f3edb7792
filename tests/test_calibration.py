"""What a calibration finds beside other programs, which lengthen some of its passes."""

from collections.abc import Sequence

import pytest
from fakes import FakeContext, FakeEngine, Result
from hypothesis import given
from hypothesis import strategies as st

from localspec.decode.costs import LARGEST_CHANGE, PassCosts
from localspec.decode.curve import PassCurve, Point
from localspec.engine.base import Request
from localspec.engine.interrupt import Interrupt
from localspec.session.calibration import measure_change

PLAIN_S, WIDE_S, CHANGE_S = 1.0, 1.2, 0.1


class Beside(FakeEngine):
    """A pass takes a second, more where its width is new, and as much longer as others take."""

    def __init__(self, disturbed: Sequence[float]) -> None:
        super().__init__()
        self.busy_s, self.interrupt = 0.0, Interrupt()
        self._disturbed, self._last = list(disturbed), 1

    def decode(self, requests: Sequence[Request]) -> list[Result]:
        for _, tokens, _ in requests:
            self.busy_s += PLAIN_S if len(tokens) == 1 else WIDE_S
            self.busy_s += CHANGE_S * (len(tokens) != self._last)
            self.busy_s += self._disturbed.pop(0) if self._disturbed else 0.0
            self._last = len(tokens)
        return super().decode(requests)

    def scratch(self) -> FakeContext:
        return self.context()


def found(disturbed: Sequence[float]) -> float:
    return measure_change(Beside(disturbed), PLAIN_S, 100.0)  # type: ignore[arg-type]


Others = st.lists(st.floats(0, 5), min_size=3, max_size=3)


@given(st.permutations(range(3)), Others, Others)
def test_a_change_of_width_costs_what_it_does_on_a_machine_left_alone(
    order: list[int], one: list[float], other: list[float]
) -> None:
    """Where at least one of the rounds was left alone."""
    rounds = [one, other, [0.0] * 3]
    assert found([s for i in order for s in rounds[i]]) == pytest.approx(CHANGE_S)


def test_a_price_that_no_change_has_is_not_believed() -> None:
    """It was kept by a calibration that others disturbed. While nothing is drafted no change is
    seen, so it would forbid drafts for good."""
    curve = PassCurve((Point(1, PLAIN_S, 0.0), Point(2, WIDE_S, 0.0)))
    assert PassCosts(curve, change_s=40.0).change_s == LARGEST_CHANGE * PLAIN_S
