"""OpenAI's responses: items in, items out, and events in the order that strict clients want."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from serving import Served, data_of, fake_server

from localspec.serve.answer import Called, Ended, Piece
from localspec.serve.messages import Account
from localspec.serve.protocols.responses import chat_of
from localspec.serve.protocols.responses_events import ResponseWriter
from localspec.session.reply_options import ReplyOptions

HELLO: Any = {"model": "any", "input": "Hello", "max_output_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with fake_server() as made:
        yield made


def test_a_response_has_items_and_repeats_what_was_asked(server: Served) -> None:
    how = {"instructions": "Be brief.", "metadata": {"a": "b"}, "user": "me"}
    status, response = server.post("/v1/responses", **HELLO, **how)
    assert status == 200
    (item,) = response["output"]
    assert (item["type"], item["role"], len(item["content"][0]["text"])) == (
        "message", "assistant", 6
    )  # fmt: skip
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert (response["instructions"], response["metadata"]) == ("Be brief.", {"a": "b"})
    assert (response["temperature"], response["max_output_tokens"]) == (0, 6)
    assert (response["store"], response["previous_response_id"]) == (False, None)
    usage = response["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + 6
    done = server.post("/v1/responses", **HELLO, stop=[item["content"][0]["text"][2]])[1]
    assert (done["status"], done["incomplete_details"]) == ("completed", None)
    assert done["completed_at"]


def test_a_stream_makes_the_same(server: Served) -> None:
    whole = server.post("/v1/responses", **HELLO)[1]
    text = server.ask("POST", "/v1/responses", {**HELLO, "stream": True})[1]
    events = data_of(text)
    names = [line[7:] for line in text.splitlines() if line.startswith("event: ")]
    assert names == [event["type"] for event in events]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert list(dict.fromkeys(name.removeprefix("response.") for name in names)) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "incomplete",
    ]  # fmt: skip
    said = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    assert said == whole["output"][0]["content"][0]["text"]
    last = events[-1]["response"]
    assert last["output"][0]["content"] == whole["output"][0]["content"]
    assert last["usage"]["output_tokens"] == 6
    ids = {event["item_id"] for event in events if "item_id" in event}
    assert ids == {last["output"][0]["id"]}


@pytest.mark.parametrize("summary", [None, "auto"])
def test_thoughts_text_and_calls_are_items_one_after_another(summary: str | None) -> None:
    call = {"id": "call_1", "function": {"name": "f", "arguments": '{"x": 1}'}}
    tool = {"type": "function", "name": "f", "parameters": {"type": "object"}}
    asked = {"reasoning": {"summary": summary}, "tools": [tool]}
    choices = [SimpleNamespace(options=ReplyOptions())]
    order = SimpleNamespace(given=asked, choices=choices, n_prompt=1)
    told: Any = SimpleNamespace(order=order, key="k", created=1, n_cached=0, n_tokens=1,
                                n_thought=1, timings={})  # fmt: skip
    news = [Piece("thought", "hm"), Piece("text", "a"), Called(0, call)]
    writer = ResponseWriter(told, "tiny")
    texts = list(writer.said(0, [*news, Ended("tool_calls", Account(1))]))
    events = [json.loads(text.partition("data: ")[2]) for text in texts]
    items = events[-1]["response"]["output"]
    assert [item["type"] for item in items] == ["reasoning", "message", "function_call"]
    assert len({item["id"] for item in items}) == 3
    assert (items[0]["summary"] if summary else items[0]["content"])[0]["text"] == "hm"
    assert (items[2]["call_id"], items[2]["arguments"]) == ("call_1", '{"x": 1}')
    added = [e["output_index"] for e in events if e["type"] == "response.output_item.added"]
    assert added == [0, 1, 2]
    name = "reasoning_summary_text" if summary else "reasoning_text"
    assert f"response.{name}.delta" in {event["type"] for event in events}
    assert events[-1]["type"] == "response.completed"
    every = {"description": None, "strict": None, **tool}
    assert events[-1]["response"]["tools"] == [every], "with every field of the specification"


def test_items_become_one_conversation() -> None:
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"x": 1}'}
    chat = chat_of({
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Two plus two?"}]},
            {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": "So."},
            call, {**call, "call_id": "c2"},
            {"type": "function_call_output", "call_id": "c1", "output": "4"},
            {"type": "reasoning", "summary": []},
            {"role": "user", "content": "Well?"},
        ],
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}],
        "tool_choice": {"type": "function", "name": "f"},
        "reasoning": {"effort": "low"},
        "text": {"format": {"type": "json_object"}},
        "max_output_tokens": 9,
    })  # fmt: skip
    system, user, assistant, tool, last = chat["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"][0]["text"] == "Two plus two?"
    assert (assistant["content"], assistant["reasoning_content"]) == ("So.", "hm")
    assert [call["id"] for call in assistant["tool_calls"]] == ["c1", "c2"]
    assert tool == {"role": "tool", "tool_call_id": "c1", "content": "4", "name": "f"}
    assert last["content"] == "Well?"
    function = {"name": "f", "parameters": {"type": "object"}}
    assert chat["tools"] == [{"type": "function", "function": function}]
    assert chat["tool_choice"]["function"] == {"name": "f"}
    assert (chat["reasoning_effort"], chat["max_tokens"]) == ("low", 9)
    assert chat["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"previous_response_id": "resp_1"}, "keeps no responses"),
        ({"conversation": "c"}, "keeps no conversations"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "keeps no prompts"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"input": []}, "input"),
        ({"input": " "}, "input"),
        ({"input": [{"type": "function_call", "name": 5, "call_id": "c"}]}, "input[0].name"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"text": {"fromat": {"type": "text"}}}, "format"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "item_reference"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input_image"),
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
        ({"text": {"format": {"type": "xml"}}}, "xml"),
        ({"messages": []}, "messages is no field"),
        ({"temprature": 1}, "temperature"),
    ],
    ids=str,
)
def test_what_cannot_be_kept_is_named(server: Served, wrong: dict[str, Any], word: str) -> None:
    status, document = server.post("/v1/responses", **{**HELLO, **wrong})
    assert (status, word in document["error"]["message"]) == (400, True), document
