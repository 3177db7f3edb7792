"""An answer on a terminal, token by token, coloured by who drafted them."""

from collections.abc import Callable, Sequence
from typing import TextIO

from rich.console import Console
from rich.style import Style
from rich.text import Text

from localspec.decode.drafters.lookup import LookupDrafter
from localspec.decode.step import Step
from localspec.dialogue.markers import Kind
from localspec.dialogue.markup import AnswerPart, Opening
from localspec.dialogue.parser import AnswerParser

LOOKUP = Style(color="cyan", underline=True)
DRAFT = Style(color="magenta", bold=True)
DIM = Style(dim=True)
"""Underline and bold tell them apart where there are no colours."""


class DraftsView:
    """Writes token by token; a token that nobody drafted has no colour."""

    paused_s = 0.0

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
        """End the line."""
        self._show(Text("\n"))

    def _show(self, text: Text) -> None:
        if not text.plain:
            return
        with self._console.capture() as capture:
            self._console.print(text, end="", soft_wrap=True)
        self._out.write(capture.get())
        self._out.flush()
