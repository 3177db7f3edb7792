"""What a calibration finds beside other programs, which lengthen some of its passes."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fakes import FakeContext, FakeEngine, Result
from hypothesis import given
from hypothesis import strategies as st

from localspec.decode.costs import LARGEST_CHANGE, PassCosts
from localspec.decode.curve import PassCurve, Point
from localspec.engine.base import Request
from localspec.engine.interrupt import Interrupt
from localspec.forecast.forecast import Expectation
from localspec.session import calibration
from localspec.session.calibration import LearnedStore, measure, measure_change

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


@given(st.lists(st.floats(0, 5), max_size=60))
def test_fewer_rows_are_never_dearer(disturbed: list[float]) -> None:
    """Whom others held up while it was measured would look dearer than what is wider, and never be
    tried."""
    curve = measure(Beside(disturbed), calibration.WIDTHS, 1e6)  # type: ignore[arg-type]
    seconds = [point.empty_s for point in curve.points]
    assert seconds == sorted(seconds)


class Machine:
    """What others take of it, as a calibration's watch and its look at the machine say."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.taken = 0.0
        found = lambda: SimpleNamespace(taken_share=self.taken)  # noqa: E731
        monkeypatch.setattr(calibration, "Watch", lambda: SimpleNamespace(stop=found))
        monkeypatch.setattr(calibration, "is_calm", lambda _: self.taken <= calibration.BUSY)
        monkeypatch.setattr(calibration, "calibration_path", lambda *_: folder / "kept.json")
        monkeypatch.setattr(Expectation, "of", lambda *_: None)
        monkeypatch.setattr(calibration, "LIMIT_S", 1e6)

    def store(self, taken: float, slower: float = 1.0) -> LearnedStore:
        """Of a session while others take that share, which makes two rows `slower` seconds
        slower."""
        self.taken = taken
        disturbed = [0.0] * 3 + [slower] * 300
        plan: Any = SimpleNamespace(facts=None, max_draft=1)
        target: Any = Beside(disturbed if taken else ())
        return LearnedStore(plan, target, None)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


def two_rows_s(store: LearnedStore) -> float:
    return store.load().target.seconds(2, 0)


def test_what_was_measured_beside_others_is_measured_anew_on_a_calm_machine(
    machine: Machine,
) -> None:
    """And once: what a calm machine says is kept."""
    first = machine.store(taken=0.5, slower=9.0)
    assert two_rows_s(first) > WIDE_S
    first.keep()
    assert two_rows_s(machine.store(taken=0.4, slower=0.0)) > WIDE_S, "it is still disturbed"
    assert two_rows_s(machine.store(taken=0.0)) == pytest.approx(WIDE_S)
    assert two_rows_s(machine.store(taken=0.5, slower=9.0)) == pytest.approx(WIDE_S)


def test_passes_beside_others_say_nothing_of_later_sessions_and_answers_do(
    machine: Machine,
) -> None:
    machine.store(taken=0.0).load()
    session = machine.store(taken=0.5)
    learned = session.load()
    for _ in range(40):
        learned.target.learn(2, 0, 9 * WIDE_S)
    learned.chances("greedy", "lookup").learn((0,), 1, 1)
    session.keep()
    later = machine.store(taken=0.0).load()
    assert later.target.seconds(2, 0) == pytest.approx(WIDE_S)
    assert later.chances("greedy", "lookup").counts()["any"][0] > 0
