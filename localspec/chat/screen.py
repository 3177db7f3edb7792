"""An answer on a terminal while it comes, as Markdown."""

import io
from collections.abc import Sequence
from time import perf_counter
from typing import TextIO

from rich.console import Console
from rich.theme import Theme

from localspec.chat.markdown import Block, Blocks, Code, Renderer
from localspec.chat.region import FrameLimiter, Region, Size
from localspec.chat.thought import SHOWN_BY, FoldedThought
from localspec.decode.step import Step
from localspec.dialogue.markup import AnswerPart, Opening
from localspec.display import console, printable

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

    paused_s = 0.0

    def __init__(self, out: TextIO, size: Size, console: Console) -> None:
        self._region = Region(out, size)
        self._size = size
        self._console = console
        self._renderer = Renderer(console)
        self._pace = FrameLimiter()
        self._thought = FoldedThought(self._region, self._renderer, SHOWN_BY)
        self._blocks = Blocks()
        self._code: Code | None = None

    def begin(self, opening: Opening, n_prompt: int) -> None:
        """Begin anew."""
        self._thought.begin()

    def write(self, parts: Sequence[AnswerPart], step: Step | None) -> None:
        """Take parts; draw what is finished, and the rest when a drawing is due."""
        self._console.width = self._size().columns
        for part in parts:
            self._take(part)
        if self._pace.is_due():
            started = perf_counter()
            self._region.show(self._live())
            self._pace.drew(started)

    def end(self) -> None:
        """Draw all of it."""
        self._thought.fold()
        for block in self._blocks.finish():
            self._finish(block)

    def _take(self, part: AnswerPart) -> None:
        if part.is_thought:
            self._thought.take(part.text)
            return
        self._thought.fold()
        for block in self._blocks.feed(printable(part.text)):
            self._finish(block)

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
        if self._thought.is_open:
            return self._thought.lines()
        live = self._blocks.live
        if self._code is not None:
            return self._code.lines(live.text if live else "")
        return self._renderer.prose(live) if live else []
