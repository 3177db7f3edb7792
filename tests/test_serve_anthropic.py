"""Anthropic's messages: what its clients send becomes one conversation, and what they read."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from serving import Served, data_of, fake_server

from localspec.serve.answer import Called, Ended, Piece
from localspec.serve.messages import Account
from localspec.serve.protocols.anthropic import chat_of
from localspec.serve.protocols.anthropic_events import MessageWriter

HELLO: Any = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with fake_server() as made:
        yield made


def test_a_message_is_answered(server: Served) -> None:
    status, message = server.post("/v1/messages", **HELLO)
    assert status == 200
    assert (message["type"], message["role"], message["model"]) == ("message", "assistant", "tiny")
    (block,) = message["content"]
    assert (block["type"], len(block["text"])) == ("text", 6)
    assert (message["stop_reason"], message["stop_sequence"]) == ("max_tokens", None)
    usage = message["usage"]
    n_prompt = usage["input_tokens"] + usage["cache_read_input_tokens"]
    assert (n_prompt, usage["output_tokens"]) == (len("Hello\n\n"), 6)
    counted = server.post("/v1/messages/count_tokens", messages=HELLO["messages"])[1]
    assert counted == {"input_tokens": n_prompt}
    stop = block["text"][3:5]
    cut = server.post("/v1/messages", **HELLO, stop_sequences=[stop])[1]
    assert (cut["stop_reason"], cut["stop_sequence"]) == ("stop_sequence", stop)


def test_its_events_come_in_order(server: Served) -> None:
    whole = server.post("/v1/messages", **HELLO)[1]["content"][0]["text"]
    text = server.ask("POST", "/v1/messages", {**HELLO, "stream": True})[1]
    names = [line[7:] for line in text.splitlines() if line.startswith("event: ")]
    events = data_of(text)
    assert names == [event["type"] for event in events]
    deltas = [e["delta"]["text"] for e in events if e["type"] == "content_block_delta"]
    assert "".join(deltas) == whole
    kinds = list(dict.fromkeys(names))
    assert kinds == ["message_start", "content_block_start", "content_block_delta",
                     "content_block_stop", "message_delta", "message_stop"]  # fmt: skip
    assert events[0]["message"]["usage"]["input_tokens"] == len("Hello\n\n")
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"
    assert events[-2]["usage"]["output_tokens"] == 6


def test_thoughts_text_and_calls_are_blocks_of_their_own() -> None:
    """Each is closed before the next one begins; front ends fail on overlapping blocks."""
    call = {"id": "call_1", "function": {"name": "f", "arguments": '{"x": 1}'}}
    told: Any = _Told()
    news = [Piece("thought", "hm"), Piece("text", "a"), Piece("text", "b"), Called(0, call)]
    texts = MessageWriter(told, "tiny").said(0, [*news, Ended("tool_calls", Account(1))])
    events = [json.loads(text.partition("data: ")[2]) for text in texts]
    assert [(event["type"], event.get("index")) for event in events] == [
        ("content_block_start", 0), ("content_block_delta", 0), ("content_block_delta", 0),
        ("content_block_stop", 0),
        ("content_block_start", 1), ("content_block_delta", 1), ("content_block_delta", 1),
        ("content_block_stop", 1),
        ("content_block_start", 2), ("content_block_delta", 2), ("content_block_stop", 2),
        ("message_delta", None),
    ]  # fmt: skip
    starts = [e["content_block"]["type"] for e in events if e["type"] == "content_block_start"]
    assert starts == ["thinking", "text", "tool_use"]
    assert events[8]["content_block"]["input"] == {}
    assert events[9]["delta"] == {"type": "input_json_delta", "partial_json": '{"x": 1}'}
    assert events[-1]["delta"]["stop_reason"] == "tool_use"


class _Told:
    key, n_cached, n_tokens, n_thought = "1", 0, 3, 1

    class order:
        n_prompt = 1


def test_blocks_become_one_conversation() -> None:
    call = {"type": "tool_use", "id": "t1", "name": "f", "input": {"x": 1}}
    result = {
        "type": "tool_result",
        "tool_use_id": "t1",
        "content": [{"type": "text", "text": "4"}],
    }
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    chat = chat_of({
        "max_tokens": 5,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": "Two plus two?"},
            {"role": "assistant", "content": [thought, {"type": "text", "text": "So."}, call]},
            {"role": "user", "content": [result, {"type": "text", "text": "Well?"}]},
        ],
        "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "stop_sequences": ["x"],
    })  # fmt: skip
    system, user, assistant, tool, last = chat["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"] == [{"type": "text", "text": "Two plus two?"}]
    assert (assistant["content"], assistant["reasoning_content"]) == ("So.", "hm")
    assert assistant["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert (tool["role"], tool["tool_call_id"], tool["name"]) == ("tool", "t1", "f")
    assert last["content"] == [{"type": "text", "text": "Well?"}]
    function = {"name": "f", "description": "d", "parameters": {"type": "object"}}
    assert chat["tools"] == [{"type": "function", "function": function}]
    assert (chat["tool_choice"], chat["parallel_tool_calls"]) == ("required", False)
    assert (chat["reasoning_effort"], chat["stop"]) == ("on", ["x"])
    named = chat_of({**HELLO, "tool_choice": {"type": "tool", "name": "f"}})["tool_choice"]
    assert named == {"type": "function", "function": {"name": "f"}}


def test_a_line_that_changes_with_each_request_is_no_part_of_the_prompt(server: Served) -> None:
    """Claude Code's header would make each turn read the whole prompt again."""
    texts = [
        f"x-anthropic-billing-header: cc_version=2.1; cch={i};" for i in ("00a1b", "9f3c2")
    ]  # fmt: skip
    rest = {"type": "text", "text": "You are an agent. " * 8}
    for i, line in enumerate(texts):
        system = [{"type": "text", "text": line}, rest]
        usage = server.post("/v1/messages", **HELLO, system=system)[1]["usage"]
        assert (usage["cache_read_input_tokens"] > 100) == bool(i)
    joined = chat_of({**HELLO, "system": f"{texts[0]}\nYou are an agent."})["messages"][0]
    assert joined["content"] == "You are an agent."
    told = chat_of({**HELLO, "system": "Say x-anthropic-billing-header: 1"})["messages"][0]
    assert told["content"] == "Say x-anthropic-billing-header: 1"


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "image"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "tool_use_id"),
        ({"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": 5}]}]},
         "messages[0].thinking"),
        ({"system": 5}, "system"),
        ({"tools": [{"type": "web_search_20250305", "name": "s"}]}, "web_search"),
        ({"tool_choice": {"type": "some"}}, "tool_choice"),
        ({"thinking": {"type": "much"}}, "thinking"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"temprature": 1}, "temperature"),
        ({"n": 2}, "n is no field"),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_field_is_named_in_its_shape(
    server: Served, wrong: dict[str, Any], word: str, stream: bool
) -> None:
    status, document = server.post("/v1/messages", **{**HELLO, "stream": stream, **wrong})
    assert (status, document["type"]) == (400, "error")
    assert document["error"]["type"] == "invalid_request_error"
    assert word in document["error"]["message"]


def test_keys_and_methods_are_refused_in_its_shape() -> None:
    with fake_server(keys=("k",)) as server:
        status, document, _ = server.ask("POST", "/v1/messages", HELLO)
        assert (status, document["error"]["type"]) == (401, "authentication_error")
        key = {"x-api-key": "k"}
        for path in ("/v1/messages", "/v1/messages/batches"):
            assert server.ask("GET", path, headers=key)[1]["type"] == "error"
        assert server.ask("POST", "/v1/messages", HELLO, key)[0] == 200


@pytest.mark.slow
def test_silence_is_filled_with_its_own_ping() -> None:
    with fake_server(pass_s=0.2, ping_s=0.05) as server:
        text = server.ask("POST", "/v1/messages", {**HELLO, "max_tokens": 2, "stream": True})[1]
        assert text.count('event: ping\ndata: {"type":"ping"}\n\n') >= 2
