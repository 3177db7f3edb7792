"""Tokens of an answer to its parts, as they come: thought, text, tool calls.

Answers in messages with headers are split at their frames.
"""

from collections.abc import Mapping, Sequence

from localspec.dialogue.frame import FRAME, ROLE, Frame, n_header, n_spoken
from localspec.dialogue.markers import Kind
from localspec.dialogue.markup import EVERY, UNOPENED, AnswerPart, Markup, Opening
from localspec.dialogue.sections import SectionSplitter
from localspec.dialogue.split import Held, TextStream, marks_of
from localspec.engine.vocabulary import Vocabulary


class FrameSplitter:
    """Splits the text of one answer; its prompt has begun `header`, perhaps to its end."""

    def __init__(self, frame: Frame, header: str) -> None:
        self.held = Held()
        self._frame = frame
        self._marks = marks_of(frame.marks)
        self.kind: Kind | None = None
        """Of the text that comes next; None in a header."""
        self._begun = header
        if frame.body in header:
            self._enter(frame.kind_of(header.partition(frame.body)[0]))

    def feed(self, text: str) -> list[AnswerPart]:
        """Take text; returns the parts that are certain now."""
        self.held.text += text
        while self.held.text and (self._advance() if self.kind else self._read_header()):
            pass
        return self.held.take()

    def at_once(self, text: str) -> list[AnswerPart]:
        """A token's text as one part, where no mark is near: most tokens. Else empty."""
        if not (self.kind and text):
            return []
        if self.kind == "thought" and text[-1].isspace():  # perhaps the end of it
            return []
        return self.held.pass_on(text, self.kind, self._marks)

    def finish(self) -> list[AnswerPart]:
        """What was held back: the answer is over."""
        held = self.held
        if self.kind is None and held.text:
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
        if self.kind == "thought":
            text = text.rstrip()
        if text and self.kind:
            self.held.emit(len(text), self.kind)

    def _leave(self, mark: str) -> None:
        """A message is over; a channel's mark belongs to the next header."""
        if mark not in self._frame.channels:
            self.held.skip(len(mark))
        self.kind, self._begun = None, ""

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
        if self.kind == "tool_call":
            n_role = len(ROLE) if header.startswith(ROLE) else 0
            held.skip(n_role)
            held.emit(found.end() - n_role, self.kind)
        else:
            held.skip(found.end())
        return True

    def _enter_spoken(self, n: int) -> None:
        """The model speaks without the mark that ends a header."""
        header = (self._begun + self.held.text)[:n]
        self.held.skip(max(0, n - len(self._begun)))
        self._enter(self._frame.kind_of(header) if header.strip() else "text")

    def _enter(self, kind: Kind) -> None:
        self.kind, self._begun = kind, ""
        self.held.enter()


class AnswerParser:
    """Takes the tokens of one answer; stops at the first of the texts in `stop`."""

    def __init__(
        self,
        markup: Markup,
        vocabulary: Vocabulary,
        stop: Sequence[str] = (),
        opening: Opening = UNOPENED,
    ) -> None:
        self._vocabulary = vocabulary
        self._names = markup.names
        self._drops_space = markup.drops_space
        self.stops = any(stop)
        """Whether a text can end it."""
        self._stream = TextStream(stop)
        self._splitter = splitter(markup, opening)

    @property
    def is_stopped(self) -> bool:
        """Whether a stop text has come."""
        return self._stream.is_stopped

    @property
    def stopped_by(self) -> str | None:
        """The stop text that has come."""
        return self._stream.stopped_by

    @property
    def n_tokens(self) -> Mapping[Kind, int]:
        """How many tokens the parts have; marks are no part."""
        return self._splitter.held.n_tokens

    def push(self, token: int) -> list[AnswerPart]:
        """Take a token; returns the parts that are certain now."""
        stream, name = self._stream, self._names.get(token)
        before, n_held = stream.n_decoded, len(stream.held)
        piece = self._vocabulary.piece(token) if name is None else name.encode()
        if not piece and self._splitter.kind == "tool_call":
            piece = self._vocabulary.text(token).encode()  # nothing of a call is lost
        text = stream.push(piece)
        if name is None and not (n_held or stream.held or self._drops_space):
            parts = self._splitter.at_once(text)
            if parts:
                return parts
        start = before if name is None else stream.n_decoded - len(name)
        self._splitter.held.begin_token(n_held + start - before, is_mark=name is not None)
        return self._split(text)

    def finish(self) -> list[AnswerPart]:
        """Returns what was held back: the answer is over, for now."""
        return self._split(self._stream.finish()) + self._splitter.finish()

    def _split(self, text: str) -> list[AnswerPart]:
        if not text:
            return []
        if self._drops_space:
            text, self._drops_space = text.removeprefix(" "), False
        return self._splitter.feed(text)


def splitter(markup: Markup, opening: Opening) -> SectionSplitter | FrameSplitter:
    """Of an answer's text."""
    if markup.frame is not None:
        return FrameSplitter(markup.frame, opening.header)
    return SectionSplitter(markup.sections, opening.section)


def parts_of(text: str) -> list[AnswerPart]:
    """The parts of a whole answer of a model that is not known."""
    split = splitter(EVERY, _opening_of(text))
    if text.startswith(FRAME.channels[0]):
        split = FrameSplitter(FRAME, "")
    return split.feed(text) + split.finish()


def _opening_of(text: str) -> Opening:
    """The section that the prompt had opened: the answer has its end alone, at a line's end."""
    ends = [(m, s) for s in EVERY.sections if s.kind == "thought" for m in s.closings]
    found = [(text.find(mark), mark, s) for mark, s in ends if mark in text]
    if not found:
        return UNOPENED
    place, mark, section = min(found, key=lambda one: one[0])
    is_line = text[:place].endswith("\n") or text.startswith("\n", place + len(mark))
    return Opening(section) if is_line and section.opening not in text[:place] else UNOPENED
