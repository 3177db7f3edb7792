# ruff: noqa: RUF001 - models have marks with characters that resemble others
"""The text of a model's tool calls to OpenAI's calls; None where it is no call that is known.

Models write JSON with a name and arguments, alone or in a list, a name before a JSON object, or
parameters in tags. What is none of these stays text: nothing of an answer is lost.
"""

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

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
