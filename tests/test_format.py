"""Numbers as people read them, the same wherever they stand."""

import re
from pathlib import Path

import pytest

from localspec import format as shown

PACKAGE = Path(shown.__file__).parent


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (shown.percent(0.524), "52 %"),
        (shown.percent(0.524, 1), "52.4 %"),
        (shown.percent(None), "-"),
        (shown.number(None), "-"),
        (shown.number(1234.5), "1,234"),
        (shown.elapsed(0.0123), "12 ms"),
        (shown.elapsed(3.21), "3.2 s"),
        (shown.elapsed(61.2), "61 s"),
        (shown.count(1, "pass"), "1 pass"),
        (shown.count(1200, "pass"), "1,200 passes"),
        (shown.count(2, "token"), "2 tokens"),
        (shown.size(96_576_768), "97 MB"),
        (shown.size(4_920_000_000), "4.9 GB"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    assert text == expected


def test_no_message_writes_a_share_by_itself() -> None:
    """`{share:.0%}` has no space before its sign; `format.percent` has."""
    by_hand = re.compile(r"\{[^{}]*:\.\d%\}")
    found = [path.name for path in PACKAGE.rglob("*.py") if by_hand.search(path.read_text())]
    assert found == []
