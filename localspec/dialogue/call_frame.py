"""How a chat template writes tool calls, found by rendering calls of a known name and arguments.

    begin NAME middle ARGUMENTS (between NAME middle ARGUMENTS)* end

Arguments are a JSON object, or tagged: each key and value between texts of the template. It does
not know templates that write arguments before the name, or as a JSON string.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localspec.dialogue.forms import Message
from localspec.dialogue.template import ChatTemplate, TemplateError

_NAME, _OTHER = "qqfunctionqq", "qqotherqq"
_KEYS, _VALUES = ("qqkeyqq", "qqnextqq"), ("qqvalueqq", "qqlastqq")
_TEXT = "qqtextqq"
_JSON = re.compile(rf'\{{\s*"{_KEYS[0]}"\s*:\s*"{_VALUES[0]}"\s*\}}')
_QUESTION = Message(role="user", content="a")


@dataclass(frozen=True, slots=True)
class Tags:
    """Texts around keys and values: before the first key, between a key and its value, behind a
    value, and between that and the next key."""

    first: str
    middle: str
    close: str
    next: str


@dataclass(frozen=True, slots=True)
class CallFrame:
    """The texts around names and arguments. `between` None: there is one call at a time. `tags`
    None: arguments are a JSON object."""

    begin: str
    middle: str
    between: str | None
    end: str
    tags: Tags | None = None

    @classmethod
    def of(cls, template: ChatTemplate) -> "CallFrame | None":
        """Of a template that was given tools; None where it is not known."""
        said = _tried(lambda: _answered(template, {"content": _TEXT}))
        one = _tried(lambda: _answered(template, _calling([(_NAME, 1)])))
        if not said or not one or _TEXT not in said:
            return None
        head, _, tail = said.rpartition(_TEXT)
        start = len(_without_half(one[: _n_shared(head, one)]))
        begin, name, body = one[start:].partition(_NAME)
        if not name:
            return None
        body = _without_end(body, tail)
        two = _tried(lambda: _answered(template, _calling([(_NAME, 1), (_OTHER, 1)])))
        found = _JSON.search(body)
        if found is not None:
            return cls(begin, body[: found.start()], _between(two), body[found.end() :])
        return _tagged(template, begin, body, two)


def _calling(calls: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """An answer with calls, each of a name and a number of arguments."""
    return {
        "content": "",
        "tool_calls": [
            {
                "id": f"abcdefgh{i}",
                "type": "function",
                "function": {
                    "name": name,
                    "arguments": dict(zip(_KEYS[:n], _VALUES[:n], strict=True)),
                },
            }
            for i, (name, n) in enumerate(calls)
        ],
    }


def _answered(template: ChatTemplate, answer: Mapping[str, Any]) -> str:
    said: Any = [_QUESTION, {"role": "assistant", **answer}]
    return template.render(said, add_generation_prompt=False)


def _tried(render: Callable[[], str]) -> str | None:
    try:
        return render()
    except TemplateError:
        return None


def _n_shared(a: str, b: str) -> int:
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _without_end(body: str, tail: str) -> str:
    """Without what ends any answer, which begins behind a mark."""
    n_shared = _n_shared(body[::-1], tail[::-1])
    kept, shared = body[: len(body) - n_shared], body[len(body) - n_shared :]
    is_inside = kept != _without_half(kept)
    return kept + shared[: shared.find(">") + 1] if is_inside else kept


def _without_half(text: str) -> str:
    """Without the beginning of a mark at its end."""
    return re.sub(r"<[^<>]*$", "", text)


def _between(two: str | None) -> str | None:
    """What stands between the end of a call's arguments and the next call's name."""
    if two is None or _OTHER not in two:
        return None
    before = two[: two.index(_OTHER)]
    ends = [found.end() for found in _JSON.finditer(before)]
    return before[ends[0] :] if len(ends) == 1 else None


def _tagged(template: ChatTemplate, begin: str, body: str, two: str | None) -> CallFrame | None:
    """The frame of a template that writes keys and values in tags."""
    (key, other), (value, last) = _KEYS, _VALUES
    if key not in body or value not in body[body.index(key) :]:
        return None
    both = _tried(lambda: _answered(template, _calling([(_NAME, 2)])))
    if both is None or last not in both:
        return None
    first, rest = body[: body.index(key)], body[body.index(key) + len(key) :]
    middle, end = rest.split(value, 1)
    inner = both[both.index(value) + len(value) : both.index(other)]
    close = _without_half(inner[: _n_shared(inner, end)])
    n_close = len(close)
    if not close.strip():
        return None
    between = None
    if two and _OTHER in two and value in two[: two.index(_OTHER)]:
        between = two[two.index(value) + len(value) : two.index(_OTHER)]
        between = between[len(close) :] if between.startswith(close) else None
    tags = Tags(first, middle, close, inner[n_close:])
    if any("qq" in text for text in (first, middle, close, tags.next)):
        return None
    return CallFrame(begin, "", between, end[n_close:], tags)
