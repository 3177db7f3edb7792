"""Odd values at every place of a body, however deep: each is read, or refused in a sentence."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from serving import FakeSession, SlowEngine

from localspec.errors import LocalspecError
from localspec.serve.answer import ServedAnswer
from localspec.serve.order import Orders
from localspec.serve.problem import problem_of
from localspec.serve.protocols import anthropic, llama, openai, responses

ODD: list[Any] = [None, True, 5, 1.5, "x", [], {}, [None], [[]], [{}], {"type": []}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": "b"}'}}
TEXTS = [{"type": "text", "text": "u"}, {"type": "text", "text": "v"}]
CHAT = {
    "messages": [
        {"role": "developer", "content": TEXTS},
        {"role": "user", "content": TEXTS, "name": "n"},
        {"role": "assistant", "content": "c", "reasoning_content": "r", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": TEXTS},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": "q"},
    ],
    "stream_options": {"include_usage": True}, "logit_bias": {"5": 1}, "stop": ["a"],
    "chat_template_kwargs": {"a": False}, "metadata": {"a": "b"}, "n": 2, "logprobs": True,
}  # fmt: skip
CHOICE = {"type": "function", "function": {"name": "f"}}
TOOLS = {**CHAT, "tools": [{"type": "function", "function": FUNCTION}], "tool_choice": CHOICE}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
PROMPTS = {
    "prompt": ["a", [5, 6], {"prompt_string": "x"}], "logit_bias": [[5, 1]], "suffix": "s",
    "response_fields": ["content", "a/b"], "n_predict": 2,
}  # fmt: skip
BLOCKS = [
    {"type": "text", "text": "u"},
    {"type": "document", "source": {"type": "text", "data": "d", "media_type": "text/plain"}},
]
SPOKEN = [
    {"type": "thinking", "thinking": "t", "signature": "s"},
    {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}},
]
RESULT = {"type": "tool_result", "tool_use_id": "1", "content": BLOCKS[:1], "is_error": False}
MESSAGES = {
    "max_tokens": 2, "system": [{"type": "text", "text": "s", "cache_control": {"type": "x"}}],
    "messages": [
        {"role": "user", "content": BLOCKS},
        {"role": "assistant", "content": SPOKEN},
        {"role": "user", "content": [RESULT, *BLOCKS]},
    ],
    "thinking": {"type": "enabled", "budget_tokens": 9}, "output_config": {"effort": "low"},
    "stop_sequences": ["a"], "metadata": {"user_id": "u"},
}  # fmt: skip
HANDS = {
    **MESSAGES, "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
}  # fmt: skip
INPUT = {
    "max_output_tokens": 2, "instructions": "i",
    "input": [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "u"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "s"}]},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "t"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "o"},
        {"role": "user", "content": "q"},
    ],
    "reasoning": {"effort": "low", "summary": "auto"}, "text": {"format": {"type": "text"}},
    "include": ["reasoning.encrypted_content"],
}  # fmt: skip
USES = {
    **INPUT, "tools": [{"type": "function", **FUNCTION}],
    "tool_choice": {"type": "function", "name": "f"},
}  # fmt: skip
BODIES = [
    ("/v1/chat/completions", CHAT), ("/v1/chat/completions", TOOLS),
    ("/v1/chat/completions", {**CHAT, "response_format": FORMAT}), ("/completion", PROMPTS),
    ("/infill", {"input_extra": [{"filename": "f", "text": "t"}], "input_prefix": "a"}),
    ("/v1/messages", MESSAGES), ("/v1/messages", HANDS), ("/v1/responses", INPUT),
    ("/v1/responses", USES),
]  # fmt: skip


def spoiled(body: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], Any, Any]]:
    """The body with each odd value at each of its places."""
    for place in _places(body):
        for odd in ODD:
            copy = deepcopy(body)
            at: Any = copy
            for step in place[:-1]:
                at = at[step]
            at[place[-1]] = odd
            yield place, odd, copy


def _places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    steps = document if isinstance(document, dict) else range(len(document))
    for step in steps:
        yield (*path, step)
        if isinstance(document[step], dict | list):
            yield from _places(document[step], (*path, step))


@pytest.fixture(scope="module")
def orders() -> Orders:
    return Orders(FakeSession(SlowEngine()))


@pytest.mark.parametrize(("path", "body"), BODIES)
def test_an_odd_value_at_any_depth_is_read_or_refused(
    orders: Orders, path: str, body: dict[str, Any]
) -> None:
    protocols = (openai, llama, anthropic, responses)
    found = [door for each in protocols for door in each.doors(orders) if path in door.paths]
    (door,) = found
    for place, odd, spoilt in spoiled(body):
        try:
            answer = ServedAnswer(door.read(spoilt))
            list(door.writer(answer, "tiny").opening())
        except LocalspecError as error:
            problem = problem_of(error)
            assert problem.status == 400, (place, odd, problem)
            assert problem.message, (place, odd)
