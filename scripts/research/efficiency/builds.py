"""When the engine of a published run was built: by its date, its build number, or its source.

llama.cpp numbers its builds by commits, so a number tells the month: tags of Homebrew's formula and
rows with both give the points below. A hash alone tells nothing. A thread or repository that ran
for less than a year counts as of the middle of its runs; one that ran for longer is undated.
"""

import re
from bisect import bisect_left

from research.efficiency.notes import Notes

from localspec.prediction.conditions import NEWEST, UNDATED

LATEST = "2026-10"
"""From which on an engine counts as today's."""
OLDEST_YEARS = 2.0
"""Beyond that age the era says more than the month."""

_BUILDS: tuple[tuple[int, str], ...] = (
    (2000, "2024-01"), (3000, "2024-05"), (4000, "2024-10"), (5000, "2025-03"), (5583, "2025-06"),
    (5890, "2025-07"), (6060, "2025-08"), (7356, "2025-12"), (7600, "2026-01"), (8396, "2026-03"),
    (8780, "2026-04"), (9174, "2026-05"), (9623, "2026-06"), (9979, "2026-07"), (10298, "2026-08"),
    (11053, "2026-09"),
)  # fmt: skip
_HASHES = {"982e3472": "2025-07"}
"""b5890, by Homebrew's formula."""
_SOURCES: tuple[tuple[str, str], ...] = (
    ("discussion #4167 M5", "2026-08"),
    ("discussion #4167 over-time", "2024-11"),
    ("discussion #4167", "2023-11"),
    ("discussion #15013", "2025-10"),
    ("discussion #15021", "2025-10"),
    ("discussion #15396", "2025-08"),
    ("lhl/strix-halo-testing", "2025-07"),
    ("InventiveHQ", "2026-06"),
    ("XiongjieDai", "2024-05"),
    ("PR #2707", "2023-08"),
    ("PR #4766", "2024-01"),
    ("PR #5625", "2024-02"),
    ("PR #5835", "2024-03"),
    ("PR #13324", "2025-05"),
    ("issue #10435", "2024-11"),
    ("benches/mac-m2-ultra", "2026-02"),
)


def month_of(source: str, notes: Notes) -> str | None:
    """Of the engine of a run; None where nothing says it."""
    return notes.month or _by_build(notes) or _by_source(source)


def _by_build(notes: Notes) -> str | None:
    said = notes.get("build")
    if named := next((month for start, month in _HASHES.items() if said.startswith(start)), None):
        return named
    found = re.search(r"\bb(\d{4,5})\b", notes.text) or re.fullmatch(r"(\d{4,5})", said)
    if not found:
        return None
    place = bisect_left(_BUILDS, (int(found[1]), ""))
    return _BUILDS[min(place, len(_BUILDS) - 1)][1]


def _by_source(source: str) -> str | None:
    return next((month for text, month in _SOURCES if text in source), None)


def era_of(source: str, month: str | None) -> str:
    """The class of an engine's age: its year, or what else sets it apart."""
    if "localscore" in source:
        return "llamafile"
    return min(month[:4], NEWEST) if month else UNDATED


def age_years(month: str | None) -> float:
    """Before today's engines; 0 for what is undated, whose era tells."""
    if month is None:
        return 0.0
    return min(OLDEST_YEARS, max(0, _count(LATEST) - _count(month)) / 12)


def _count(month: str) -> int:
    return 12 * int(month[:4]) + int(month[5:])
