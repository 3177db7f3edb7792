"""Tokens of an answer to its parts, as they come: thought, text, tool calls."""

from collections.abc import Mapping, Sequence

from localspec.dialogue.frame import FRAME
from localspec.dialogue.framed import FrameSplitter
from localspec.dialogue.markers import Kind
from localspec.dialogue.markup import EVERY, UNOPENED, AnswerPart, Markup, Opening
from localspec.dialogue.sections import SectionSplitter
from localspec.dialogue.stream import TextStream
from localspec.engine.vocabulary import Vocabulary


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
        text = stream.push(piece or self._hidden(token))
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

    def _hidden(self, token: int) -> bytes:
        """A control token inside a tool call has its name as text: nothing of a call is lost."""
        is_call = self._splitter.kind == "tool_call"
        return self._vocabulary.text(token).encode() if is_call else b""


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
