"""Tool calls of gpt-oss's form through the server: a header with a recipient, a channel, JSON.

The model says a script. The template is ours, and has its marks where gpt-oss's has them.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import Script, write_script
from serving import Served, data_of, events_of, served

from localspec.serve.server import engine_thread_of
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

TEMPLATE = (
    "{% if tools %}<|start|>developer<|message|># Tools\n{{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}"
    "<|start|>functions.{{ m.name }} to=assistant<|channel|>commentary<|message|>"
    "{{ m.content | tojson }}<|end|>{% elif m.tool_calls %}{% set c = m.tool_calls[0].function %}"
    "<|start|>assistant to=functions.{{ c.name }}<|channel|>commentary json<|message|>"
    "{{ c.arguments | tojson }}<|call|>{% elif m.role == 'assistant' %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% else %}"
    "<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|gen|>{% endif %}"
)
MARKS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>",
         "<|constrain|>")  # fmt: skip
SAID = ("<|channel|>", "commentary", " to=functions.", "get_weather ", "<|constrain|>", "json",
        "<|message|>", '{"city":', ' "Rome"}', "<|call|>")  # fmt: skip
TOOL = {"name": "get_weather", "description": "Of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}},
                       "required": ["city"]}}  # fmt: skip
TOOLS = [{"type": "function", "function": TOOL}]
ROME = {"city": "Rome"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tested_home: Path) -> Iterator[Served]:
    path = tmp_path_factory.mktemp("harmony") / "harmony.gguf"
    write_script(path, Script(SAID, TEMPLATE, MARKS))
    config = SessionConfig.of(path, ctx=512, n_sequences=2, kv_unified=True)
    with Session.open(config) as session, served(session, engine_thread_of(session)) as made:
        yield made


def test_a_call_is_told_as_openais_clients_want_it(server: Served) -> None:
    choice = server.chat("Weather?", tools=TOOLS, temperature=0)["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == ROME
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "tool_calls"


def test_a_stream_tells_it_with_its_index_and_id(server: Served) -> None:
    body = {"messages": [{"role": "user", "content": "Weather?"}], "tools": TOOLS, "stream": True}
    chunks = events_of(server.ask("POST", "/v1/chat/completions", body)[1])
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    (called,) = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert (called["index"], called["function"]["name"]) == (0, "get_weather")
    assert called["id"].startswith("call_")
    assert not any(delta.get("content") for delta in deltas), "marks are no text"
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_the_other_protocols_tell_it_their_way(server: Served) -> None:
    status, message = server.post(
        "/v1/messages", model="x", max_tokens=64,
        messages=[{"role": "user", "content": "Weather?"}],
        tools=[{"name": "get_weather", "input_schema": TOOL["parameters"]}],
    )  # fmt: skip
    assert status == 200, message
    (block,) = message["content"]
    assert (block["type"], block["name"], block["input"]) == ("tool_use", "get_weather", ROME)
    flat = [{"type": "function", **TOOL}]
    body = {"model": "x", "input": "Weather?", "tools": flat, "stream": True}
    events = data_of(server.ask("POST", "/v1/responses", body)[1])
    (item,) = events[-1]["response"]["output"]
    assert (item["type"], item["name"]) == ("function_call", "get_weather")
    assert json.loads(item["arguments"]) == ROME


def test_the_turn_behind_a_call_is_read(server: Served) -> None:
    """With the tool's answer, as a client sends the conversation again."""
    call = {"id": "call_1", "type": "function",
            "function": {"name": "get_weather", "arguments": json.dumps(ROME)}}  # fmt: skip
    said = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "name": "get_weather", "content": "sunny"},
    ]
    status, found = server.post("/apply-template", messages=said, tools=TOOLS)
    assert status == 200
    assert "to=functions.get_weather<|channel|>commentary json<|message|>" in found["prompt"]
    assert found["prompt"].endswith('"sunny"<|end|><|start|>assistant<|gen|>')
    assert server.post("/v1/chat/completions", messages=said, tools=TOOLS)[0] == 200


def test_a_call_that_is_forced_is_one_whatever_the_model_would_say(server: Served) -> None:
    forced = server.chat("Weather?", tools=TOOLS, tool_choice="required", max_tokens=64)
    message = forced["choices"][0]["message"]
    assert [each["function"]["name"] for each in message["tool_calls"]] == ["get_weather"]
