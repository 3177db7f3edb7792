"""Markdown that grows, cut into blocks that are finished and one that is not.

A finished block never changes again, so it is rendered once. What ends a block: a blank line, a
heading, the next item of a list, a fence of code. Inside code every line is finished when it ends.
"""

import re
from dataclasses import dataclass
from typing import Literal

BlockKind = Literal["prose", "open", "code", "close"]

_FENCE = re.compile(r"^(\s*)(`{3,}|~{3,})\s*([^\s`]*)[^`]*$")
_HEADING = re.compile(r"^#{1,6}\s")
_ITEM = re.compile(r"^ {0,1}([-*+]|\d{1,9}[.)])\s")


@dataclass(frozen=True, slots=True)
class Block:
    """`text` is Markdown of a prose block, the language of an opening fence, or a line of code.
    `gap`: an empty line belongs before it."""

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
    """Feed text; `live` is what is not finished: a prose block so far, or a line of code."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._rest = ""
        self._fence: _Fence | None = None
        self._had_blank = False
        self._is_first = True

    @property
    def in_code(self) -> bool:
        return self._fence is not None

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
        """What is finished by it."""
        if "\n" not in text:
            self._rest += text
            return []
        *lines, self._rest = (self._rest + text).split("\n")
        return [block for line in lines for block in self._take(line)]

    def finish(self) -> list[Block]:
        """The text is over: the rest."""
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
        if _ITEM.match(line) and self._lines:
            done = self._end()
            self._lines = [line]
            return done
        self._lines.append(line)
        return []

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
