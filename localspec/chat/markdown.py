"""Markdown that grows: cut into blocks, and blocks to styled lines of a given width, by Rich.

A finished block never changes again, so it is rendered once. A blank line, a heading, the next item
of a list and a fence of code each end a block. Inside code every line is finished when it ends.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import Heading, Markdown, MarkdownElement
from rich.rule import Rule
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text

BlockKind = Literal["prose", "open", "code", "close"]

_FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*([^\s`]*)[^`]*$")
_HEADING = re.compile(r"^#{1,6}\s")
_ITEM = re.compile(r"^ {0,1}([-*+]|\d{1,9}[.)])\s")


@dataclass(frozen=True, slots=True)
class Block:
    """`text` is Markdown of prose, the language of an opening fence, or a line of code.

    `gap`: an empty line belongs before it.
    """

    kind: BlockKind
    text: str
    gap: bool = False


@dataclass(frozen=True, slots=True)
class _Fence:
    indent: int
    marker: str

    def is_closed_by(self, line: str) -> bool:
        text = line.strip()
        return len(text) >= len(self.marker) and set(text) == {self.marker[0]}


class Blocks:
    """Feed text; `live` is the block of prose or line of code that is not finished."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._rest = ""
        self._fence: _Fence | None = None
        self._had_blank = False
        self._is_first = True

    @property
    def live(self) -> Block | None:
        """The unfinished block; None for nothing."""
        if self._fence:
            text = self._rest[_indent(self._rest, self._fence.indent) :]
            return Block("code", text) if self._rest else None
        text = "\n".join([*self._lines, self._rest])
        if not text.strip() or _FENCE.match(self._rest):
            return None
        return Block("prose", text, self._gap(text))

    def feed(self, text: str) -> list[Block]:
        """The blocks that `text` finishes."""
        if "\n" not in text:
            self._rest += text
            return []
        *lines, self._rest = (self._rest + text).split("\n")
        return [block for line in lines for block in self._take(line)]

    def finish(self) -> list[Block]:
        """The rest: the text is over."""
        blocks = self._take(self._rest) if self._rest else []
        self._rest = ""
        if self._fence:
            self._fence = None
            return [*blocks, Block("close", "")]
        return [*blocks, *self._end()]

    def _take(self, line: str) -> list[Block]:
        if self._fence:
            return self._code(line, self._fence)
        if not line.strip():
            done = self._end()
            self._had_blank = True
            return done
        if match := _FENCE.match(line):
            done = self._end()
            self._fence = _Fence(len(match[1]), match[2])
            return [*done, self._new(Block("open", match[3], not self._is_first))]
        if _HEADING.match(line):
            done = self._end()
            self._lines = [line]
            return [*done, *self._end()]
        done = self._end() if _ITEM.match(line) else []
        self._lines.append(line)
        return done

    def _code(self, line: str, fence: _Fence) -> list[Block]:
        if fence.is_closed_by(line):
            self._fence, self._had_blank = None, True
            return [Block("close", "")]
        return [Block("code", line[_indent(line, fence.indent) :])]

    def _end(self) -> list[Block]:
        if not self._lines:
            return []
        text, self._lines = "\n".join(self._lines), []
        block = self._new(Block("prose", text, self._gap(text)))
        self._had_blank = bool(_HEADING.match(text))
        return [block]

    def _gap(self, text: str) -> bool:
        return not self._is_first and (self._had_blank or bool(_HEADING.match(text)))

    def _new(self, block: Block) -> Block:
        self._is_first = self._had_blank = False
        return block


def _indent(line: str, most: int) -> int:
    """How much of a fence's indentation a line of its code shares."""
    return min(most, len(line) - len(line.lstrip(" ")))


CODE_THEME = "ansi_dark"
"""The terminal's own colours, which suit its background."""
MAX_COLUMNS = 110
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])


class _LeftHeading(Heading):
    """Headings at the left, where they are read."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        self.text.justify = "left"
        yield self.text


class _Prose(Markdown):
    """Shows tags as they are and ends lines where the model did: nothing said is lost."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _LeftHeading,
    }

    def __init__(self, markup: str) -> None:
        super().__init__("", code_theme=CODE_THEME, hyperlinks=False)
        self.markup = markup
        self.parsed = _PARSER.parse(markup)
        for child in (child for token in self.parsed for child in token.children or ()):
            if child.type == "softbreak":
                child.type = "hardbreak"


class Renderer:
    """Renders for the width and colours of `console`."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def prose(self, block: Block) -> list[str]:
        """A block of Markdown, with the empty line that belongs before it."""
        lines = self._lines(_Prose(block.text))
        while lines and _is_blank(lines[0]):
            del lines[0]
        while lines and _is_blank(lines[-1]):
            del lines[-1]
        return ["", *lines] if block.gap else lines

    def code(self, code: str, language: str) -> list[str]:
        """Highlighted code, line by line as it is."""
        return self._lines(self.highlighted(code, language))

    def highlighted(self, code: str, language: str) -> Text:
        """Code with colours; unknown languages have none."""
        syntax = Syntax(code, language or "text", theme=CODE_THEME, background_color="default")
        text = syntax.highlight(code)
        text.rstrip()
        text.no_wrap, text.overflow = False, "fold"
        return text

    def rule(self, title: str = "") -> str:
        """Where code begins and ends."""
        lines = self._lines(Rule(title, align="left", style="dim", characters="─"), narrow=24)
        return lines[0] if lines else ""

    def dim(self, text: str) -> list[str]:
        """Plain text, set back."""
        return self._lines(Text(text, style=Style(dim=True)))

    def _lines(self, renderable: RenderableType, narrow: int = MAX_COLUMNS) -> list[str]:
        console = self._console
        width = max(8, min(console.width - 1, narrow))
        with console.capture() as capture:
            console.print(renderable, width=width, end="", highlight=False)
        # Spaces that fill a line go; those before a reset of styles stay.
        return [line.rstrip(" ") for line in capture.get().rstrip("\n").split("\n")]


def _is_blank(line: str) -> bool:
    return not Text.from_ansi(line).plain.strip()


MAX_LINES = 60


class Code:
    """One block of code that grows; `lines` is what is on the screen of this stretch.

    A lexer needs what came before, so every drawing highlights the whole stretch again. A stretch
    ends at an empty line outside of strings and comments, where a lexer can start anew.
    """

    def __init__(self, renderer: Renderer, language: str) -> None:
        self._renderer = renderer
        self._language = language
        self._stretch: list[str] = []

    def take(self, line: str) -> None:
        """One more finished line."""
        self._stretch.append(line.expandtabs(4))

    def lines(self, live: str = "") -> list[str]:
        """The stretch, with a line that is not finished."""
        code = [*self._stretch, live] if live else self._stretch
        return self._renderer.code("\n".join(code), self._language) if code else []

    def is_safe(self) -> bool:
        """Whether a new stretch can begin here."""
        if not self._stretch or len(self._stretch) >= MAX_LINES:
            return bool(self._stretch)
        if self._stretch[-1].strip():
            return False
        # The lexer must not be inside of a string or comment at the end.
        code = "\n".join(self._stretch).rstrip()
        text = self._renderer.highlighted(code + "\nx", self._language)
        plain, end = self._renderer.highlighted("x", self._language), text.plain.rfind("x")
        styles = {str(span.style) for span in text.spans if span.end > end}
        return styles == {str(span.style) for span in plain.spans}

    def begin(self) -> None:
        """Begin a new stretch."""
        self._stretch = []
