"""Answers in several messages, each with a header: gpt-oss' channels, and recipients.

    <|start|>assistant<|channel|>analysis<|message|>They greet me.<|end|>
    <|start|>assistant to=functions.now<|channel|>commentary json<|message|>{}<|call|>
    <|start|>assistant<|channel|>final<|message|>Hello!<|return|>

Source: OpenAI's harmony response format. A prompt ends inside the first header. Models that name a
recipient alone think in messages to themselves (`to=self`).
"""

import re
from dataclasses import dataclass

from localspec.dialogue.markers import Kind

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
