"""Whatever comes in whatever order: tokens, rooms and prefixes are exact.

`scripts/test --acceptance schedules` runs ten thousand of them.
"""

import pytest
from schedules import Schedule


def test_random_schedules_leave_everything_exact() -> None:
    for seed in range(60):
        Schedule(seed).run()


def test_a_row_behind_the_end_of_a_reply_ends_nothing() -> None:
    """A draft that goes on behind an end token had its NaN looked at."""
    Schedule(4289).run()


@pytest.mark.slow
def test_more_random_schedules_leave_everything_exact() -> None:
    for seed in range(60, 1000):
        Schedule(seed).run()
