"""The text of an answer to its parts, as it comes: what is held back, and which marks can come.

What may be the beginning of a mark is held back, so the parts do not depend on how the text is cut.
Whitespace round a thought belongs to neither part.

Answers with sections have a thought, an answer in marks and tool calls, in any order. A mark counts
where its row says (`Place`), or anywhere if it begins with a token that is a mark by itself. Within
a thought only its own end is one, but for such tokens. (Answers in messages: `answer_parser`.)
"""

import re
from collections import Counter, deque
from collections.abc import Iterable
from functools import lru_cache
from re import Match

from localspec.dialogue.markers import Kind, Section
from localspec.dialogue.markup import AnswerPart


class Marks:
    """Texts to look for in a stream, as one pattern; the longest goes first."""

    def __init__(self, texts: Iterable[str]) -> None:
        every = sorted(set(texts), key=lambda text: (-len(text), text))
        self.pattern = re.compile("|".join(map(re.escape, every)) or "(?!)")
        self.first = frozenset(text[0] for text in every)
        """Characters that they begin with: without one of these a text has none of them."""
        self._beginnings = {text[:n] for text in every for n in range(1, len(text))}
        self._n_longest = max(map(len, every), default=1)

    def n_certain(self, text: str) -> int:
        """Length of `text` without an end that may begin one of them."""
        near = max(0, len(text) - self._n_longest + 1)
        starts = () if self.first.isdisjoint(text) else range(near, len(text))
        return next((i for i in starts if text[i:] in self._beginnings), len(text))


APART = "\n\n"
"""Between sections of one kind that something else stood between."""


@lru_cache(64)
def marks_of(texts: tuple[str, ...]) -> Marks:
    """Compiled once for a state of a model's answers."""
    return Marks(texts)


class Splitter:
    """Splits the text of one answer; `finish` once, at its end.

    `n_tokens` counts tokens by the kind of the text that they begin; marks and spaces have none.
    """

    def __init__(self, marks: Marks, kind: Kind | None) -> None:
        self.n_tokens = Counter[Kind]()
        self.kind: Kind | None = kind
        """Of the text that comes next; None: that is no part."""
        self._marks = marks
        """All that can come in this text."""
        self._text = ""
        """What is not certain yet."""
        self._is_fresh, self._trims = True, False
        self._is_trimmed = self._begins_line = False
        self._offset = 0
        self._starts = deque[int]()
        self._mark_tokens = set[int]()
        self._parts: list[AnswerPart] = []
        self._seen = set[Kind]()

    def begin_token(self, n_behind: int, *, is_mark: bool) -> None:
        """A token begins `n_behind` characters behind what was fed; `is_mark`: it is one alone."""
        place = self._offset + len(self._text) + n_behind
        self._starts.append(place)
        if is_mark:
            self._mark_tokens.add(place)

    def at_once(self, text: str) -> list[AnswerPart]:
        """A token's text as one part, where no mark is near: most tokens. Else empty."""
        kind = self.kind
        if self._text or self._starts or self._is_fresh or not (kind and text):
            return []
        if not self._marks.first.isdisjoint(text) or (self._is_trimmed and text[-1].isspace()):
            return []
        self._begins_line = text[-1] == "\n"
        self._offset += len(text)
        self.n_tokens[kind] += 1
        return [AnswerPart(text, kind)]

    def feed(self, text: str) -> list[AnswerPart]:
        """Take text; returns the parts that are certain now."""
        self._text += text
        while self._text and self._advance():
            pass
        parts, self._parts = self._parts, []
        return parts

    def finish(self) -> list[AnswerPart]:
        """What was held back: the answer is over."""
        if self._text:
            self._end()
        self._skip(len(self._text))
        parts, self._parts = self._parts, []
        return parts

    def _advance(self) -> bool:
        """Pass the first mark, or what is certain; whether more can be."""
        raise NotImplementedError

    def _end(self) -> None:
        """No mark follows the text that is held."""
        raise NotImplementedError

    def _begin(self, kind: Kind, *, is_trimmed: bool) -> None:
        """A part begins. Whitespace in front of its text is dropped; if it `is_trimmed`, that at
        its end belongs to the mark behind it."""
        self.kind, self._is_trimmed = kind, is_trimmed
        self._is_fresh, self._trims, self._begins_line = True, True, False

    def _say(self, n: int) -> None:
        """The first `n` characters are text of the part."""
        text = self._text[:n]
        if self._is_trimmed:
            text = text.rstrip()
        if text:
            self._begins_line = text.endswith("\n")
            self._emit(len(text))

    def _emit(self, n: int) -> None:
        """The first `n` characters are certain; of whitespace alone nothing is known yet."""
        kind, text = self.kind, self._text[:n]
        if kind is None or (self._is_fresh and not text.strip()):
            return
        if self._is_fresh and self._trims:
            said = text.lstrip()
            self._skip(len(text) - len(said))
            text = said
            if kind in self._seen:
                self._parts.append(AnswerPart(APART, kind))
        self._is_fresh = False
        if text:
            self._seen.add(kind)
            self._parts.append(AnswerPart(text, kind))
            self._skip(len(text), kind)

    def _skip(self, n: int, kind: Kind | None = None) -> None:
        """The first `n` characters are no part of the answer; those of a `kind` were emitted."""
        self._text = self._text[n:]
        self._offset += n
        while self._starts and self._starts[0] < self._offset:
            end = self._starts[1] if len(self._starts) > 1 else self._offset + len(self._text)
            if kind is None and end > self._offset:
                return  # the rest of the token can be a part
            self._mark_tokens.discard(self._starts.popleft())
            if kind is not None:
                self.n_tokens[kind] += 1


