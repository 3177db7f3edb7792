"""The number of threads: what was measured, unless noise made the difference."""

from pathlib import Path

import pytest

from localspec.engine import threads
from localspec.engine.threads import default_threads, fastest, measured_threads, thread_counts


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


def test_a_measured_number_is_kept_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, ...]] = []

    def measure(counts: tuple[int, ...], *, repack: bool) -> dict[int, float]:
        asked.append(counts)
        return {3: 0.01, 4: 0.02}

    monkeypatch.setattr(threads.paths, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    monkeypatch.setattr(threads, "thread_limit", lambda: 4)
    monkeypatch.setattr(threads, "BUSY", 2.0)
    monkeypatch.setattr(threads, "_seconds", measure)
    assert default_threads() == 4
    assert measured_threads(lambda _: None, repack=True) == 3
    assert default_threads() == measured_threads(lambda _: None, repack=True) == 3
    assert len(asked) == 1
    measured_threads(lambda _: None, repack=True, again=True)
    assert len(asked) == 2
    next((tmp_path / "threads").glob("*.json")).write_text('{"threads": 0}')
    assert default_threads() == 4
