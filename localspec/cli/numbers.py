"""Options that take several values: `--depth 0,1024,4096`.

llama-bench's lists of numbers: `1,2,4`, `0-3`, `0-4096+1024`, `1-8*2`.
"""

import re
from collections.abc import Callable
from typing import Any, TypeVar

from localspec.errors import UserError
from localspec.kinds import Whole
from localspec.settings import Row

T = TypeVar("T")


def several(option: str, text: str, read: Callable[[str], T], wanted: str) -> tuple[T, ...]:
    """The values of a comma-separated option, each once; UserError names the one that is wrong."""
    values = [_read(option, part.strip(), read, wanted) for part in text.split(",")]
    return tuple(dict.fromkeys(values))


def values_of(row: Row, text: str) -> tuple[Any, ...]:
    """Values of a setting; UserError names the one that it cannot have."""
    kind = row.kind
    if isinstance(kind, Whole):
        return numbers(row.flag, text, kind.low, kind.high)
    return several(row.flag, text, row.read, kind.wanted)


def share(text: str) -> float:
    """A reader of numbers from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError
    return number


def _read(option: str, text: str, read: Callable[[str], T], wanted: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise UserError(f"{option} {text!r} is not {wanted}") from error


_RANGE = re.compile(r"(\d+)-(\d+)(?:([+*])(\d+))?")
_MOST = 1000


def numbers(option: str, text: str, lowest: int, highest: int, also: str = "") -> tuple[int, ...]:
    """Each once, in order; UserError names the part that is none. `also`: what it could be else."""
    values: list[int] = []
    for part in text.split(","):
        found = _numbers(part.strip())
        if not found or not all(lowest <= number <= highest for number in found):
            raise UserError(
                f"{option} {part.strip()!r} is no number from {lowest:,} to {highest:,},"
                f" nor a range such as 1-8*2 or 0-4096+1024{f', nor {also}' if also else ''}"
            )
        values += found
    return tuple(dict.fromkeys(values))


def _numbers(text: str) -> list[int]:
    if re.fullmatch(r"-?\d+", text):
        return [int(text)]
    match = _RANGE.fullmatch(text)
    if match is None:
        return []
    first, last, sign, step = int(match[1]), int(match[2]), match[3] or "+", int(match[4] or 1)
    if step < (2 if sign == "*" else 1) or (sign == "*" and first == 0):
        return []
    values = [first]
    while len(values) <= _MOST and (after := _next(values[-1], sign, step)) <= last:
        values.append(after)
    return values if first <= last and len(values) <= _MOST else []


def _next(value: int, sign: str, step: int) -> int:
    return value * step if sign == "*" else value + step
