"""Options that take several values: `--depth 0,1024,4096`."""

from collections.abc import Callable
from typing import TypeVar

from localspec.errors import UserError

T = TypeVar("T")


def several(option: str, text: str, read: Callable[[str], T], wanted: str) -> tuple[T, ...]:
    """The values of a comma-separated option, each once; UserError names the one that is wrong."""
    values = [_read(option, part.strip(), read, wanted) for part in text.split(",")]
    return tuple(dict.fromkeys(values))


def whole(lowest: int, highest: int) -> Callable[[str], int]:
    """A reader of whole numbers within bounds."""

    def read(text: str) -> int:
        number = int(text)
        if not lowest <= number <= highest:
            raise ValueError
        return number

    return read


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
