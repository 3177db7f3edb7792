"""Anthropic's messages as OpenAI's, block by block.

What is not Anthropic's field goes on as OpenAI's, so that it is read or refused there.
`budget_tokens` and `display` of thinking change nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from localspec.serve.order import Order, Orders
from localspec.serve.problem import refused
from localspec.serve.protocols import Door
from localspec.serve.protocols.anthropic_events import MessageWriter, written
from localspec.serve.request_body import among, fields_of
from localspec.serve.texts import tools_of, utf8

COUNT = "/v1/messages/count_tokens"
_BILLING = re.compile(r"\A\s*x-anthropic-billing-header:[^\n]*\n*")
"""Claude Code begins its system text with this line, which changes with each request: the prompt
would share nothing with the one before."""
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_EFFORTS = {"enabled": "on", "adaptive": "on", "disabled": "none"}
_HOSTED = ("mcp_servers", "container", "context_management")
"""Services of the hosted one."""
_HARMLESS = ("cache_control", "inference_geo", "user_profile_id", "workspace_id", "diagnostics")
"""They say who asks and where it is to run. Marks of caching: all that can be reused is."""


def doors(orders: Orders) -> list[Door]:
    """The address of Anthropic's that answers."""

    def read(body: Any) -> Order:
        return orders.chat(chat_of(body))

    return [Door(("/v1/messages",), read, MessageWriter, written)]


def chat_of(body: Any, *, is_answered: bool = True) -> dict[str, Any]:
    """The same as a body of OpenAI's chat. BadRequestError for what cannot be."""
    given = fields_of(body)
    if is_answered and given.get("max_tokens", -1) == -1:  # llama.cpp's for no limit is none here
        raise refused("max_tokens is no length: say how long the answer may be", "max_tokens")
    for name in _HOSTED:
        if given.pop(name, None):
            raise refused(f"{name} is not supported: leave it out", name)
    if given.pop("speed", "standard") != "standard":
        raise refused("speed is not supported: leave it out", "speed")
    given = {name: value for name, value in given.items() if name not in _HARMLESS}
    if "n" in given:
        raise refused("n is no field of messages: leave it out", "n")
    made: dict[str, Any] = {"messages": _messages(given)}
    made |= _tools(given) | _thinking(given.pop("thinking", None))
    made |= _output(given.pop("output_config", None))
    if "stop_sequences" in given:
        made["stop"] = given.pop("stop_sequences")
    return {**given, **made}


# messages


def _messages(given: dict[str, Any]) -> list[dict[str, Any]]:
    asked = given.pop("messages", None)
    if not isinstance(asked, list) or not asked:
        raise refused("messages is no list with something in it: send at least one", "messages")
    system = _system(given.pop("system", ""))
    said = [{"role": "system", "content": system}] if system.strip() else []
    names: dict[str, str] = {}
    for i, each in enumerate(asked):
        said += _turn(each, f"messages[{i}]", names)
    return said


def _system(system: Any) -> str:
    texts = [_text(block, "system")["text"] for block in _blocks(system, "system")]
    return "\n\n".join(text for text in (_BILLING.sub("", t, count=1) for t in texts) if text)


