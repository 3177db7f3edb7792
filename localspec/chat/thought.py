"""Reasoning on a terminal: its last lines, set back; one line in their place when it is over."""

from collections.abc import Sequence
from time import perf_counter
from typing import TextIO

from rich.console import Console

from localspec.chat.markdown import Renderer
from localspec.chat.region import FrameLimiter, Region, Size
from localspec.decode.step import Step
from localspec.dialogue.markup import AnswerPart, Opening
from localspec.display import printable
from localspec.format import count

MAX_LINES = 4
SHOWN_BY = "/think shows them"


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


class PlainThoughtView:
    """Writes an answer through to a terminal, and folds its thought."""

    paused_s = 0.0

    def __init__(self, out: TextIO, size: Size, console: Console, shown_by: str) -> None:
        self._out = out
        self._size = size
        self._console = console
        self._region = Region(out, size)
        self._thought = FoldedThought(self._region, Renderer(console), shown_by)
        self._pace = FrameLimiter()

    def begin(self, opening: Opening, n_prompt: int) -> None:
        """Nothing is shown yet."""
        self._thought.begin()

    def write(self, parts: Sequence[AnswerPart], step: Step | None) -> None:
        """Show text at once, and a thought when a drawing is due."""
        self._console.width = self._size().columns
        for part in parts:
            if part.is_thought:
                self._thought.take(part.text)
                continue
            self._thought.fold()
            self._out.write(printable(part.text))
        if self._thought.is_open and self._pace.is_due():
            started = perf_counter()
            self._region.show(self._thought.lines())
            self._pace.drew(started)
        self._out.flush()

    def end(self) -> None:
        """End the line."""
        self._thought.fold()
        self._out.write("\n")
        self._out.flush()
