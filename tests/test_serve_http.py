"""What a client meets: answers, streams, errors that say what to do, and a server that says no."""

import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from math import exp
from pathlib import Path
from typing import Any

import pytest
from serving import Served, events_of, fake_server

from localspec.cli.serve import ServeFlags
from localspec.errors import EngineError, UserError
from localspec.serve.request_body import check_defaults
from localspec.serve.server import bound, listening
from localspec.serve.texts import messages_of

CHAT = "/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]
FEW = {"max_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with fake_server() as made:
        yield made


def test_a_chat_is_answered(server: Served) -> None:
    document = server.chat(**FEW)
    choice = document["choices"][0]
    assert document["object"] == "chat.completion"
    assert document["model"] == "tiny"
    assert len(choice["message"]["content"]) == 6
    assert choice["finish_reason"] == "length"
    usage = document["usage"]
    assert usage["completion_tokens"] == 6
    assert usage["total_tokens"] == usage["prompt_tokens"] + 6
    assert document["timings"]["predicted_n"] == 6
    assert document["timings"]["tokens_per_pass"] == 1.0


def test_a_stream_says_the_same(server: Served) -> None:
    whole = server.chat(**FEW)["choices"][0]["message"]["content"]
    body = {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}, **FEW}
    status, text, headers = server.ask("POST", CHAT, body)
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    *chunks, last = events_of(text)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    said = [chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks]
    assert "".join(said) == whole
    texts = [text for text in said if text]
    assert len(texts[0]) == 1, "the first token at once"
    assert len(texts) < 6, "what passes of a moment say is one message"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-2:] == [None, "length"]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 6
    assert {chunk["id"] for chunk in [*chunks, last]} == {chunks[0]["id"]}


def test_a_completion_takes_texts_and_ids(server: Served) -> None:
    status, document = server.post("/v1/completions", prompt=["ab", "cd"], **FEW)
    assert status == 200
    assert [choice["index"] for choice in document["choices"]] == [0, 1]
    one = server.post("/v1/completions", prompt="cd", **FEW)[1]["choices"][0]["text"]
    assert document["choices"][1]["text"] == one
    ids = [ord(c) % 8 for c in "cd"]
    assert server.post("/v1/completions", prompt=ids, **FEW)[1]["choices"][0]["text"] == one
    assert server.post("/completions", prompt="cd", **FEW)[0] == 200


def test_several_choices_have_several_seeds(server: Served) -> None:
    document = server.chat(n=3, max_tokens=12, temperature=1.5, seed=4)
    texts = [choice["message"]["content"] for choice in document["choices"]]
    assert len(set(texts)) == 3
    assert (
        server.chat(max_tokens=12, temperature=1.5, seed=5)["choices"][0]["message"]["content"]
        in texts
    ), "the second choice has the next seed"
    assert document["usage"]["completion_tokens"] == 36


@pytest.mark.parametrize("how", [{"temperature": 0}, {"seed": 3}])
def test_each_token_has_its_logarithm_whole_or_streamed(
    server: Served, how: dict[str, Any]
) -> None:
    asked = {**FEW, "max_tokens": 9, "logprobs": True, "top_logprobs": 3, **how}
    choice = server.chat(**asked)["choices"][0]
    content = choice["logprobs"]["content"]
    assert "".join(each["token"] for each in content) == choice["message"]["content"]
    assert [bytes(each["bytes"]).decode() for each in content] == [e["token"] for e in content]
    for each in content:
        tops = [top["logprob"] for top in each["top_logprobs"]]
        assert len(tops) == 3
        assert tops == sorted(tops, reverse=True)
        assert tops[0] >= each["logprob"]
        assert sum(map(exp, tops)) <= 1
    chunks = events_of(server.post(CHAT, messages=HELLO, stream=True, **asked)[1])
    found = [c["logprobs"]["content"] for e in chunks for c in e["choices"] if c["logprobs"]]
    assert [each for part in found for each in part] == content


