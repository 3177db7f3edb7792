"""Which marks one model has, and where its answers begin.

Some models answer in several messages, each with a header: gpt-oss' channels, and recipients.

    <|start|>assistant<|channel|>analysis<|message|>They greet me.<|end|>
    <|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}<|call|>
    <|start|>assistant<|channel|>final<|message|>Hello!<|return|>

Source: OpenAI's harmony response format. A prompt ends inside the first header. Models that name a
recipient alone think in messages to themselves (`to=self`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from localspec.dialogue.markers import SECTIONS, THINK, Kind, Section
from localspec.engine.vocabulary import Vocabulary

_HEADER = re.compile(
    r"(?P<role>[\w.]*)(?P<to> to=[\w.-]*)?"
    r"(?:<\|(?:channel|constrain)\|>(?P<channel>analysis|commentary|final|[a-z]*))?"
    r"(?P<to_too> to=[\w.-]*)?(?: \w+)?(?: ?<\|(?:channel|constrain)\|>\w*)*"
)
_THINKING = ("analysis", "commentary")
_PEOPLE = ("", "user", "assistant", "all")
ROLE = "assistant"


@dataclass(frozen=True, slots=True)
class Frame:
    """A message: `start`, a header, `body`, what is said, one of `ends`."""

    start: str = "<|start|>"
    channels: tuple[str, ...] = ("<|channel|>", "<|constrain|>")
    body: str = "<|message|>"
    ends: tuple[str, ...] = ("<|end|>", "<|return|>", "<|call|>", "<|eom|>", "<|eot|>")

    @property
    def marks(self) -> tuple[str, ...]:
        return (self.start, *self.channels, self.body, *self.ends)

    def is_named_in(self, source: str) -> bool:
        """Whether a template speaks of it."""
        return self.start in source and self.body in source

    def header_of(self, prompt: str) -> str:
        """What the prompt has begun, up to and with `body` if it goes so far."""
        _, begun, header = prompt.rpartition(self.start)
        if not begun or self.body in header:
            return header if begun else ""
        found = _HEADER.match(header)
        assert found, "the pattern matches an empty text"
        return found[0]

    def kind_of(self, header: str) -> Kind:
        """Of the message below a header."""
        found = _HEADER.match(header)
        assert found, "the pattern matches an empty text"
        to = (found["to"] or found["to_too"] or "").removeprefix(" to=")
        if to not in (*_PEOPLE, "self"):
            return "tool_call"
        return "thought" if to == "self" or found["channel"] in _THINKING else "text"


FRAME = Frame()
_SIGNS = (*FRAME.marks, " to=", " <|constrain|>")
"""With what a header can go on."""


def n_header(header: str, n_begun: int) -> int | None:
    """Length of the header in a text that goes on without `body`; None where it may still come.

    `n_begun` characters are the prompt's. A text that names no channel has no header but a role.
    """
    found = _HEADER.match(header)
    assert found, "the pattern matches an empty text"
    rest = header[found.end() :]
    if not rest or any(sign.startswith(rest) for sign in _SIGNS):
        return None
    return n_spoken(header, n_begun)


def n_spoken(header: str, n_begun: int) -> int:
    """The same for a text that is over."""
    found = _HEADER.match(header)
    assert found, "the pattern matches an empty text"
    if found["channel"] is not None:
        return found.end("to_too") if found["to_too"] else found.end("channel")
    if found["to"] or ROLE.startswith(header):
        return found.end()
    return max(n_begun, len(ROLE) if header.startswith(ROLE) else 0)


_TAG = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]|◁[^◁▷]+▷")
"""What a vocabulary may have as one token; a mark can be several of them with text between."""


class AnswerPart(NamedTuple):
    """Text of an answer, all of one kind. A tool call has its marks."""

    text: str
    kind: Kind = "text"

    @property
    def is_thought(self) -> bool:
        return self.kind == "thought"


def joined(parts: Sequence[AnswerPart]) -> list[AnswerPart]:
    """The same text with neighbours of one kind as one."""
    runs: list[AnswerPart] = []
    for part in parts:
        if runs and runs[-1].kind == part.kind:
            part = AnswerPart(runs.pop().text + part.text, part.kind)
        runs.append(part)
    return runs


@dataclass(frozen=True, slots=True)
class Opening:
    """Where an answer begins: in a section that its prompt has opened, or in or behind a header."""

    section: Section | None = None
    header: str = ""


UNOPENED = Opening()


@dataclass(frozen=True, slots=True)
class Markup:
    """The marks of one model: sections, or a frame; `names`: ids of marks that are one token each.

    `drops_space`: the space that the vocabulary puts before a text is no part of an answer.
    Tokens of `names` count as marks wherever they stand. They have their names as text, also where
    the vocabulary calls them control tokens, which have none.
    """

    sections: tuple[Section, ...] = ()
    frame: Frame | None = None
    names: Mapping[int, str] = field(default_factory=dict[int, str])
    drops_space: bool = False

    @classmethod
    def of(cls, source: str | None, vocabulary: Vocabulary) -> "Markup":
        """Of a model by its chat template and vocabulary; without a template, text alone."""
        if source is None:
            return PLAIN
        ids = _Ids(vocabulary)
        framing = (FRAME.start, FRAME.channels[0], FRAME.body)
        if FRAME.is_named_in(source) or all(ids.of(mark) is not None for mark in framing):
            return cls((), FRAME, ids.names(FRAME.marks), vocabulary.adds_space)
        sections = tuple(s for s in SECTIONS if s is THINK or s.is_named_in(source) or ids.has(s))
        marks = [mark for section in sections for mark in section.marks]
        return cls(sections, None, ids.names(marks), vocabulary.adds_space)

    def with_section(self, section: Section, vocabulary: Vocabulary) -> "Markup":
        """With one more, if it has no frame and does not have it already."""
        if self.frame is not None or section in self.sections:
            return self
        names = {**self.names, **_Ids(vocabulary).names(section.marks)}
        return Markup((*self.sections, section), None, names, self.drops_space)

    def unsplit(self) -> "Markup":
        """All of an answer is text, its marks too."""
        return Markup(names=self.names, drops_space=self.drops_space)

    def opening(self, prompt: str, asking: str | None = None) -> Opening:
        """Where the answer to `prompt` begins: templates open sections themselves.

        `asking`: the end of it that is the template's own. A section is open that is not closed
        there. Where it is not known, a mark has to be the last of the prompt: a question can be
        about marks.
        """
        if self.frame is not None:
            return Opening(header=self.frame.header_of(asking or prompt))
        if asking is None:
            end = prompt.rstrip()
            opened = [section for section in self.sections if end.endswith(section.opening)]
        else:
            begun = [(asking.rfind(s.opening), s) for s in self.sections if s.opening in asking]
            _, last = max(begun, key=lambda one: one[0], default=(0, None))
            opened = [last] if last and not last.is_closed_in(asking) else []
        return Opening(opened[0] if opened else None)


PLAIN = Markup()
EVERY = Markup(tuple(section for section in SECTIONS if section.kind != "tool_call"))
"""For texts of models that are not here."""


class _Ids:
    """Ids of a vocabulary's marks; each text is looked up once."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._known: dict[str, int | None] = {}

    def of(self, tag: str) -> int | None:
        """The one token that a text is, if it is."""
        if tag not in self._known:
            ids = self._vocabulary.tokenize(tag, add_special=False)
            self._known[tag] = ids[0] if len(ids) == 1 else None
        return self._known[tag]

    def has(self, section: Section) -> bool:
        """Whether the vocabulary was made for this section."""
        tags = _TAG.findall(section.opening)
        tags += [text for text in section.evidence if _TAG.fullmatch(text) and "{" not in text]
        return bool(tags) and all(self.of(tag) is not None for tag in tags)

    def names(self, marks: Sequence[str]) -> dict[int, str]:
        """Of all tokens in these marks, by id."""
        tags = dict.fromkeys(tag for mark in marks for tag in _TAG.findall(mark))
        return {token: tag for tag in tags if (token := self.of(tag)) is not None}
