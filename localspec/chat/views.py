"""How an answer appears on a terminal while it comes: as Markdown, plain, or by who drafted it.

Reasoning shows its last lines, set back; one line takes their place when it is over.
"""

import io
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TextIO

from rich.console import Console
from rich.style import Style
from rich.text import Text
from rich.theme import Theme

from localspec.chat.frontend import AnswerView
from localspec.chat.markdown import Block, Blocks, Code, Renderer
from localspec.chat.tty import FrameLimiter, Region, Size
from localspec.decode.drafters.lookup import LookupDrafter
from localspec.decode.step import Step
from localspec.dialogue.answer_parser import AnswerParser
from localspec.dialogue.markers import Kind
from localspec.dialogue.markup import AnswerPart, Opening
from localspec.display import console, printable
from localspec.format import count

THEME = Theme({"markdown.code": "cyan", "markdown.code_block": "cyan"})


def screen_console() -> Console:
    """The terminal as Rich sees it, with its colours and NO_COLOR."""
    return console(theme=THEME, force_terminal=True)


def warm_up() -> None:
    """Import what rendering imports at its first use, before an answer waits for it."""
    renderer = Renderer(Console(file=io.StringIO(), theme=THEME, width=80))
    renderer.prose(Block("prose", "*a* `b`"))
    renderer.code("a = 1", "python")


SHOWN_BY = "/think shows them"


class ThoughtView(AnswerView):
    """Draws on `out`, a terminal of `size`; reasoning is set back, and folded when it is over.

    `shown_by` says how to see all of it.
    """

    def __init__(self, out: TextIO, size: Size, console: Console, shown_by: str = SHOWN_BY) -> None:
        self._out = out
        self._region = Region(out, size)
        self._size = size
        self._console = console
        self._renderer = Renderer(console)
        self._pace = FrameLimiter()
        self._thought = FoldedThought(self._region, self._renderer, shown_by)

    def begin(self, opening: Opening, n_prompt: int) -> None:
        self._thought.begin()

    def write(self, parts: Sequence[AnswerPart], step: Step | None) -> None:
        """Take parts; draw what is finished, and the rest when a drawing is due."""
        self._console.width = self._size().columns
        for part in parts:
            if part.is_thought:
                self._thought.take(part.text)
            else:
                self._thought.fold()
                self._say(printable(part.text))
        if self._pace.is_due():
            started = perf_counter()
            live = self._thought.lines() if self._thought.is_open else self._live()
            if live is not None:
                self._region.show(live)
                self._pace.drew(started)
        self._out.flush()

    def end(self) -> None:
        self._thought.fold()

    def _say(self, text: str) -> None:
        raise NotImplementedError

    def _live(self) -> list[str] | None:
        """Lines of the answer that may still change; None: all of it is written."""
        return None


class ScreenView(ThoughtView):
    """The answer as Markdown."""

    def __init__(self, out: TextIO, size: Size, console: Console) -> None:
        super().__init__(out, size, console)
        self._blocks = Blocks()
        self._code: Code | None = None

    def end(self) -> None:
        super().end()
        for block in self._blocks.finish():
            self._finish(block)

    def _say(self, text: str) -> None:
        for block in self._blocks.feed(text):
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
        live = self._blocks.live
        if self._code is not None:
            return self._code.lines(live.text if live else "")
        return self._renderer.prose(live) if live else []


MAX_LINES = 4


class FoldedThought:
    """Draws in `region`; `shown_by` says how to see all of it."""

    def __init__(self, region: Region, renderer: Renderer, shown_by: str) -> None:
        self._region = region
        self._renderer = renderer
        self._shown_by = shown_by
        self._text = ""
        self._started = 0.0

    @property
    def is_open(self) -> bool:
        """Whether there is something that is not folded."""
        return bool(self._text)

    def begin(self) -> None:
        """The model begins to think now, if it does."""
        self._started = perf_counter()

    def take(self, text: str) -> None:
        """More of it."""
        self._text += printable(text)

    def lines(self) -> list[str]:
        """The last lines, for drawing."""
        return self._renderer.dim(self._text.strip())[-MAX_LINES:]

    def fold(self) -> None:
        """Put one line in place of it, if there is something."""
        n_words = len(self._text.split())
        self._text = ""
        if n_words:
            now = perf_counter()
            took_s, self._started = now - self._started, now
            line = f"▸ thought for {took_s:.1f} s, {count(n_words, 'word')} ({self._shown_by})"
            self._region.commit([*self._renderer.dim(line), ""])


class PlainThoughtView(ThoughtView):
    """The answer as it is, written through."""

    def _say(self, text: str) -> None:
        self._out.write(text)

    def end(self) -> None:
        super().end()
        self._say("\n")
        self._out.flush()


LOOKUP = Style(color="cyan", underline=True)
DRAFT = Style(color="magenta", bold=True)
DIM = Style(dim=True)
"""Underline and bold tell them apart where there are no colours."""


class DraftsView(AnswerView):
    """Writes token by token; a token that nobody drafted has no colour."""

    def __init__(
        self, out: TextIO, console: Console, parser_of: Callable[[Opening], AnswerParser]
    ) -> None:
        self._out = out
        self._console = console
        self._parser_of = parser_of
        self._kind: Kind | None = None

    def begin(self, opening: Opening, n_prompt: int) -> None:
        """Say what the colours mean."""
        self._parser = self._parser_of(opening)
        legend = Text("drafted by ", style="dim")
        legend.append("lookup", LOOKUP).append(" or ").append("draft", DRAFT)
        self._show(legend.append(", the rest by the model itself\n"))

    def write(self, parts: Sequence[AnswerPart], step: Step | None) -> None:
        """Show a step's tokens, each in its colour."""
        if step is None:
            self._show_parts(self._parser.finish(), Style())
            return
        style = LOOKUP if step.source == LookupDrafter.source else DRAFT
        for i, token in enumerate(step.tokens):
            self._show_parts(self._parser.push(token), style if i < step.accepted else Style())

    def _show_parts(self, parts: Sequence[AnswerPart], style: Style) -> None:
        for part in parts:
            gap = "\n\n" if self._kind == "thought" and not part.is_thought else ""
            self._kind = part.kind
            self._show(Text(gap + part.text, DIM + style if part.is_thought else style))

    def end(self) -> None:
        self._show(Text("\n"))

    def _show(self, text: Text) -> None:
        if not text.plain:
            return
        with self._console.capture() as capture:
            self._console.print(text, end="", soft_wrap=True)
        self._out.write(capture.get())
        self._out.flush()