def test_completions_have_the_logarithms_of_their_kind(server: Served) -> None:
    asked = {"prompt": "cd", "max_tokens": 5, "temperature": 0}
    choice = server.post("/v1/completions", **asked, logprobs=2)[1]["choices"][0]
    said = choice["logprobs"]
    assert "".join(said["tokens"]) == choice["text"]
    assert said["text_offset"] == [0, 1, 2, 3, 4]
    best = [max(top.values()) for top in said["top_logprobs"]]
    assert best == said["token_logprobs"], "greedy takes the likeliest"
    native = server.post("/completion", **asked, n_probs=2)[1]["completion_probabilities"]
    assert [each["logprob"] for each in native] == said["token_logprobs"]
    assert all(len(each["top_logprobs"]) == 2 for each in native)


def test_a_bias_forbids_and_forces(server: Served) -> None:
    ids = {"temperature": 0, "max_tokens": 6}
    said = server.chat(**ids)["choices"][0]["message"]["content"]
    used = sorted({ord(c) - 97 for c in said})
    for bias in ({str(i): -100 for i in used}, [[i, False] for i in used]):
        other = server.chat(**ids, logit_bias=bias)["choices"][0]["message"]["content"]
        assert not set(other) & set(said)
    assert server.chat(**ids, logit_bias={"3": 100})["choices"][0]["message"]["content"] == "d" * 6


def test_a_reply_of_no_tokens_is_empty(server: Served) -> None:
    choice = server.chat(max_tokens=0)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")


def test_a_stop_text_is_not_said(server: Served) -> None:
    text = server.chat(max_tokens=12, temperature=0)["choices"][0]["message"]["content"]
    cut = server.chat(max_tokens=12, temperature=0, stop=text[4:6])["choices"][0]
    assert cut["message"]["content"] == text[: text.index(text[4:6])]
    assert cut["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "  "}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "image_url"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "UTF-8"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_completion_tokens": -5}, "max_tokens"),
        ({"stop": [1]}, "stop"),
        ({"n": 0}, "n 0"),
        ({"n": True}, "n True"),
        ({"stream": "yes"}, "stream"),
        ({"seed": "x"}, "seed"),
        ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": "2"}, "top_logprobs"),
        ({"n_probs": -1}, "n_probs"),
        ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "stream_options"),
        ({"messages": [{"role": "user", "content": "x", "images": ["AA=="]}]}, "images"),
        ({"messages": [{"role": "user", "content": "x", "audio": {"id": "a"}}]}, "audio"),
        ({"ignore_eos": "yes"}, "true or false"),
        ({"logit_bias": {"50": 1}}, "logit_bias"),
        ({"logit_bias": [[5]]}, "logit_bias"),
        ({"logit_bias": {"5": True}}, "logit_bias"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": "x"}, "frequency_penalty"),
        ({"repeat_last_n": -2}, "repeat_last_n"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 1, "regex": "a"}, "min_tokens"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_object"}, "grammar": 'root ::= "a"'}, "one"),
        ({"json_schema": {"not": {"type": "string"}}}, "cannot be kept"),
        ({"grammar": "root ::= undefined"}, "cannot be kept"),
        ({"regex": "("}, "cannot be kept"),
        ({"regex": 1}, "regex"),
        ({"tool_choice": "required"}, "no tools"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "no chat template"),
        ({"tools": [{}]}, "tools[0]"),
        ({"reasoning_effort": "immense"}, "reasoning_effort"),
        ({"chat_template_kwargs": 3}, "chat_template_kwargs"),
        ({"temprature": 1}, "temperature"),
        ({"\ud800": 1}, "UTF-8"),
        ({"reasoning_effort": []}, "reasoning_effort"),
    ],
    ids=str,
)
def test_a_wrong_field_is_named(server: Served, wrong: dict[str, Any], word: str) -> None:
    """Nothing is ignored silently, and nothing is a 500."""
    status, document = server.post(CHAT, **{"messages": HELLO, **FEW, **wrong})
    assert status == 400
    error = document["error"]
    assert word in error["message"]
    assert error["type"] == "invalid_request_error"
    assert "\n" not in error["message"]


