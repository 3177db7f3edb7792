"""Where in a TOML file a key stands, which Python's own parser does not tell.

Each line is parsed for itself; a line within a text of several lines can be taken for a key, which
moves a number in a message and nothing else.
"""

import tomllib
from collections.abc import Iterator
from typing import Any

Keys = tuple[str, ...]


def line_of(text: str, keys: Keys) -> int:
    """The number, from 1, of the line that has `keys`, else of the nearest table around them."""
    found = {place: number for number, place in reversed(list(_places(text)))}
    while keys and keys not in found:
        keys = keys[:-1]
    return found.get(keys, 1)


def _places(text: str) -> Iterator[tuple[int, Keys]]:
    table: Keys = ()
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("["):
            table = _keys(line) or table
            yield from ((number, table[:depth]) for depth in range(1, len(table) + 1))
        elif "=" in line:
            inner = _keys(line.partition("=")[0] + "= 0")
            yield from ((number, table + inner[:depth]) for depth in range(1, len(inner) + 1))


def _keys(line: str) -> Keys:
    """The dotted keys of one line; () if it is not a whole one."""
    try:
        value: Any = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return ()
    keys: list[str] = []
    while isinstance(value, dict) and value:
        key, value = next(iter(value.items()))
        keys.append(key)
    return tuple(keys)
