# ruff: noqa: RUF001 - models have marks with characters that resemble others
"""Tools that a model may call: how it is told of them, and what its calls say.

A chat template that names `tools` is left to write its own. For another one the system's text tells
them: calls are JSON in <tool_call> marks and results stand in <tool_response> marks, as Hermes 2
Pro was trained and as most models know it.

`calls_of` makes OpenAI's calls of a model's text. Models write JSON with a name and arguments,
alone or in a list, a name before a JSON object, or parameters in tags. What is none of these stays
text: nothing of an answer is lost.
"""

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from localspec.dialogue.markers import SECTIONS
from localspec.dialogue.template import ChatTemplate, Message
from localspec.errors import UserError

NAME = re.compile(r"[\w.:/-]+")
"""Of a function: what every form of a call can say, and is read as it was said."""


@dataclass(frozen=True, slots=True)
class Tools:
    """`told` are those that the template is told of. `forced` are names of which one at least must
    be called, `parallel`: several may be."""

    told: Sequence[Mapping[str, Any]]
    forced: tuple[str, ...] = ()
    parallel: bool = True


def checked_tools(tools: Any, choice: Any = "auto", parallel: Any = True) -> Tools | None:
    """From OpenAI's fields, or a name as `choice`; None where none is told. UserError."""
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise UserError("tools is no list")
    if not isinstance(parallel, bool):
        raise UserError(f"parallel_tool_calls {parallel!r} is neither true nor false")
    names = [_name_of(tool, f"tools[{i}]") for i, tool in enumerate(tools)]
    forced = _forced(choice, names)
    return Tools(tools, forced, parallel) if tools and choice != "none" else None


def _name_of(tool: Any, where: str) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(function, Mapping):
        raise UserError(f"{where} is no function with a name")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not name:
        raise UserError(f"{where} is no function with a name")
    if not NAME.fullmatch(name):
        raise UserError(f"{where} has the name {name!r}: use letters, digits and _ . : / -")
    if not isinstance(parameters, Mapping | None):
        raise UserError(f"{where} has parameters that are no JSON schema")
    return name


def _forced(choice: Any, names: list[str]) -> tuple[str, ...]:
    if choice in ("auto", "none"):
        return ()
    if not names:
        raise UserError(f"tool_choice {choice!r} chooses among no tools: give some in tools")
    if choice == "required":
        wanted = names
    elif isinstance(choice, Mapping):
        function = choice.get("function", choice)
        wanted = [function.get("name")] if isinstance(function, Mapping) else []
    else:
        wanted = [choice]
    if not wanted or not all(name in names for name in wanted):
        known = ", ".join(["auto", "none", "required", *names])
        raise UserError(f"tool_choice {choice!r} is not one of {known}")
    return tuple(dict.fromkeys(wanted))


TOOLS = "tools"
"""The variable that tells templates of them."""
CALL = next(section for section in SECTIONS if section.opening == "<tool_call>")
_RESULT = ("<tool_response>", "</tool_response>")
_TOLD = """You can call functions. These are described by JSON schemas:
<tools>
{tools}
</tools>
To call one, answer with its name and its arguments, and nothing else:
<tool_call>
{{"name": "NAME", "arguments": {{"ARGUMENT": "VALUE"}}}}
</tool_call>"""


def knows_tools(template: ChatTemplate) -> bool:
    """Whether it writes tools, calls and results itself."""
    return TOOLS in template.source


