"""The grammar of forced tool calls, in the frame of a model's chat template.

It is Lark as llguidance reads it: control tokens by their ids, arguments by the schemas of the
functions. Where arguments are tagged, texts are free up to the closing tag and other values JSON.

The frame is how a chat template writes tool calls, found by rendering calls of a known name and
arguments.

    begin NAME middle ARGUMENTS (between NAME middle ARGUMENTS)* end

Arguments are a JSON object, or tagged: each key and value between texts of the template. It does
not know templates that write arguments before the name, or as a JSON string.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localspec.dialogue.forms import Message
from localspec.dialogue.markup import Markup
from localspec.dialogue.template import ChatTemplate, TemplateError
from localspec.dialogue.tools import calls_of
from localspec.engine.vocabulary import Vocabulary

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


@dataclass(frozen=True, slots=True)
class Function:
    """What a model may call; `parameters` is a JSON schema of an object."""

    name: str
    parameters: Mapping[str, Any]

    @classmethod
    def of(cls, tool: Mapping[str, Any]) -> "Function":
        """From a tool as OpenAI writes it."""
        function = tool["function"]
        return cls(function["name"], {"type": "object", **(function.get("parameters") or {})})


def frame_of(template: ChatTemplate, markup: Markup) -> CallFrame | None:
    """The template's own frame, else JSON in the model's marks; None where neither is read as
    calls again."""
    found = CallFrame.of(template)
    if found is not None and _is_read(found):
        return found
    wraps = [s for s in markup.sections if s.kind == "tool_call" and s.closings]
    made = (
        CallFrame(f'{s.opening}\n{{"name": "', '", "arguments": ', None, f"}}\n{s.closings[0]}")
        for s in wraps
    )
    return next(filter(_is_read, made), None)


def _is_read(frame: CallFrame) -> bool:
    """Whether a call in this frame is understood."""
    tags = frame.tags
    written = f"{tags.first}k{tags.middle}v{tags.close}" if tags else '{"k": "v"}'
    calls = calls_of(f"{frame.begin}a_name{frame.middle}{written}{frame.end}")
    if not calls or len(calls) != 1:
        return False
    function = calls[0]["function"]
    return function["name"] == "a_name" and json.loads(function["arguments"]) == {"k": "v"}


@dataclass(frozen=True, slots=True)
class CallGrammar:
    """Calls of some functions: one, or several where they may be `parallel`."""

    frame: CallFrame
    functions: Sequence[Function]
    vocabulary: Vocabulary
    parallel: bool = True

    @property
    def text(self) -> str:
        """Lark."""
        frame, names = self.frame, range(len(self.functions))
        more = ""
        if self.parallel and frame.between is not None:
            more = f"({self._said(frame.between)} call)*"
        rules = [f"start: {self._said(frame.begin)} call {more} {self._said(frame.end)}"]
        rules.append("call: " + " | ".join(f"call_{i}" for i in names))
        for i, function in enumerate(self.functions):
            rules += self._function(i, function)
        return "\n".join(rules) + "\n"

    def _function(self, i: int, function: Function) -> list[str]:
        name = self._said(function.name)
        if self.frame.tags is None:
            head = f"call_{i}: {name} {self._said(self.frame.middle)} arguments_{i}"
            return [head, f"arguments_{i}: %json {json.dumps(function.parameters)}"]
        return self._tagged(i, name, function, self.frame.tags)

    def _tagged(self, i: int, name: str, function: Function, tags: Tags) -> list[str]:
        """Those that are required, then any of the others, each in the order of the schema."""
        schemas: Mapping[str, Any] = function.parameters.get("properties", {})
        needed = [key for key in schemas if key in function.parameters.get("required", ())]
        keys = [*needed, *(key for key in schemas if key not in needed)]
        rules: list[str] = []
        body = ""
        for k, key in enumerate(keys):
            before = self._said(tags.next if k else tags.first)
            one = f"{before} {self._said(key)} {self._said(tags.middle)} value_{i}_{k}"
            body += f" {one}" if key in needed else f" ({one}"
            rules += self._value(f"value_{i}_{k}", schemas[key], function, tags)
        body += ")?" * (len(keys) - len(needed))
        return [f"call_{i}: {name} {body or self._said(_nothing(tags))}", *rules]

    def _value(self, rule: str, schema: Any, function: Function, tags: Tags) -> list[str]:
        close = self._said(tags.close)
        kind = schema.get("type") if isinstance(schema, Mapping) else None
        choices = schema.get("enum") if isinstance(schema, Mapping) else None
        if kind == "string" and choices and all(isinstance(each, str) for each in choices):
            return [f"{rule}: ({' | '.join(map(self._said, choices))}) {close}"]
        if kind == "string":
            stop = re.match(r"<\[\d+\]>", close)
            if stop:
                return [f"{rule}: {rule.upper()} {close}", f"{rule.upper()}: {_free(schema)}"]
            return [f"{rule}[suffix={json.dumps(tags.close)}]: {_free(schema)}"]
        whole = dict(schema) if isinstance(schema, Mapping) else {}
        for name in ("$defs", "definitions"):
            if name in function.parameters:
                whole[name] = function.parameters[name]
        return [f"{rule}: %json {json.dumps(whole)} {close}"]

    def _said(self, text: str) -> str:
        """A text as Lark has it, its control tokens by their ids."""
        specials = [s for s, kind in self.vocabulary.specials.items() if kind == "control"]
        known = sorted((s for s in specials if s and s in text), key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, known))})", text) if known else [text]
        return " ".join(self._part(part) for part in parts if part)

    def _part(self, part: str) -> str:
        if self.vocabulary.specials.get(part) != "control":
            return json.dumps(part, ensure_ascii=False)
        (token,) = self.vocabulary.tokenize(part, add_special=False, goes_on=True)[-1:]
        return "" if token in self.vocabulary.eog else f"<[{token}]>"


def _free(schema: Mapping[str, Any]) -> str:
    """Any text of a length that a schema of texts allows."""
    low, high = schema.get("minLength", 0), schema.get("maxLength")
    bounds = f"{{{low},{'' if high is None else high}}}" if low or high is not None else "*"
    return f"/(?s:.{bounds})/"


def _nothing(tags: Tags) -> str:
    """What stands before no keys: the head of a call that has some."""
    head = re.match(r"[^<]*?>\n?", tags.first)
    return head[0] if head else ""
