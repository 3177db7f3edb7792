"""The grammar of forced tool calls, in the frame of a model's chat template.

It is Lark as llguidance reads it: control tokens by their ids, arguments by the schemas of the
functions. Where arguments are tagged, texts are free up to the closing tag and other values JSON.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localspec.dialogue.call_frame import CallFrame, Tags
from localspec.dialogue.markup import Markup
from localspec.dialogue.template import ChatTemplate
from localspec.dialogue.tool_calls import calls_of
from localspec.engine.vocabulary import Vocabulary


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
