"""Tokens of an answer to its parts, as they come: thought, text, tool calls.

Tokens' bytes become text as soon as the text is certain. Answers in messages with headers are split
at their frames.
"""

import codecs
from collections.abc import Mapping, Sequence

from localspec.dialogue.markers import Kind
from localspec.dialogue.markup import (
    EVERY,
    FRAME,
    ROLE,
    UNOPENED,
    AnswerPart,
    Frame,
    Markup,
    Opening,
    n_header,
    n_spoken,
)
from localspec.dialogue.split import Marks, SectionSplitter, Splitter, marks_of
from localspec.engine.vocabulary import Vocabulary


class TextStream:
    """Takes tokens' bytes and gives text.

    It holds back bytes of an unfinished character, and text that may begin a stop string. Bytes
    that are not UTF-8 become U+FFFD. `stopped_by` is the stop text that has come. `n_decoded`
    characters have been read; `held` is what of them is held back.
    """

    def __init__(self, stop: Sequence[str] = ()) -> None:
        self.stopped_by: str | None = None
        self.n_decoded = 0
        self._stop = Marks(text for text in stop if text)
        self._stops = any(stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._is_open = False
        """Whether a character has begun."""
        self.held = ""

    @property
    def is_stopped(self) -> bool:
        return self.stopped_by is not None

    def push(self, piece: bytes) -> str:
        """Take a token's bytes; returns the text that is certain now."""
        if self._is_open or not piece.isascii():
            text = self._decoder.decode(piece)
            self._is_open = bool(self._decoder.getstate()[0])
        else:
            text = piece.decode()
        if self._stops:
            return self._release(text)
        self.n_decoded += len(text)
        return text

    def finish(self) -> str:
        """Returns what was held back: the reply is over."""
        text = self._release(self._decoder.decode(b"", final=True)) + self.held
        self.held = ""
        return text

    def _release(self, text: str) -> str:
        if self.stopped_by is not None:
            return ""
        self.n_decoded += len(text)
        self.held += text
        found = self._stop.pattern.search(self.held)
        self.stopped_by = found[0] if found else None
        n_certain = found.start() if found else self._stop.n_certain(self.held)
        certain = self.held[:n_certain]
        self.held = "" if found else self.held[n_certain:]
        return certain


class FrameSplitter(Splitter):
    """Of an answer in messages; its prompt has begun `header`, perhaps to its end."""

    def __init__(self, frame: Frame, header: str) -> None:
        super().__init__(marks_of(frame.marks), None)
        self._frame, self._begun = frame, header
        if frame.body in header:
            self._enter(frame.kind_of(header.partition(frame.body)[0]))

    def _advance(self) -> bool:
        """Pass the first mark, or what is certain; whether more can be."""
        if self.kind is None:
            return self._read_header()
        found = self._marks.pattern.search(self._text)
        if found is None:
            self._say(self._marks.n_certain(self._text))
            return False
        self._say(found.start())
        self._skip(self._text.index(found[0]))
        if found[0] not in self._frame.channels:  # a channel's mark belongs to the next header
            self._skip(len(found[0]))
        self.kind, self._begun = None, ""
        return True

    def _end(self) -> None:
        """No mark follows the text that is held."""
        if self.kind is None:
            self._enter_spoken(n_spoken(self._begun + self._text, len(self._begun)))
        self._say(len(self._text))

    def _read_header(self) -> bool:
        frame, text = self._frame, self._text
        found = next((m for m in self._marks.pattern.finditer(text)
                      if m[0] not in frame.channels), None)  # fmt: skip
        header = text[: found.start()] if found else text
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
            self._skip(n_role)
            self._emit(found.end() - n_role)
        else:
            self._skip(found.end())
        return True

    def _enter_spoken(self, n: int) -> None:
        """The model speaks without the mark that ends a header."""
        header = (self._begun + self._text)[:n]
        self._skip(max(0, n - len(self._begun)))
        self._enter(self._frame.kind_of(header) if header.strip() else "text")

    def _enter(self, kind: Kind) -> None:
        self._begun = ""
        self._begin(kind, is_trimmed=kind == "thought")


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
        return self._splitter.n_tokens

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
        self._splitter.begin_token(n_held + start - before, is_mark=name is not None)
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


def splitter(markup: Markup, opening: Opening) -> Splitter:
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
