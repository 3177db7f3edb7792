"""An answer on a terminal while it comes: Markdown, or tokens coloured by who drafted them.

The lines on a screen that may still change are a `Region`; all above them is history. Drawing
again writes only what differs, usually the end of the last line, so nothing flickers and a slow
connection carries little more than the text. Lines that have scrolled out of reach stay as they
are. After a resize a `Region` works out how many rows its old lines take in a terminal that
reflows them.
"""

import io
import os
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.style import Style
from rich.text import Text
from rich.theme import Theme

from localspec.chat.markdown import Block, Blocks, Code, Renderer
from localspec.decode.drafters.draft_model import ModelDrafter
from localspec.decode.step import Step
from localspec.dialogue.markup import AnswerPart, Thoughts
from localspec.dialogue.stream import TextStream
from localspec.display import console, printable
from localspec.engine.base import Vocabulary

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


MAX_THOUGHT_LINES = 4
THEME = Theme({"markdown.code": "cyan", "markdown.code_block": "cyan"})


def screen_console() -> Console:
    """The terminal as Rich sees it, with its colours and NO_COLOR."""
    return console(theme=THEME, force_terminal=True)


def warm_up() -> None:
    """Import what rendering imports at its first use, before an answer waits for it."""
    renderer = Renderer(Console(file=io.StringIO(), theme=THEME, width=80))
    renderer.prose(Block("prose", "*a* `b`"))
    renderer.code("a = 1", "python")


class ScreenView:
    """Draws on `out`, a terminal of `size`; reasoning is set back, and folded when it is over."""

    def __init__(self, out: TextIO, size: Size, console: Console) -> None:
        self.thought = ""
        self.paused_s = 0.0
        self._region = Region(out, size)
        self._size = size
        self._console = console
        self._renderer = Renderer(console)
        self._pace = FrameLimiter()
        self._thoughts = Thoughts(in_thought=False)
        self._blocks = Blocks()
        self._code: Code | None = None
        self._has_thought = False
        self._started = 0.0

    def begin(self, *, in_thought: bool, n_prompt: int) -> None:
        """Begin anew."""
        self._thoughts = Thoughts(in_thought=in_thought)
        self._started = perf_counter()

    def write(self, text: str, step: Step | None) -> None:
        """Take text; draw what is finished, and the rest when a drawing is due."""
        self._console.width = self._size().columns
        for part in self._thoughts.feed(text):
            self._take(part)
        if self._pace.is_due():
            started = perf_counter()
            self._region.show(self._live())
            self._pace.drew(started)

    def end(self) -> None:
        """Draw all of it."""
        for part in self._thoughts.finish():
            self._take(part)
        self._fold()
        for block in self._blocks.finish():
            self._finish(block)

    def _take(self, part: AnswerPart) -> None:
        if part.is_thought:
            self.thought += part.text
            self._has_thought = True
            return
        self._fold()
        for block in self._blocks.feed(printable(part.text)):
            self._finish(block)

    def _fold(self) -> None:
        """Put one line in place of the reasoning, which is over."""
        if not self._has_thought:
            return
        self._has_thought = False
        n_words = len(self.thought.split())
        if n_words:
            took_s = perf_counter() - self._started
            line = f"▸ thought for {took_s:.1f} s, {n_words:,} words (/think shows them)"
            self._region.commit([*self._renderer.dim(line), ""])

    def _finish(self, block: Block) -> None:
        if block.kind == "prose":
            self._region.commit(self._renderer.prose(block))
        elif block.kind == "open":
            gap = [""] if block.gap else []
            self._code = Code(self._renderer, block.text)
            self._region.commit([*gap, self._renderer.rule(block.text)])
        elif self._code is not None:
            self._finish_code(self._code, block)

    def _finish_code(self, code: Code, block: Block) -> None:
        if block.kind == "close":
            self._region.commit(code.lines())
            self._region.commit([self._renderer.rule()])
            self._code = None
            return
        code.take(block.text)
        if code.is_safe():
            self._region.commit(code.lines())
            code.begin()

    def _live(self) -> list[str]:
        if self._has_thought:
            lines = self._renderer.dim(printable(self.thought.strip()))
            return lines[-MAX_THOUGHT_LINES:]
        live = self._blocks.live
        if self._code is not None:
            return self._code.lines(live.text if live else "")
        return self._renderer.prose(live) if live else []


LOOKUP = Style(color="cyan", underline=True)
DRAFT = Style(color="magenta", bold=True)
"""Underline and bold tell them apart where there are no colours."""


class DraftsView:
    """Writes token by token; a token that nobody drafted has no colour."""

    def __init__(
        self, out: TextIO, console: Console, vocabulary: Vocabulary, stop: tuple[str, ...]
    ) -> None:
        self.thought = ""
        self.paused_s = 0.0
        self._out = out
        self._console = console
        self._vocabulary = vocabulary
        self._stream = TextStream(stop)

    def begin(self, *, in_thought: bool, n_prompt: int) -> None:
        """Say what the colours mean."""
        legend = Text("drafted by ", style="dim")
        legend.append("lookup", LOOKUP).append(" or ").append("draft", DRAFT)
        self._show(legend.append(", the rest by the model itself\n"))

    def write(self, text: str, step: Step | None) -> None:
        """Show a step's tokens, each in its colour."""
        if step is None:
            self._show(Text(self._stream.finish()))
            return
        style = DRAFT if step.source == ModelDrafter.source else LOOKUP
        for i, token in enumerate(step.tokens):
            piece = self._stream.push(self._vocabulary.piece(token))
            self._show(Text(piece, style if i < step.accepted else ""))

    def end(self) -> None:
        """End the line."""
        self._show(Text("\n"))

    def _show(self, text: Text) -> None:
        if not text.plain:
            return
        with self._console.capture() as capture:
            self._console.print(text, end="", soft_wrap=True)
        self._out.write(capture.get())
        self._out.flush()
