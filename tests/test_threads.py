"""The number of threads: what was measured, unless noise made the difference."""

import pytest

from localspec.engine import threads
from localspec.engine.threads import fastest, thread_counts


@pytest.mark.parametrize(
    ("seconds", "usual", "chosen"),
    [
        ({4: 0.010, 8: 0.020}, 8, 4),  # slow cores, or a host that withholds some
        ({4: 0.010, 8: 0.0105}, 8, 8),  # noise moves no default
        ({4: 0.020, 8: 0.010, 16: 0.009}, 8, 16),
        ({1: 0.01, 2: 0.01}, 2, 2),
    ],
)
def test_the_usable_cores_stay_unless_another_number_is_clearly_faster(
    seconds: dict[int, float], usual: int, chosen: int
) -> None:
    assert fastest(seconds, usual) == chosen


def test_numbers_to_try_stay_within_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    monkeypatch.setattr(threads, "thread_limit", lambda: 12)
    assert thread_counts() == (4, 6, 7, 8, 12)
    monkeypatch.setattr(threads, "usable_cores", lambda: 1)
    monkeypatch.setattr(threads, "thread_limit", lambda: 1)
    assert thread_counts() == (1,)