@pytest.mark.parametrize(
    "more",
    [
        {"user": "me", "metadata": {"a": "b"}, "store": False},
        {"stream_options": {"include_usage": False, "continuous_usage_stats": False}},
        {"logprobs": False, "presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}},
        {"response_format": {"type": "text"}, "tools": [], "tool_choice": "auto"},
        {"seed": None, "stop": None, "n": None, "tools": None, "logit_bias": None},
        {"model": "gpt-4o", "top_k": -1, "stream_options": None},
    ],
    ids=str,
)
def test_fields_that_ask_for_nothing_change_nothing(server: Served, more: dict[str, Any]) -> None:
    whole = server.chat(**FEW)["choices"][0]["message"]
    assert server.chat(**FEW, **more)["choices"][0]["message"] == whole


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"text"', b"null", b"\xff", b"[" * 99999, b'{"messages": NaN}',
        b'{"seed": %s}' % (b"1" * 5000),
    ],
    ids=lambda body: str(body[:12]),
)  # fmt: skip
def test_a_body_that_is_no_request_is_refused(server: Served, body: bytes) -> None:
    status, document, _ = server.ask("POST", CHAT, body)
    assert status == 400
    assert document["error"]["type"] == "invalid_request_error"
    assert "recursion" not in document["error"]["message"], "that is Python's word"
    assert "sys." not in document["error"]["message"]


@pytest.mark.parametrize("field", [{"stop": ["x" * 9999, 1]}, {"x" * 9999: 1}, {"n": "9" * 9999}])
def test_a_sentence_stays_readable_however_long_the_wrong_text_is(
    server: Served, field: dict[str, Any]
) -> None:
    status, document = server.post(CHAT, messages=HELLO, **field)
    assert status == 400
    assert len(json.dumps(document)) < 3000


NO_JSON = ("NaN", "-Infinity", "1e999", '{"a": [NaN]}', '"\\ud800"', '{"\\uDFFF": 1}')
ADDRESSES = {
    CHAT: '"messages": [{"role": "user", "content": "x"}]', "/v1/completions": '"prompt": "x"',
    "/completion": '"prompt": "x"', "/v1/responses": '"input": "x"',
    "/v1/messages": '"max_tokens": 1, "messages": [{"role": "user", "content": "x"}]',
    "/tokenize": '"content": "x"', "/v1/streams/lookup": '"conversation_ids": ["x"]',
}  # fmt: skip


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize("value", NO_JSON)
def test_what_no_answer_could_repeat_is_refused(server: Served, path: str, value: str) -> None:
    """Python reads numbers that are none, and halves of characters; answers repeat some fields."""
    body = f'{{{ADDRESSES[path]}, "metadata": {value}}}'
    status, document, _ = server.ask("POST", path, body.encode())
    assert (status, "body" in str(document["error"])) == (400, True)


def test_whole_characters_may_be_written_in_halves(server: Served) -> None:
    body = b'{"input": "x", "max_output_tokens": 1, "metadata": {"a": "\\ud83d\\ude00"}}'
    status, document, _ = server.ask("POST", "/v1/responses", body)
    assert (status, document["metadata"]) == (200, {"a": "\U0001f600"})


@pytest.mark.parametrize("prompt", [[], [[]], 5, ["a", 5.5], [99], [-1], [True], {"a": 1}, None])
def test_a_prompt_that_is_none_is_refused(server: Served, prompt: Any) -> None:
    status, document = server.post("/v1/completions", prompt=prompt, **FEW)
    assert (status, document["error"]["type"]) == (400, "invalid_request_error")


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(server: Served) -> None:
    status, document = server.post("/v1/completions", prompt="x" * 600)
    error = document["error"]
    assert (status, error["code"]) == (400, "context_length_exceeded")
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (600, 512)


def test_a_reply_that_fills_the_context_ends_with_length(server: Served) -> None:
    status, document = server.post("/v1/completions", prompt="x" * 500, temperature=0)
    assert status == 200
    assert document["choices"][0]["finish_reason"] == "length"


