"""Would a user be told of a difference that is none, or not be told of one that is?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localspec.bench.statistics import Drift, drift_of, estimate, more_visits, ratio, student_t

T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 5: 2.571, 10: 2.228, 30: 2.042}
visits = st.lists(st.lists(st.floats(1.0, 1e3), min_size=1, max_size=6), min_size=1, max_size=4)


def noisy(
    random: np.random.Generator, level: float, between: float, within: float
) -> list[list[float]]:
    """Four visits of five samples."""
    levels = level * np.exp(random.normal(0, between, 4))
    return [(each * np.exp(random.normal(0, within, 5))).tolist() for each in levels]


@pytest.mark.parametrize(("n_free", "quantile"), T_975.items())
def test_students_quantiles(n_free: int, quantile: float) -> None:
    assert student_t(0.975, n_free) == pytest.approx(quantile, rel=0.005)


@settings(deadline=None, max_examples=50)
@given(visits)
def test_a_median_lies_in_its_interval_and_among_the_samples(samples: list[list[float]]) -> None:
    found = estimate(samples)
    flat = sorted(sample for visit in samples for sample in visit)
    assert flat[0] <= found.mid <= flat[-1]
    if len(flat) > 1:
        assert found.low is not None
        assert found.high is not None
        assert flat[0] <= found.low <= found.mid <= found.high <= flat[-1]
    else:
        assert found.low is None
        assert found.half_width is None


@settings(deadline=None, max_examples=50)
@given(visits, visits)
def test_a_ratio_turned_around_is_its_inverse(a: list[list[float]], b: list[list[float]]) -> None:
    assert ratio(a, b).mid == pytest.approx(1 / ratio(b, a).mid)


def test_runs_of_the_same_thing_seldom_differ() -> None:
    random = np.random.default_rng(0)
    verdicts = []
    for _ in range(200):
        a, b = (noisy(random, 100, 0.03, 0.01) for _ in range(2))
        verdicts.append(ratio(a, b, drift_of([a, b])).verdict)
    assert verdicts.count("no significant difference") >= 196


def test_cases_that_were_not_decoded_say_nothing_of_drift() -> None:
    decoded = [[100.0, 101.0], [110.0, 109.0]]
    assert drift_of([()]) is None
    assert drift_of([decoded, ()]) == drift_of([decoded])


def test_half_the_speed_is_found_in_spite_of_the_noise() -> None:
    random = np.random.default_rng(1)
    a, b = noisy(random, 100, 0.03, 0.01), noisy(random, 55, 0.03, 0.01)
    assert ratio(a, b, drift_of([a, b])).verdict == "slower"
    assert ratio(b, a, drift_of([a, b])).verdict == "faster"


def test_the_interval_of_a_median_holds_the_truth_as_often_as_it_says() -> None:
    random = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        found = estimate([(100 * np.exp(random.normal(0, 0.05, 5))).tolist() for _ in range(4)])
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 100 <= found.high
    assert held >= 180


def test_one_sample_tells_no_difference() -> None:
    assert ratio([[1.0]], [[2.0]]).verdict == "unknown"
    assert more_visits([[1.0]]) is None


def test_drift_is_what_visits_differ_by() -> None:
    random = np.random.default_rng(3)
    cases = [noisy(random, level, 0.04, 0.0) for level in (10, 100, 1000) * 20]
    drift = drift_of(cases)
    assert drift is not None
    assert drift.sd == pytest.approx(0.04, rel=0.15)
    assert drift.n_free == 180
    assert drift_of([[[1.0, 2.0]]]) is None


def test_more_drift_is_more_doubt() -> None:
    a, b = [[1.0, 1.01]] * 3, [[1.05, 1.06]] * 3
    widths = [ratio(a, b, Drift(sd, 6)).high or 0 for sd in (0.01, 0.03, 0.1)]
    assert widths == sorted(widths)
    assert ratio(a, b, Drift(0.1, 6)).verdict == "no significant difference"


def test_a_tight_interval_needs_no_more_runs_and_a_wide_one_many() -> None:
    assert more_visits([[100.0, 100.1, 99.9]] * 3) == 0
    assert (more_visits([[80.0, 81.0], [120.0, 119.0]]) or 0) > 10
