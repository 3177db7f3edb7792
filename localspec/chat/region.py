"""The lines on a screen that may still change, and when to draw them.

The lines that may change are a `Region`; all above them is history. Drawing again writes only what
differs, usually the end of the last line, so nothing flickers and a slow connection carries little
more than the text. Lines that have scrolled out of reach stay as they are. After a resize a
`Region` works out how many rows its old lines take in a terminal that reflows them.
"""

import os
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TextIO

from rich.cells import cell_len
from rich.text import Text

BEGIN_UPDATE, END_UPDATE = "\x1b[?2026h", "\x1b[?2026l"
"""Synchronised output: terminals that know it show an update at once, others ignore it."""
Size = Callable[[], os.terminal_size]
ERASE_LINE, ERASE_BELOW = "\x1b[K", "\x1b[J"


class Region:
    """The last lines on a screen, which may change; each must be narrower than the screen."""

    def __init__(self, out: TextIO, size: Size) -> None:
        self._out = out
        self._size = size
        self._shown: list[str] = []
        self._columns = 0

    def show(self, lines: Sequence[str]) -> None:
        """Draw `lines` in place of what was shown."""
        size = self._size()
        if self._shown and size.columns != self._columns:
            update = self._erase(size) + "\r\n".join(lines)
        else:
            update = self._difference(lines, size.lines)
        self._columns, self._shown = size.columns, list(lines)
        if update:
            self._write(update)

    def commit(self, lines: Sequence[str]) -> None:
        """Draw `lines` for good and go on below them."""
        self.show(lines)
        if lines:
            self._write("\r\n")
        self._shown = []

    def _difference(self, lines: Sequence[str], n_rows: int) -> str:
        old = self._shown
        if not old:
            return "\r\n".join(lines)
        both = zip(old, lines, strict=False)
        same = next((i for i, (a, b) in enumerate(both) if a != b), min(len(old), len(lines)))
        first = max(0, min(same, len(old) - 1, len(lines) - 1), len(old) - (n_rows - 1))
        if first >= len(lines):
            return self._up(len(old) - 1 - first) + "\r" + ERASE_BELOW
        last_only = first == len(old) - 1
        if last_only and lines[first].startswith(old[first]):
            grown = lines[first][len(old[first]) :]
            return "\r\n".join([grown, *lines[first + 1 :]])
        redrawn = ("\r\n").join(line + ERASE_LINE for line in lines[first:])
        below = ERASE_BELOW if len(lines) < len(old) else ""
        return self._up(len(old) - 1 - first) + "\r" + redrawn + below

    def _erase(self, size: os.terminal_size) -> str:
        widths = [cell_len(Text.from_ansi(line).plain) for line in self._shown]
        n_rows = sum(max(1, -(-width // size.columns)) for width in widths)
        return self._up(min(n_rows, size.lines) - 1) + "\r" + ERASE_BELOW

    @staticmethod
    def _up(n: int) -> str:
        return f"\x1b[{n}A" if n > 0 else ""

    def _write(self, update: str) -> None:
        is_plain = "\x1b" not in update
        self._out.write(update if is_plain else BEGIN_UPDATE + update + END_UPDATE)
        self._out.flush()


SHARE = 0.006
MIN_REST_S = 0.04


class FrameLimiter:
    """When to draw next, so that drawing takes a small share of the time whatever it costs.

    On a processor the engine wants every core, so each millisecond of drawing is one less of
    decoding. After a drawing of c seconds the screen rests for c / SHARE.
    """

    def __init__(self) -> None:
        self._next = 0.0

    def is_due(self) -> bool:
        return perf_counter() >= self._next

    def drew(self, started: float) -> None:
        """A drawing that began at `started` is done."""
        now = perf_counter()
        self._next = now + max(MIN_REST_S, (now - started) / SHARE)
