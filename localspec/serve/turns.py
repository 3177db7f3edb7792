"""OpenAI's messages and tools as the model's chat template takes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from localspec.dialogue.prompts import made_call, without_empty_answers
from localspec.dialogue.template import Message
from localspec.serve.asked import among
from localspec.serve.problem import refused

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant",
          "tool": "tool", "function": "tool"}  # fmt: skip
_UNREAD = ("images", "audio", "videos")
"""What other servers take beside a message's content."""
TEXTS = ("text", "input_text", "output_text", "refusal")


def messages_of(asked: Any) -> list[Message]:
    """Messages for the template. BadRequestError names the one that is wrong."""
    if not isinstance(asked, list) or not asked:
        raise refused("messages is no list with something in it: send at least one", "messages")
    said = [_message(each, f"messages[{i}]") for i, each in enumerate(asked)]
    said = said if any(each.get("tool_calls") for each in said) else without_empty_answers(said)
    if not any(each["content"].strip() for each in said):
        raise refused("the messages say nothing: give some text", "messages")
    return said


def continues(given: Mapping[str, Any], said: Sequence[Message]) -> bool:
    """Whether the answer goes on where the last message ends, as it does behind an assistant's
    text. `continue_final_message` says otherwise, `add_generation_prompt` the opposite."""
    last: Mapping[str, Any] = said[-1]
    can = last["role"] == "assistant" and bool(last["content"].strip())
    can = can and not last.get("tool_calls")
    wanted, asks = given.get("continue_final_message"), given.get("add_generation_prompt")
    for name, value in (("continue_final_message", wanted), ("add_generation_prompt", asks)):
        if not isinstance(value, bool | None):
            raise refused(f"{name} {value!r} is neither true nor false", name)
    if wanted and asks:
        sentence = "continue_final_message and add_generation_prompt exclude each other"
        raise refused(sentence, "continue_final_message")
    if wanted and not can:
        sentence = "continue_final_message: the last message is no text of the assistant's"
        raise refused(sentence, "continue_final_message")
    if asks is False and not can:
        sentence = "add_generation_prompt: false needs a text of the assistant's to go on with"
        raise refused(sentence, "add_generation_prompt")
    if wanted is None and asks is None and can and _is_second(said):
        sentence = "the last two messages are texts of the assistant's: join them"
        raise refused(sentence, f"messages[{len(said) - 1}]")
    return can and not asks if wanted is None else wanted


def _is_second(said: Sequence[Message]) -> bool:
    """Whether a text of the assistant's stands before the last one."""
    before = said[-2] if len(said) > 1 else None
    return before is not None and before["role"] == "assistant" and bool(before["content"].strip())


def _message(given: Any, where: str) -> Message:
    role = given.get("role") if isinstance(given, Mapping) else None
    if not among(role, _ROLES):
        raise refused(f"{where} has no role that is one of {', '.join(_ROLES)}", where)
    between = "\n\n" if role == "assistant" else "\n"  # as llama.cpp joins an answer's beginning
    if unread := next((name for name in _UNREAD if given.get(name)), None):
        raise refused(f"{where} has {unread}: this server reads text", where)
    content = _content(given.get("content"), f"{where}.content", between)
    made: dict[str, Any] = {"role": _ROLES[role], "content": content}
    thought = given.get("reasoning_content") or given.get("reasoning")
    if thought is not None:
        made["thought"] = utf8(thought, f"{where}.reasoning_content")
    if calls := _calls(given, where):
        made["tool_calls"] = calls
    for name in ("tool_call_id", "name"):
        if given.get(name) is not None:
            made[name] = utf8(given[name], f"{where}.{name}")
    if role == "user" and not content.strip():
        raise refused(f"{where} says nothing: give some text", where)
    message: Any = made
    return message


def _content(content: Any, where: str, between: str) -> str:
    """A text, or several of them as parts with a text between them."""
    if content is None:
        return ""
    if isinstance(content, str):
        return utf8(content, where)
    texts: list[str] = []
    for part in _list(content, where):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not among(kind, TEXTS):
            raise refused(f"{where} has a part of type {kind!r}: this server reads text", where)
        texts.append(utf8(part.get("text", part.get("refusal")), where))
    return between.join(texts)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise refused(f"{where} is neither a text nor a list", where)
    return value


def utf8(text: Any, where: str) -> str:
    """A text of a request. BadRequestError for anything else, and for half a character."""
    if not isinstance(text, str):
        raise refused(f"{where} is no text", where)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise refused(f"{where} cannot be written in UTF-8: {error}", where) from error
    return text


def _calls(given: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """Those of a message; there was a field for one before there were tools."""
    if function := given.get("function_call"):
        return [_call({"function": function}, f"{where}.function_call")]
    calls = given.get("tool_calls") or []
    return [_call(call, f"{where}.tool_calls") for call in _list(calls, where)]


def _call(call: Any, where: str) -> dict[str, Any]:
    try:
        return made_call(call)
    except ValueError as error:
        raise refused(f"{where} has {error}", where) from error
