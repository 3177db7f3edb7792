"""Text that others wrote, as a terminal may have it: nothing in it gives the terminal an order.

Answers, templates, headers and file names can hold escape sequences, which clear the screen, set
its title or fill the clipboard. All of them begin with a control character, of 7 bits or of 8. So
each one but a new line and a tab is shown as its picture, and what turns the direction of a line
round as U+FFFD. Returns go, since they would let a line be written over. A character is judged
alone, so it makes no difference how a text is cut.
"""

import json
import sys
from collections.abc import Callable, Iterable
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_PICTURES = {code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"}
_TURNING = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Embeddings, overrides and isolates of Unicode's bidirectional algorithm."""
_ORDERS: dict[int, int | None] = {
    **_PICTURES,
    0x7F: 0x2421,
    **dict.fromkeys((*range(0x80, 0xA0), *_TURNING), 0xFFFD),
    ord("\r"): None,
}


def printable(text: str) -> str:
    """`text` without orders to a terminal."""
    return text if text.isprintable() else text.translate(_ORDERS)


def note(text: str) -> str:
    """The same for a message: a new line in it cannot pose as a message of its own."""
    return printable(text).replace("\n", "\n  ")


def shown_on(out: TextIO) -> Callable[[str], str]:
    """`printable` where `out` is a terminal; what goes into a pipe or a file stays as it is."""
    return printable if out.isatty() else str


def echo(text: str, *, end: str = "\n", err: bool = False) -> None:
    """Write text on stdout or stderr."""
    out = sys.stderr if err else sys.stdout
    out.write(shown_on(out)(text) + end)
    out.flush()


def json_line(document: Any) -> str:
    """A document in one line, readable, and harmless on a terminal."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False)
    if text.isprintable():
        return text
    return text.translate({code: f"\\u{code:04x}" for code in _ORDERS})


def console(**options: Any) -> "Console":
    """Where Rich draws: square brackets are text, and orders that came with a text are shown."""
    usual: dict[str, Any] = {"markup": False, "highlight": False}
    return _console_class()(**usual | options)


@cache
def _console_class() -> "type[Console]":
    from rich.console import Console, ConsoleOptions, RenderableType  # noqa: PLC0415 - slow
    from rich.segment import Segment  # noqa: PLC0415

    class ScreenConsole(Console):
        """Rich's console, which would pass an escape sequence through."""

        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            """Segments of a renderable; its own orders (a cursor's way) are no text."""
            for segment in super().render(renderable, options):
                text, style, control = segment
                yield segment if control or text.isprintable() else Segment(printable(text), style)

    return ScreenConsole