def test_models_health_and_metrics(server: Served) -> None:
    models = server.ask("GET", "/v1/models")[1]
    assert [model["id"] for model in models["data"]] == ["tiny"]
    assert server.ask("GET", "/v1/models/tiny")[0] == 200
    assert server.ask("GET", "/v1/models/other")[0] == 404
    assert server.ask("GET", "/health")[:2] == (200, {"status": "ok"})
    before = server.ask("GET", "/metrics")[1]
    server.chat(**FEW)
    after = server.ask("GET", "/metrics")[1]
    assert _metric(after, "llamacpp:tokens_predicted_total") == 6 + _metric(
        before, "llamacpp:tokens_predicted_total"
    )
    assert 'localspec:first_token_seconds_bucket{le="+Inf"}' in after
    name = "localspec:inter_token_seconds_count"
    assert _metric(after, name) == 5 + _metric(before, name), "six tokens have five gaps"
    assert _metric(after, "localspec:queue_seconds_count") >= 1
    assert _metric(after, "llamacpp:n_busy_slots_per_decode") >= 1
    slots = server.ask("GET", "/slots")[1]
    assert [(slot["id"], slot["is_processing"]) for slot in slots] == [(0, False), (1, False)]


def _metric(text: str, name: str) -> float:
    line = next(line for line in text.splitlines() if line.startswith(name + " "))
    return float(line.split()[1])


def test_wrong_addresses_and_methods_are_json_too(server: Served) -> None:
    for method, path, wanted in (("GET", "/nothing", 404), ("GET", CHAT, 405)):
        status, document, _ = server.ask(method, path)
        assert (status, "message" in document["error"]) == (wanted, True)


def test_keys_are_asked_for_everywhere_but_at_the_door() -> None:
    with fake_server(keys=("secret", "other")) as server:
        assert server.ask("GET", "/health")[0] == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            status, document, _ = server.ask("GET", "/v1/models", headers=headers)
            assert (status, document["error"]["code"]) == (401, "invalid_api_key")
        for headers in ({"Authorization": "Bearer other"}, {"X-Api-Key": "secret"}):
            assert server.ask("GET", "/v1/models", headers=headers)[0] == 200


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [
        ("http://localhost:3000", True), ("http://127.0.0.1", True), ("http://[::1]:8080", True),
        ("http://web.example", False), ("http://localhost.evil.com", False),
        ("http://notlocalhost", False), ("null", False),
    ],
)  # fmt: skip
def test_pages_of_other_machines_ask_only_where_that_is_wanted(
    server: Served, origin: str, is_let_in: bool
) -> None:
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    found = server.ask("OPTIONS", CHAT, None, asked)[2].get("access-control-allow-origin")
    assert found == (origin if is_let_in else None)
    found = server.ask("GET", "/v1/models", None, {"Origin": origin})[2]
    assert ("access-control-allow-origin" in found) == is_let_in


def test_an_origin_that_is_let_in_needs_the_key_all_the_same() -> None:
    origin = {"Origin": "http://web.example"}
    with fake_server(origins=("http://web.example",), keys=("k",)) as open_:
        preflight = {**origin, "Access-Control-Request-Method": "POST"}
        status, _, headers = open_.ask("OPTIONS", CHAT, None, preflight)
        assert (status, headers["access-control-allow-origin"]) == (200, origin["Origin"])
        assert open_.ask("GET", "/v1/models", None, origin)[0] == 401


@pytest.mark.parametrize("said", [None, {"Content-Length": "2002"}])
def test_a_body_has_a_limit(said: dict[str, str] | None) -> None:
    """Of one that says how long it is nothing is waited for."""
    body = b'"' + b"x" * 2000 + b'"' if said is None else None
    with fake_server(most_bytes=1000) as server:
        status, document, _ = server.ask("POST", CHAT, body, said)
        assert status == 413
        assert "1,000 bytes" in document["error"]["message"]