def with_tools(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The same conversation in texts alone."""
    said = _without_results([_answer(each) for each in messages])
    if not tools:
        return said
    told = _TOLD.format(tools="\n".join(json.dumps(tool["function"]) for tool in tools))
    if said and said[0]["role"] == "system":
        first: Any = {**said[0], "content": f"{said[0]['content']}\n\n{told}".strip()}
        return [first, *said[1:]]
    return [Message(role="system", content=told), *said]


def _answer(message: Message) -> Message:
    """With its calls as text."""
    given: Mapping[str, Any] = message
    calls = given.get("tool_calls")
    if not calls:
        return message
    texts = [_written(call["function"]) for call in calls]
    kept: Any = {key: value for key, value in given.items() if key != "tool_calls"}
    kept["content"] = "\n".join(filter(None, [given.get("content"), *texts]))
    return kept


def _written(function: Mapping[str, Any]) -> str:
    call = {"name": function["name"], "arguments": function.get("arguments", {})}
    return f"{CALL.opening}\n{json.dumps(call)}\n{CALL.closings[0]}"


def _without_results(messages: Sequence[Message]) -> list[Message]:
    """With results as questions; those that follow each other, and the question behind, are one."""
    said: list[Message] = []
    is_open = False
    for message in messages:
        role = str(message["role"])
        text = message["content"]
        if role == "tool":
            text = f"{_RESULT[0]}\n{text}\n{_RESULT[1]}"
        if is_open and role in ("tool", "user"):
            said[-1] = Message(role="user", content=f"{said[-1]['content']}\n\n{text}")
        else:
            said.append(Message(role="user", content=text) if role == "tool" else message)
        is_open = role == "tool"
    return said


_ARGUMENTS = ("arguments", "parameters", "args")
_NAMED = re.compile(
    r"""(?:<function=|<function\ name="|(?<=\])|\A|<｜tool▁sep｜>|functions\.)([\w.-]+)"""
    r"""(?:>|">|\[ARGS\]|<｜tool▁sep｜>|\s*```json|:\d+\s*<\|tool_call_argument_begin\|>)$"""
)
"""A name right before its arguments, as Llama, Mistral, DeepSeek and Kimi write it."""
_RECIPIENT = re.compile(r"to=(?:functions\.)?([\w.-]+)[^{}\[]*<\|message\|>$")
"""A name in the header of a message."""
_TAGGED = re.compile(
    r"""<(?:｜DSML｜)?(?:function=|(?:function|invoke)\ name=")([\w.-]+)"?>(.*?)"""
    r"""</(?:｜DSML｜)?(?:function|invoke)>""",
    re.DOTALL,
)
_PARAMETER = re.compile(
    r"""<(?:｜DSML｜)?(?:parameter=|param(?:eter)?\ name=")([\w.-]+)[^>]*>\n?(.*?)\n?"""
    r"""</(?:｜DSML｜)?param(?:eter)?>""",
    re.DOTALL,
)
_KEYED = re.compile(
    r"<tool_call[^>]*>\s*([\w.-]+)\s*(?:<tool_sep[^>]*>\s*)?"
    r"((?:<arg_key[^>]*>.*?</arg_value[^>]*>\s*)*)</tool_call[^>]*>",
    re.DOTALL,
)
_PAIR = re.compile(
    r"<arg_key[^>]*>(.*?)</arg_key[^>]*>\s*<arg_value[^>]*>(.*?)</arg_value[^>]*>", re.DOTALL
)


def calls_of(text: str) -> list[dict[str, Any]] | None:
    """Calls with `id`, `type` and `function`, in order; None where there is none, or a bad one."""
    for calls, pairs in ((_TAGGED, _PARAMETER), (_KEYED, _PAIR)):
        tagged = calls.findall(text)
        if tagged and all(pairs.search(body) or not body.strip() for _, body in tagged):
            return [_call(name, dict(_parameters(pairs.findall(body)))) for name, body in tagged]
    found: list[dict[str, Any]] = []
    for before, value in _values(text):
        for each in value if isinstance(value, list) else [value]:
            call = _of_value(each, before)
            if call is None:
                return None
            found.append(call)
    return found or None


def _values(text: str) -> Iterator[tuple[str, Any]]:
    """Each outermost JSON object or list, with what stands before it."""
    decoder, start, done = json.JSONDecoder(), 0, 0
    while (found := re.compile(r"[\[{]").search(text, start)) is not None:
        try:
            value, end = decoder.raw_decode(text, found.start())
        except ValueError:
            start = found.start() + 1
            continue
        yield text[done : found.start()], value
        start = done = end


def _of_value(value: Any, before: str) -> dict[str, Any] | None:
    if not isinstance(value, Mapping):
        return None
    function = value.get("function", value)
    if isinstance(function, Mapping):
        name = function.get("name", function.get("tool_name"))
        key = next((key for key in _ARGUMENTS if key in function), None)
        if isinstance(name, str):
            return _call(name, function[key] if key else {})
    named = _NAMED.search(before.rstrip()) or _RECIPIENT.search(before.rstrip())
    return _call(named[1], value) if named else None


def _parameters(pairs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, Any]]:
    for name, text in pairs:
        try:
            yield name, json.loads(text)
        except ValueError:
            yield name, text


def _call(name: str, arguments: Any) -> dict[str, Any]:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    function = {"name": name, "arguments": text}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
