"""An answer with its tokens coloured by who drafted them, as text and not as Markdown."""

from typing import TextIO

from rich.console import Console
from rich.style import Style
from rich.text import Text

from localspec.chat.figures import DRAFT_MODEL
from localspec.engine.base import Vocabulary
from localspec.engine.text import TextStream
from localspec.speculate.step import Step

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
        style = DRAFT if step.source == DRAFT_MODEL else LOOKUP
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
