"""Answers with sections: a thought, an answer in marks, tool calls, in any order.

A mark counts where its row says (`Place`), or anywhere if it begins with a token that is a mark by
itself. Within a thought only its own end is one, but for such tokens.
"""

from re import Match

from localspec.dialogue.markers import Kind, Section
from localspec.dialogue.markup import AnswerPart
from localspec.dialogue.split import Held, Marks, marks_of


class SectionSplitter:
    """Splits the text of one answer that begins in `opened`."""

    def __init__(self, sections: tuple[Section, ...], opened: Section | None) -> None:
        self.held = Held()
        self._sections = sections
        self._openings = {section.opening: section for section in sections}
        self._ends = {m for s in sections if s.kind == "thought" for m in s.closings}
        self._section: Section | None = None
        self._outer: Section | None = None
        self._is_behind_thought = self._begins_line = self._is_trimmed = False
        self.kind: Kind = "text"
        """Of the text that comes next."""
        self._marks = self._next_marks()
        if opened is not None:
            self._enter(opened)

    def feed(self, text: str) -> list[AnswerPart]:
        """Take text; returns the parts that are certain now."""
        held = self.held
        held.text += text
        while held.text and self._advance():
            pass
        return held.take()

    def at_once(self, text: str) -> list[AnswerPart]:
        """A token's text as one part, where no mark is near: most tokens. Else empty."""
        if self._section or not text:
            return []
        parts = self.held.pass_on(text, "text", self._marks)
        if parts:
            self._is_behind_thought &= text.isspace()
            self._begins_line = text[-1] == "\n"
        return parts

    def finish(self) -> list[AnswerPart]:
        """What was held back: the answer is over."""
        held = self.held
        if self.kind == "thought":
            held.emit(len(held.text.rstrip()), "thought")
        elif not self._ends_here(held.text.lstrip()):
            held.emit(len(held.text), self.kind)
        if held.is_fresh and not held.trims and held.text:
            held.is_fresh = False
            held.emit(len(held.text), self.kind)
        held.skip(len(held.text))
        return held.take()

    def _advance(self) -> bool:
        """Pass the first mark, or what is certain; whether more can be."""
        held = self.held
        if not self._marks.first.isdisjoint(held.text):
            for found in self._marks.pattern.finditer(held.text):
                if self._counts(found):
                    self._pass(found)
                    return True
                if self._ends_here(held.text[found.start() :]):
                    self._say(found.start())
                    return False
        self._say(self._marks.n_certain(held.text))
        return False

    def _say(self, n: int) -> None:
        text = self.held.text[:n]
        if self._is_trimmed:
            text = text.rstrip()
        if text:
            if text.strip():
                self._is_behind_thought = False
            self._begins_line = text.endswith("\n")
            self.held.emit(len(text), self.kind)

    def _counts(self, found: Match[str]) -> bool:
        """Whether this is a mark, not text about one."""
        mark, place, section = found[0], found.start(), self._section
        opened = self._openings.get(mark)
        if section and section.kind == "thought" and opened is section:
            return self._is_first(place)
        if self.held.is_mark(place):
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
        return self.held.is_fresh and not self.held.text[:place].strip()

    def _is_on_line(self, place: int) -> bool:
        return self.held.text[place - 1] == "\n" if place else self._begins_line

    def _ends_here(self, text: str) -> bool:
        """Whether `text` is the end of a wrapped answer, as far as it has come."""
        section = self._section
        if not section or section.kind != "text":
            return False
        return any(text.startswith(m) and not text[len(m) :].strip() for m in section.closings)

    def _pass(self, found: Match[str]) -> None:
        """Go over to what a mark begins."""
        mark, held, section = found[0], self.held, self._section
        self._say(found.start())
        held.skip(held.text.index(mark))
        if section and section.kind == "tool_call":
            held.emit(len(mark), "tool_call")
            self._enter(self._outer)
            return
        opened = self._openings.get(mark)
        if opened and opened.kind == "tool_call":
            self._outer = section
            self._enter(opened)
            held.emit(len(mark), "tool_call")
            return
        held.skip(len(mark))
        self._enter(opened)
        self._is_behind_thought = mark in self._ends

    def _enter(self, section: Section | None) -> None:
        self._section = section
        self.kind = section.kind if section else "text"
        # Whitespace at its end then belongs to its mark.
        self._is_trimmed = bool(section and section.closings and section.kind != "tool_call")
        self._begins_line = self._is_behind_thought = False
        self.held.enter()
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
