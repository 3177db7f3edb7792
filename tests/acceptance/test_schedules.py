"""Ten thousand random schedules on an engine that is nothing but its cells (tests/schedules.py)."""

from collections import Counter

import pytest
from schedules import Schedule

from localspec.serve.messages import Done, Failed

N_SCHEDULES = 10_000
pytestmark = pytest.mark.acceptance


def test_ten_thousand_schedules_leave_tokens_rooms_and_prefixes_exact() -> None:
    ends = Counter[str]()
    for seed in range(1000, 1000 + N_SCHEDULES):
        schedule = Schedule(seed)
        try:
            schedule.run()
        except AssertionError as error:
            raise AssertionError(f"schedule {seed}: {error}") from error
        for id_ in schedule.asked:
            last = schedule.events[id_][-1]
            is_end = isinstance(last, Done | Failed)
            ends[type(last).__name__ if is_end else "Aborted"] += 1
            if isinstance(last, Failed):
                ends[type(last.error).__name__] += 1
    print(f"{N_SCHEDULES:,} schedules: {dict(ends)}")
    assert min(ends[name] for name in ("Done", "Aborted", "BusyError", "LateError")) > 100
