"""Answers in messages with headers, split at their frames."""

from localspec.dialogue.frame import ROLE, Frame, n_header, n_spoken
from localspec.dialogue.markers import Kind
from localspec.dialogue.markup import AnswerPart
from localspec.dialogue.split import Held, marks_of


class FrameSplitter:
    """Splits the text of one answer; its prompt has begun `header`, perhaps to its end."""

    def __init__(self, frame: Frame, header: str) -> None:
        self.held = Held()
        self._frame = frame
        self._marks = marks_of(frame.marks)
        self._kind: Kind | None = None
        self._begun = header
        if frame.body in header:
            self._enter(frame.kind_of(header.partition(frame.body)[0]))

    @property
    def kind(self) -> Kind | None:
        """Of the text that comes next; None in a header."""
        return self._kind

    def feed(self, text: str) -> list[AnswerPart]:
        """Take text; returns the parts that are certain now."""
        self.held.text += text
        while self.held.text and (self._advance() if self._kind else self._read_header()):
            pass
        return self.held.take()

    def at_once(self, text: str) -> list[AnswerPart]:
        """A token's text as one part, where no mark is near: most tokens. Else empty."""
        if not (self._kind and text):
            return []
        if self._kind == "thought" and text[-1].isspace():  # perhaps the end of it
            return []
        return self.held.pass_on(text, self._kind, self._marks)

    def finish(self) -> list[AnswerPart]:
        """What was held back: the answer is over."""
        held = self.held
        if self._kind is None and held.text:
            self._enter_spoken(n_spoken(self._begun + held.text, len(self._begun)))
        self._say(len(held.text))
        held.skip(len(held.text))
        return held.take()

    def _advance(self) -> bool:
        """Pass the first mark, or what is certain; whether more can be."""
        held = self.held
        found = self._marks.pattern.search(held.text)
        if found is None:
            self._say(self._marks.n_certain(held.text))
            return False
        self._say(found.start())
        held.skip(held.text.index(found[0]))
        self._leave(found[0])
        return True

    def _say(self, n: int) -> None:
        text = self.held.text[:n]
        if self._kind == "thought":
            text = text.rstrip()
        if text and self._kind:
            self.held.emit(len(text), self._kind)

    def _leave(self, mark: str) -> None:
        """A message is over; a channel's mark belongs to the next header."""
        if mark not in self._frame.channels:
            self.held.skip(len(mark))
        self._kind, self._begun = None, ""

    def _read_header(self) -> bool:
        frame, held = self._frame, self.held
        found = next((m for m in self._marks.pattern.finditer(held.text)
                      if m[0] not in frame.channels), None)  # fmt: skip
        header = held.text[: found.start()] if found else held.text
        is_cut = found is not None and found[0] != frame.body
        measure = n_spoken if is_cut else n_header
        n_over = measure(self._begun + header, len(self._begun))
        if n_over is not None:
            self._enter_spoken(n_over)
            return True
        if found is None:
            return False
        self._enter(frame.kind_of(self._begun + header))
        if self._kind == "tool_call":
            n_role = len(ROLE) if header.startswith(ROLE) else 0
            held.skip(n_role)
            held.emit(found.end() - n_role, self._kind)
        else:
            held.skip(found.end())
        return True

    def _enter_spoken(self, n: int) -> None:
        """The model speaks without the mark that ends a header."""
        header = (self._begun + self.held.text)[:n]
        self.held.skip(max(0, n - len(self._begun)))
        self._enter(self._frame.kind_of(header) if header.strip() else "text")

    def _enter(self, kind: Kind) -> None:
        self._kind, self._begun = kind, ""
        self.held.enter()