def test_a_packed_body_is_refused(server: Served) -> None:
    body = json.dumps({"messages": HELLO, **FEW}).encode()
    packed = {"Content-Encoding": "gzip"}
    status, document, _ = server.ask("POST", CHAT, gzip.compress(body), packed)
    assert (status, "gzip" in document["error"]["message"]) == (415, True)
    assert server.ask("POST", CHAT, body, {"Content-Encoding": "identity"})[0] == 200


JAVAS = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AA"}


@pytest.mark.parametrize("n_plain", [0, 2])
def test_a_client_that_offers_another_protocol_is_answered_in_this_one(
    server: Served, n_plain: int
) -> None:
    """Java's client offers HTTP/2 with each question; behind a proxy others may be before it."""
    body = json.dumps({"messages": HELLO, **FEW}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    for headers in [{}] * n_plain + [JAVAS] * 2 + [{}]:
        connection.request("POST", CHAT, body, headers)  # its body comes in a piece of its own
        answer = connection.getresponse()
        assert (answer.status, "choices" in json.loads(answer.read())) == (200, True)
    connection.close()


def test_an_offer_behind_a_running_request_is_told_to_have_cost_the_body(server: Served) -> None:
    """The parser drops it: a client must not look for what was wrong with it."""
    body = json.dumps({"messages": HELLO, **FEW}).encode()
    lines = [f"POST {CHAT} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    plain = "\r\n".join([*lines, "", ""]).encode() + body
    lines += [f"{name}: {value}" for name, value in JAVAS.items()]
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(plain)
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        statuses = list[int]()
        for _ in range(2):
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            statuses.append(answer.status)
            said = json.loads(answer.read())
    assert statuses[0] == 200
    assert statuses[1] == 200 or "speak HTTP/1.1" in said["error"]["message"]


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_stream_comes_in_the_coding_of_its_clients_version(server: Served, version: str) -> None:
    """HTTP/1.0 knows no chunks: their lengths would be read as a part of the stream."""
    data = json.dumps({"messages": HELLO, "stream": True, **FEW}).encode()
    head = f"POST {CHAT} HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        with connection.makefile("rb") as answer:
            headers, _, said = answer.read().partition(b"\r\n\r\n")
    assert (b"chunked" in headers.lower()) == (version == "1.1")
    if version == "1.0":
        assert said.startswith(b"data: ")
        assert said.endswith(b"data: [DONE]\n\n")


def test_a_call_in_the_field_for_functions_is_one_of_tools(server: Served) -> None:
    """An old client's, of before there were tools: nothing of a conversation is dropped."""
    function = {"name": "f", "arguments": '{"a": 1}'}
    said = {"role": "assistant", "content": None}
    old, new = {**said, "function_call": function}, {**said, "tool_calls": [{"function": function}]}
    found = [messages_of([*HELLO, each])[-1] for each in (old, new)]
    assert found[0] == found[1]
    assert found[0].get("tool_calls")


def stream(server: Served, **body: Any) -> socket.socket:
    """A stream that has begun; its headers and first bytes have been read."""
    data = json.dumps({"messages": HELLO, "stream": True, "temperature": 0, **body}).encode()
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    )
    connection.sendall(head + data)
    assert b"200 OK" in connection.recv(4096)
    return connection


def rest(runs: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    text = b""
    with runs:
        while data := runs.recv(65536):
            text += data
    return text


@pytest.mark.slow
@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_goes_away_ends_its_reply(is_stream: bool) -> None:
    with fake_server(n_sequences=1, pass_s=0.01) as server:
        runs = stream(server, max_tokens=400)
        if is_stream:
            runs.close()
        else:
            waits = http.client.HTTPConnection("127.0.0.1", server.port)
            waits.request("POST", CHAT, json.dumps({"messages": HELLO, "max_tokens": 400}))
            time.sleep(0.05)
            runs.close()
            time.sleep(0.1)
            waits.close()
        server.wait_until_idle()
        assert server.engine_thread.scheduler._prefixes.n_free == 1
        assert server.engine_thread.metrics.n_done == 0
        assert server.engine_thread.metrics.n_aborted == (1 if is_stream else 2)


def test_who_hangs_up_in_a_body_is_no_bug(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    for path in (CHAT, "/tokenize"):
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(head + b'{"messages": [')
            time.sleep(0.1)
    time.sleep(0.2)
    assert server.chat(**FEW)
    assert not caplog.records


@pytest.mark.slow
def test_a_full_server_says_so_and_when_to_come_again() -> None:
    with fake_server(n_sequences=1, n_waiting=1, pass_s=0.01) as server:
        streams = [stream(server, max_tokens=300) for _ in range(2)]
        for is_stream in (False, True):
            body = {"messages": HELLO, "stream": is_stream}
            status, document, headers = server.ask("POST", CHAT, body)
            assert status == 429
            assert document["error"]["type"] == "rate_limit_error"
            assert int(headers["retry-after"]) >= 1
        assert server.ask("GET", "/health")[0] == 200
        for each in streams:
            each.close()
        server.wait_until_idle()
        assert server.chat(**FEW)
        assert server.engine_thread.metrics.n_refused == 2


@pytest.mark.slow
def test_the_queue_has_a_deadline() -> None:
    with fake_server(n_sequences=1, pass_s=0.01, wait_s=0.1) as server:
        runs = stream(server, max_tokens=300)
        status, document = server.post(CHAT, messages=HELLO)
        assert status == 429
        assert "turn" in document["error"]["message"]
        runs.close()


@pytest.mark.slow
def test_silence_is_filled_with_pings() -> None:
    """Clients give up on a connection that says nothing while a long prompt is read."""
    with fake_server(pass_s=0.2, ping_s=0.05) as server:
        body = {"messages": HELLO, "stream": True, "max_tokens": 2}
        text = server.ask("POST", CHAT, body)[1]
        assert text.count(": ping\n\n") >= 2
        assert events_of(text)


@pytest.mark.slow
def test_a_bug_ends_the_requests_of_its_pass_and_not_the_server() -> None:
    with fake_server() as server:
        server.engine.fails = True
        status, document = server.post(CHAT, messages=HELLO)
        assert status == 500
        assert "a bug" in document["error"]["message"]
        body = {"messages": HELLO, "stream": True}
        status, text, _ = server.ask("POST", CHAT, body)
        assert status == 200
        assert json.loads(text.split("data: ")[-1])["error"]["type"] == "server_error"
        server.engine.fails = False
        assert server.chat(**FEW)
        server.engine.fails = True
        for _ in range(3):
            server.post(CHAT, messages=HELLO)
        assert server.ask("GET", "/health")[0] == 503, "who watches it can start it again"


@pytest.mark.slow
def test_a_server_that_closes_lets_replies_end() -> None:
    with fake_server(n_sequences=1, pass_s=0.01) as server:
        runs = stream(server, max_tokens=40)
        waits: list[int] = []
        late = threading.Thread(target=lambda: waits.append(server.post(CHAT, messages=HELLO)[0]))
        late.start()
        time.sleep(0.1)
        server.running.stop(20.0)
        assert b"[DONE]" in rest(runs)
        late.join()
        assert waits == [503]


@pytest.mark.slow
def test_a_server_that_must_close_tells_who_was_cut_off() -> None:
    with fake_server(n_sequences=1, pass_s=0.01) as server:
        runs = stream(server, max_tokens=400)
        time.sleep(0.3)  # it has begun
        server.running.stop(0.05)
        assert b"the server was stopped" in rest(runs)


def test_a_port_that_is_taken_is_a_sentence() -> None:
    with bound("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EngineError, match="use --port"):
            bound("127.0.0.1", port)
    for host in ("no.such.host.invalid", "192.0.2.1"):
        with pytest.raises(EngineError, match=f"^{host}.*check --host"):
            bound(host, 0)


def test_keys_come_from_options_a_file_and_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_text("one\n\n two \n", encoding="utf-8")
    monkeypatch.setenv("LOCALSPEC_API_KEY", "three")
    assert ServeFlags(api_key=["zero"], api_key_file=file).keys == ("zero", "three", "one", "two")
    file.write_text("\n", encoding="utf-8")
    for wrong in (file, tmp_path / "nothing"):
        with pytest.raises(UserError, match="--api-key-file"):
            _ = ServeFlags(api_key_file=wrong).keys


@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_a_model_need_be_named_only_where_the_server_is_strict(server: Served, path: str) -> None:
    """llama.cpp's clients leave it out; OpenAI's API has it in each request."""
    body = {"messages": HELLO, **FEW} if "chat" in path else {"input": "Hello"}
    for named in ({}, {"model": "gpt-4o"}):
        assert server.post("/v1" + path, **named, **body)[0] == 200
    with fake_server(is_strict=True, aliases=("small",)) as strict:
        status, document = strict.post("/v1" + path, **body)
        assert (status, document["error"]["param"]) == (400, "model")
        assert strict.post("/v1" + path, model="gpt-4o", **body)[0] == 404
        for name in ("tiny", "small"):
            assert strict.post("/v1" + path, model=name, **body)[0] == 200
        assert strict.post(path, **body)[0] == 200


def test_of_two_answers_at_the_end_nobody_knows_which_goes_on(server: Served) -> None:
    said = [*HELLO, *[{"role": "assistant", "content": text} for text in ("a", "b")]]
    status, document = server.post(CHAT, messages=said, **FEW)
    assert (status, document["error"]["param"]) == (400, "messages[2]")
    for way in ("continue_final_message", "add_generation_prompt"):
        assert server.post(CHAT, messages=said, **{way: True}, **FEW)[0] == 200


def test_a_server_may_do_without_some_of_its_pages() -> None:
    pages = {"metrics": "/metrics", "slots": "/slots", "page": "/"}
    for name, path in pages.items():
        with fake_server(without=frozenset({name})) as server:
            statuses = {each: server.ask("GET", each)[0] for each in pages.values()}
            assert statuses == {**dict.fromkeys(pages.values(), 200), path: statuses[path]}
            assert statuses[path] == (404 if name == "page" else 501)


def test_one_server_listens_at_several_addresses() -> None:
    try:
        with listening(["127.0.0.1", "::1"], 0) as sockets:
            names = [each.getsockname()[:2] for each in sockets]
    except EngineError:
        pytest.skip("this machine has no IPv6")
    assert [host for host, _ in names] == ["127.0.0.1", "::1"]
    assert len({port for _, port in names}) == 1


def test_fields_may_have_values_of_the_servers_own() -> None:
    """What a request says goes first, by whichever of a length's names."""
    with fake_server(defaults={"max_tokens": 3, "temperature": 0, "echo": True}) as server:
        usage = server.chat()["usage"]
        assert usage["completion_tokens"] == 3
        assert server.chat(max_completion_tokens=5)["usage"]["completion_tokens"] == 5
        whole = server.post("/completion", prompt="abc", n_predict=4)[1]
        assert len(whole["content"]) == len("abc") + 4
        assert whole["generation_settings"]["temperature"] == 0


@pytest.mark.parametrize("wrong", [{"temperature": "hot"}, {"temprature": 1}, {"n": 0}])
def test_a_default_that_no_request_may_have_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        check_defaults(wrong)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example"])
@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/chat/completions"])
def test_a_page_that_leads_its_own_name_here_reads_nothing(path: str, host: str) -> None:
    with fake_server() as server:
        status, document, _ = server.ask("GET", path, headers={"Host": host})
        assert status == 403
        assert "--allow-host" in document["error"]["message"]


@pytest.mark.parametrize(
    "host", ["localhost:1", "127.0.0.1", "[::1]:80", "192.168.1.7", "me.local", "LOCALHOST.", ""]
)
def test_names_of_this_machine_are_answered(host: str) -> None:
    with fake_server() as server:
        assert server.ask("GET", "/v1/models", headers={"Host": host})[0] == 200


def test_a_name_that_the_owner_allows_is_answered_and_any_where_others_can_reach_it() -> None:
    for names in (("llm.example",), ("*",), None):
        with fake_server(hosts=names) as server:
            assert server.ask("GET", "/v1/models", headers={"Host": "LLM.example:80"})[0] == 200