def _blocks(content: Any, where: str) -> list[Mapping[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if not isinstance(content, list) or not all(isinstance(each, Mapping) for each in content):
        raise refused(f"{where} is neither a text nor a list of blocks", where)
    return content


def _turn(turn: Any, where: str, names: dict[str, str]) -> list[dict[str, Any]]:
    """A message as one or several of OpenAI's; `names`: of the tools that were called, by id."""
    role = turn.get("role") if isinstance(turn, Mapping) else None
    if role not in ("user", "assistant", "system"):
        raise refused(f"{where} has no role that is user or assistant", where)
    blocks = _blocks(turn.get("content"), f"{where}.content")
    if role == "assistant":
        return [_answer(blocks, where, names)]
    said: list[dict[str, Any]] = []
    for block in blocks:
        if block.get("type") == "tool_result":
            said.append(_result(block, where, names))
        elif said and said[-1]["role"] == role:
            said[-1]["content"].append(_text(block, where))
        else:
            said.append({"role": role, "content": [_text(block, where)]})
    return said or [{"role": role, "content": ""}]


def _text(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    source = block.get("source")
    if block.get("type") == "document" and isinstance(source, Mapping):
        if source.get("type") == "text":
            return {"type": "text", "text": source.get("data")}
        raise refused(f"{where} has a document that is no text: this server reads text", where)
    kind = block.get("type")
    if kind != "text" or not isinstance(block.get("text"), str):
        raise refused(f"{where} has a block of type {kind!r}: this server reads text", where)
    return {"type": "text", "text": block["text"]}


def _result(block: Mapping[str, Any], where: str, names: Mapping[str, str]) -> dict[str, Any]:
    id_ = block.get("tool_use_id")
    if not isinstance(id_, str):
        raise refused(f"{where} has a tool_result without a tool_use_id", where)
    content = [_text(each, where) for each in _blocks(block.get("content") or "", where)]
    named = {"name": names[id_]} if id_ in names else {}
    return {"role": "tool", "tool_call_id": id_, "content": content, **named}


def _answer(
    blocks: Sequence[Mapping[str, Any]], where: str, names: dict[str, str]
) -> dict[str, Any]:
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for block in blocks:
        kind = block.get("type")
        if kind == "thinking":
            thoughts.append(utf8(block.get("thinking", ""), f"{where}.thinking"))
        elif kind == "tool_use":
            calls.append(_call(block, where))
            names[calls[-1]["id"]] = calls[-1]["function"]["name"]
        elif kind != "redacted_thinking":  # nobody but its maker can read that
            texts.append(_text(block, where)["text"])
    made: dict[str, Any] = {"role": "assistant", "content": "".join(texts)}
    if any(thoughts):
        made["reasoning_content"] = "".join(thoughts)
    return made | ({"tool_calls": calls} if calls else {})


def _call(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    name, id_ = block.get("name"), block.get("id")
    if not isinstance(name, str) or not isinstance(id_, str):
        raise refused(f"{where} has a tool_use without a name and an id", where)
    function = {"name": name, "arguments": json.dumps(block.get("input", {}))}
    return {"id": id_, "type": "function", "function": function}


# what is wanted


def _tools(given: dict[str, Any]) -> dict[str, Any]:
    made = tools_of(given, _tool)
    choice = given.pop("tool_choice", None)
    if choice is None:
        return made
    kind = choice.get("type") if isinstance(choice, Mapping) else None
    if kind == "tool" and isinstance(choice.get("name"), str):
        made["tool_choice"] = {"type": "function", "function": {"name": choice["name"]}}
    elif among(kind, _CHOICES):
        made["tool_choice"] = _CHOICES[kind]
    else:
        raise refused(f"tool_choice {choice!r} is none of auto, any, tool and none", "tool_choice")
    if choice.get("disable_parallel_tool_use"):
        made["parallel_tool_calls"] = False
    return made


def _tool(tool: Any, where: str) -> dict[str, Any]:
    kind = tool.get("type", "custom") if isinstance(tool, Mapping) else None
    if kind != "custom":
        raise refused(f"{where} is of type {kind!r}: this server has no tools of its own", where)
    function = {"name": tool.get("name"), "parameters": tool.get("input_schema", {})}
    if "description" in tool:
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _thinking(asked: Any) -> dict[str, Any]:
    if asked is None:
        return {}
    kind = asked.get("type") if isinstance(asked, Mapping) else None
    if not among(kind, _EFFORTS):
        raise refused(f"thinking {asked!r} is none of {', '.join(_EFFORTS)}", "thinking")
    return {"reasoning_effort": _EFFORTS[kind]}


def _output(asked: Any) -> dict[str, Any]:
    if asked is None:
        return {}
    if not isinstance(asked, Mapping):
        raise refused("output_config is no object", "output_config")
    made: dict[str, Any] = {}
    if "effort" in asked:
        made["reasoning_effort"] = asked["effort"]
    if asked.get("format"):
        made["response_format"] = asked["format"]
    return made
