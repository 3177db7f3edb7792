"""OpenAI's responses as its chat: items of a conversation, which the client keeps and sends whole.

Nothing is stored, so a response cannot be gone on with by its id. What is no field of responses
goes on as one of chat, so that it is read or refused there.
"""

from collections.abc import Mapping
from typing import Any

from localspec.errors import no_such
from localspec.serve.order import Order, Orders
from localspec.serve.problem import refused
from localspec.serve.protocols import Door
from localspec.serve.protocols.responses_events import ResponseWriter
from localspec.serve.request_body import among, fields_of
from localspec.serve.texts import TEXTS, tools_of, utf8

_STORED = {
    "previous_response_id": "this server keeps no responses: send the whole conversation as input",
    "conversation": "this server keeps no conversations: send all of it as input",
    "prompt": "this server keeps no prompts: send it as instructions and input",
    "background": "this server answers while the client waits: leave background out",
    "max_tool_calls": "this server calls no tools itself: leave max_tool_calls out",
}
_RENAMED = {"max_output_tokens": "max_tokens"}
_LEFT = ("include", "truncation", "store", "reasoning", "text")
_TEXT = ("format", "verbosity")
_INCLUDED = ("reasoning.encrypted_content",)
"""What may be asked for and is not there: thoughts come as they are."""


def doors(orders: Orders) -> list[Door]:
    """The address that answers."""

    def read(body: Any) -> Order:
        return orders.chat(chat_of(body), body)

    return [
        Door(("/v1/responses",), read, ResponseWriter, names_model=True),
        Door(("/responses",), read, ResponseWriter),
    ]


def chat_of(body: Any) -> dict[str, Any]:
    """The same as a body of chat. BadRequestError for what cannot be."""
    given = fields_of(body)
    for name, sentence in _STORED.items():
        if given.pop(name, None):
            raise refused(sentence, name)
    for name in ("n", "messages", "max_tokens", "max_completion_tokens", "response_format"):
        if name in given:
            raise refused(f"{name} is no field of responses: leave it out", name)
    _check_rest(given)
    made: dict[str, Any] = {"messages": _messages(given)}
    made |= _tools(given) | _effort(given.get("reasoning", {})) | _format(given.get("text", {}))
    kept = {_RENAMED.get(k, k): v for k, v in given.items() if k not in _LEFT}
    return {**kept, **made}


def _check_rest(given: Mapping[str, Any]) -> None:
    included = given.get("include", [])
    if not isinstance(included, list) or any(each not in _INCLUDED for each in included):
        raise refused(f"include {included!r} is not supported: leave it out", "include")
    if given.get("truncation", "disabled") != "disabled":
        raise refused("truncation is not supported: this server cuts nothing", "truncation")


# messages


def _messages(given: dict[str, Any]) -> list[dict[str, Any]]:
    asked = given.pop("input", None)
    if isinstance(asked, str) and asked.strip():
        asked = [{"role": "user", "content": asked}]
    if not isinstance(asked, list) or not asked:
        raise refused("input is neither a text nor a list with something in it", "input")
    instructions = given.pop("instructions", "")
    if not isinstance(instructions, str):
        raise refused("instructions is no text", "instructions")
    said: list[dict[str, Any]] = []
    if instructions.strip():
        said.append({"role": "system", "content": instructions})
    for i, item in enumerate(asked):
        _add(said, item, f"input[{i}]")
    return [each for each in said if not _is_thought_alone(each)]


def _is_thought_alone(message: Mapping[str, Any]) -> bool:
    says_nothing = not message["content"] and not message.get("tool_calls")
    return message["role"] == "assistant" and says_nothing


def _add(said: list[dict[str, Any]], item: Any, where: str) -> None:
    """Put an item behind the messages; thoughts, text and calls of one turn are one message."""
    kind = item.get("type", "message") if isinstance(item, Mapping) else None
    if kind == "message":
        _add_message(said, item, where)
    elif kind == "reasoning":
        _turn(said)["reasoning_content"] = _thought(item, where)
    elif kind == "function_call":
        name = utf8(item.get("name"), f"{where}.name")
        function = {"name": name, "arguments": item.get("arguments", "{}")}
        call = {"id": _call_id(item, where), "type": "function", "function": function}
        _turn(said).setdefault("tool_calls", []).append(call)
    elif kind == "function_call_output":
        id_, output = _call_id(item, where), _content(item.get("output"), where)
        calls = [call for message in said for call in message.get("tool_calls", ())]
        names = [call["function"]["name"] for call in calls if call["id"] == id_]
        named = {"name": names[-1]} if names else {}
        said.append({"role": "tool", "tool_call_id": id_, "content": output, **named})
    else:
        raise refused(f"{where} is of type {kind!r}, which this server does not read", where)


def _call_id(item: Mapping[str, Any], where: str) -> str:
    return utf8(item.get("call_id"), f"{where}.call_id")


def _add_message(said: list[dict[str, Any]], item: Mapping[str, Any], where: str) -> None:
    content = _content(item.get("content"), where)
    last = said[-1] if said else {}
    if item.get("role") == "assistant" and last.get("role") == "assistant" and not last["content"]:
        last["content"] = content
    else:
        said.append({"role": item.get("role"), "content": content})


def _turn(said: list[dict[str, Any]]) -> dict[str, Any]:
    """The assistant's message that goes on, or a new one."""
    if not said or said[-1]["role"] != "assistant":
        said.append({"role": "assistant", "content": ""})
    return said[-1]


def _content(content: Any, where: str) -> Any:
    """As chat takes it: a text, or parts that are texts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise refused(f"{where} has no content that is a text or a list of parts", where)
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not among(kind, TEXTS):
            raise refused(f"{where} has a part of type {kind!r}: this server reads text", where)
    return content


def _thought(item: Mapping[str, Any], where: str) -> str:
    parts = item.get("content") or item.get("summary") or []
    if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
        raise refused(f"{where} has a thought that is no list of parts", where)
    return "\n".join(utf8(part.get("text", ""), where) for part in parts)


# what is wanted


def _tools(given: dict[str, Any]) -> dict[str, Any]:
    made, choice = tools_of(given, _tool), given.pop("tool_choice", None)
    if isinstance(choice, Mapping):
        if choice.get("type") != "function":
            raise refused(f"tool_choice {choice!r} is not supported", "tool_choice")
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    return made if choice is None else {**made, "tool_choice": choice}


def _tool(tool: Any, where: str) -> dict[str, Any]:
    kind = tool.get("type") if isinstance(tool, Mapping) else None
    if kind != "function":
        raise refused(f"{where} is of type {kind!r}: this server has no tools of its own", where)
    names = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in names if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _effort(asked: Any) -> dict[str, Any]:
    if not isinstance(asked, Mapping):
        raise refused("reasoning is no object", "reasoning")
    effort = asked.get("effort")
    return {} if effort is None else {"reasoning_effort": effort}


def _format(asked: Any) -> dict[str, Any]:
    if not isinstance(asked, Mapping):
        raise refused("text is no object", "text")
    for name, value in asked.items():
        if value and name not in _TEXT:
            raise refused(str(no_such("field of text", name, _TEXT)), "text")
    wanted = asked.get("format")
    return {"response_format": wanted} if wanted else {}
