"""Where the texts of a conversation stand in what a template makes of it.

Each question and answer gets a private-use character of its own, which templates pass through, so
that one rendering says where every turn is: two texts can be alike, and a template can drop or move
one. It stands where no template looks, after the first word: templates test how a text begins and
ends, and for words in it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from localspec.dialogue.specials import Specials
from localspec.dialogue.template import Message
from localspec.errors import UserError

_FIRST, _LAST = 0xF0000, 0x10FFFD
"""The private-use planes of Unicode."""
Part = Literal["content", "thought"]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Borders:
    """The characters from `base` on: one for control tokens that are text, two for a message."""

    base: int
    n_messages: int

    @property
    def mark(self) -> str:
        """Stands before a text that is no control token."""
        return chr(self.base)

    def of(self, i: int, part: Part) -> str:
        """The character in a part of message `i`."""
        return chr(self.base + 1 + 2 * i + (part == "thought"))

    @property
    def pattern(self) -> re.Pattern[str]:
        """Every character of a message, but not `mark`."""
        return re.compile(f"[{chr(self.base + 1)}-{chr(self.base + 2 * self.n_messages + 1)}]")

    @classmethod
    def beside(cls, messages: Sequence[Message]) -> "Borders":
        """Characters that no message has. UserError where there are none."""
        used = {ord(c) for message in messages for c in set(_whole(message)) if ord(c) >= _FIRST}
        size = 2 + 2 * len(messages)
        for base in range(_FIRST, _LAST - size, size):
            if not used or used.isdisjoint(range(base, base + size)):
                return cls(base, len(messages))
        raise UserError("the messages have every private-use character: take some of them out")

    def marked(self, message: Message, i: int, specials: Specials) -> Message:
        """Message `i` with its characters, and a mark where it spells a control token."""
        marked = message.copy()
        marked["content"] = specials.guarded(message["content"], self.mark)
        if message["role"] != "system":
            marked["content"] = _with(marked["content"], self.of(i, "content"))
        if thought := message.get("thought"):
            guarded = specials.guarded(thought, self.mark)
            marked["thought"] = _with(guarded, self.of(i, "thought"))
        return marked


def _whole(message: Message) -> str:
    return message["content"] + message.get("thought", "")


def _with(text: str, character: str) -> str:
    """`text` with a character in it; as it is if there is nothing in it."""
    match = re.search(r"\S+(?=\s+\S)|\w(?=\w)|(?=\S)", text)
    return text[: match.end()] + character + text[match.end() :] if match else text


@dataclass(frozen=True, eq=False)
class Rendered:
    """A prompt as a template wrote it, of messages with characters and marks in them."""

    text: str
    borders: Borders
    messages: Sequence[Message]

    @cached_property
    def clean(self) -> str:
        """The prompt."""
        return self.said(0, len(self.text))

    @cached_property
    def asking(self) -> str | None:
        """What the template writes behind the last question; None where that is not known."""
        span = self.span(len(self.messages) - 1)
        return None if span is None else self.said(span[1], len(self.text))

    def said(self, start: int, end: int) -> str:
        """A part of the prompt."""
        return self.without_borders(self.text[start:end]).replace(self.borders.mark, "")

    def plain(self, message: Message) -> Message:
        """A message of it as it was, without characters and marks."""
        plain = message.copy()
        for part in ("content", "thought"):
            if text := message.get(part):
                plain[part] = self.without_borders(text).replace(self.borders.mark, "")
        return plain

    def without_borders(self, text: str) -> str:
        return self.borders.pattern.sub("", text)

    def span(self, i: int, part: Part = "content") -> Span | None:
        """Where a part of message `i` is, without spaces around it; None if it is not as it was."""
        core = str(self.messages[i].get(part, "")).strip()
        places = self._places.get(self.borders.of(i, part), ())
        if len(places) != 1:
            return None
        start = places[0] - core.index(self.borders.of(i, part))
        return (start, start + len(core)) if self.text.startswith(core, max(0, start)) else None

    @cached_property
    def _places(self) -> Mapping[str, Sequence[int]]:
        found: dict[str, list[int]] = {}
        for match in self.borders.pattern.finditer(self.text):
            found.setdefault(match[0], []).append(match.start())
        return found
