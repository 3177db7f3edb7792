"""An answer on a terminal: Markdown that grows, reasoning set back and folded when it is over.

An answer with its tokens coloured by who drafted them, as text and not as Markdown.

Text as it comes, for pipes, files and terminals that can do no more.
"""

import io
import os
from collections.abc import Callable
from time import perf_counter
from typing import TextIO

from rich.console import Console
from rich.style import Style
from rich.text import Text
from rich.theme import Theme

from localspec.chat.rendering.blocks import Block, Blocks
from localspec.chat.rendering.markdown import Code, Renderer
from localspec.chat.rendering.region import FrameLimiter, Region
from localspec.decode.drafters.draft_model import ModelDrafter
from localspec.decode.step import Step
from localspec.dialogue.markup import AnswerPart, Thoughts
from localspec.dialogue.stream import TextStream
from localspec.engine.base import Vocabulary

MAX_THOUGHT_LINES = 4
THEME = Theme({"markdown.code": "cyan", "markdown.code_block": "cyan"})

Size = Callable[[], os.terminal_size]


def screen_console() -> Console:
    """Rich's idea of the terminal: its colours, NO_COLOR, its width where it is asked."""
    return Console(theme=THEME, force_terminal=True, highlight=False)


def warm_up() -> None:
    """Have what rendering imports when it is first used, before an answer has to wait for it."""
    renderer = Renderer(Console(file=io.StringIO(), theme=THEME, width=80))
    renderer.prose(Block("prose", "*a* `b`"))
    renderer.code("a = 1", "python")


class ScreenView:
    """Draws on `out`, a terminal of `size`, at a pace that leaves the engine its time."""

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
        """An answer is coming."""
        self._thoughts = Thoughts(in_thought=in_thought)
        self._started = perf_counter()

    def write(self, text: str, step: Step | None) -> None:
        """Take text; draw what is finished now, and the rest when its time has come."""
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
        for block in self._blocks.feed(part.text):
            self._finish(block)

    def _fold(self) -> None:
        """Reasoning is over: one line stands for it."""
        if not self._has_thought:
            return
        self._has_thought = False
        n_words = len(self.thought.split())
        if n_words:
            took_s = perf_counter() - self._started
            line = f"▸ thought for {took_s:.1f} s, {n_words:,} words (/think shows them)"
            self._commit([*self._renderer.dim(line), ""])

    def _finish(self, block: Block) -> None:
        if block.kind == "prose":
            self._commit(self._renderer.prose(block))
        elif block.kind == "open":
            gap = [""] if block.gap else []
            self._code = Code(self._renderer, block.text)
            self._commit([*gap, self._renderer.rule(block.text)])
        elif self._code is not None:
            self._finish_code(self._code, block)

    def _finish_code(self, code: Code, block: Block) -> None:
        if block.kind == "close":
            self._commit(code.lines())
            self._commit([self._renderer.rule()])
            self._code = None
            return
        code.take(block.text)
        if code.is_safe():
            self._commit(code.lines())
            code.begin()

    def _commit(self, lines: list[str]) -> None:
        self._region.commit(lines)

    def _live(self) -> list[str]:
        if self._has_thought:
            lines = self._renderer.dim(self.thought.strip())
            return lines[-MAX_THOUGHT_LINES:]
        live = self._blocks.live
        if self._code is not None:
            return self._code.lines(live.text if live else "")
        return self._renderer.prose(live) if live else []


LOOKUP = Style(color="cyan", underline=True)
DRAFT = Style(color="magenta", bold=True)
"""Attributes tell them apart where there are no colours."""


class DraftsView:
    """Writes token by token; what the target chose itself has no colour."""

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


class PlainView:
    """Writes through; an answer ends with a new line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.thought = ""
        self.paused_s = 0.0

    def begin(self, *, in_thought: bool, n_prompt: int) -> None:
        """Nothing is shown yet."""

    def write(self, text: str, step: Step | None) -> None:
        """Show it at once."""
        self._out.write(text)
        self._out.flush()

    def end(self) -> None:
        """End the line."""
        self._out.write("\n")
        self._out.flush()