class SectionSplitter(Splitter):
    """Of an answer that begins in `opened`."""

    def __init__(self, sections: tuple[Section, ...], opened: Section | None) -> None:
        self._sections = sections
        self._openings = {section.opening: section for section in sections}
        self._ends = {m for s in sections if s.kind == "thought" for m in s.closings}
        self._section: Section | None = None
        self._outer: Section | None = None
        self._is_behind_thought = False
        super().__init__(self._next_marks(), "text")
        if opened is not None:
            self._enter(opened)

    def _advance(self) -> bool:
        """Pass the first mark, or what is certain; whether more can be."""
        if not self._marks.first.isdisjoint(self._text):
            for found in self._marks.pattern.finditer(self._text):
                if self._counts(found):
                    self._pass(found)
                    return True
                if self._ends_here(self._text[found.start() :]):
                    self._say(found.start())
                    return False
        self._say(self._marks.n_certain(self._text))
        return False

    def _end(self) -> None:
        """No mark follows the text that is held."""
        if self.kind == "thought":
            self._emit(len(self._text.rstrip()))
        elif not self._ends_here(self._text.lstrip()):
            self._emit(len(self._text))
        if self._is_fresh and not self._trims and self._text:
            self._is_fresh = False
            self._emit(len(self._text))

    def _counts(self, found: Match[str]) -> bool:
        """Whether this is a mark, not text about one."""
        mark, place, section = found[0], found.start(), self._section
        opened = self._openings.get(mark)
        if section and section.kind == "thought" and opened is section:
            return self._is_first(place)
        if self._offset + place in self._mark_tokens:
            return True
        if section and mark in section.closings:
            return section.kind != "text" or section.place == "any"
        if section and section.kind == "thought":
            return False
        return self._may_open(opened, place) if opened else self._is_first(place)

    def _may_open(self, section: Section, place: int) -> bool:
        if section.place == "any":
            return True
        if section.place == "after":
            return self._is_behind_thought and self._is_first(place)
        return self._is_first(place) or (section.place == "line" and self._is_on_line(place))

    def _is_first(self, place: int) -> bool:
        return self._is_fresh and not self._text[:place].strip()

    def _is_on_line(self, place: int) -> bool:
        return self._text[place - 1] == "\n" if place else self._begins_line

    def _ends_here(self, text: str) -> bool:
        """Whether `text` is the end of a wrapped answer, as far as it has come."""
        section = self._section
        if not section or section.kind != "text":
            return False
        return any(text.startswith(m) and not text[len(m) :].strip() for m in section.closings)

    def _pass(self, found: Match[str]) -> None:
        """Go over to what a mark begins."""
        mark, section = found[0], self._section
        self._say(found.start())
        self._skip(self._text.index(mark))
        if section and section.kind == "tool_call":
            self._emit(len(mark))
            self._enter(self._outer)
            return
        opened = self._openings.get(mark)
        if opened and opened.kind == "tool_call":
            self._outer = section
            self._enter(opened)
            self._emit(len(mark))
            return
        self._skip(len(mark))
        self._enter(opened)
        self._is_behind_thought = mark in self._ends

    def _enter(self, section: Section | None) -> None:
        self._section, self._is_behind_thought = section, False
        kind = section.kind if section else "text"
        self._begin(kind, is_trimmed=bool(section and section.closings and kind != "tool_call"))
        self._marks = self._next_marks()

    def _next_marks(self) -> Marks:
        """All that can come in this section."""
        section = self._section
        own = section.closings if section else ()
        if section and section.kind == "tool_call":
            return marks_of(own)
        if section and section.kind == "thought":
            others = tuple(s.opening for s in self._sections if s.kind != "thought")
            return marks_of((section.opening, *own, *others))
        return marks_of((*self._openings, *self._ends, *own))
