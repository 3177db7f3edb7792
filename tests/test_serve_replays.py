"""Streams that a client comes back to: they go on without it, and nothing of them is lost."""

import http.client
import json
import time
from contextlib import suppress
from urllib.parse import quote

import pytest
from serving import Served, fake_server

from localspec.serve import replays

KEY = "talk 7::a/model:Q8_0"
QUERY = "/v1/stream?conv_id=" + quote(KEY, safe="")


def begun(made: Served, n_tokens: int, n_read: int | None = None, key: str = KEY) -> bytes:
    """What a client reads of a stream before it hangs up; None: all."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "stream": True,
            "max_tokens": n_tokens, "ignore_eos": True}  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", made.port, timeout=60)
    try:
        headers = {"X-Conversation-Id": key}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.read() if n_read is None else answer.read1(n_read)
    finally:
        connection.close()


def test_a_stream_is_read_again_from_any_byte_on_until_it_is_dropped() -> None:
    with fake_server() as made:
        whole = begun(made, 8).decode()
        assert whole.endswith("data: [DONE]\n\n")
        assert made.ask("GET", QUERY)[:2] == (200, whole)
        assert made.ask("GET", f"{QUERY}&from=100")[1] == whole[100:]
        assert made.ask("GET", f"{QUERY}&from={len(whole)}")[1] == ""
        assert made.ask("DELETE", QUERY)[0] == 204
        assert made.ask("GET", QUERY)[0] == 404
        assert made.ask("DELETE", QUERY)[0] == 204, "a second time does no harm"


def test_a_stream_goes_on_without_its_client() -> None:
    with fake_server(pass_s=0.02) as made:
        first = begun(made, 20, 200)
        status, whole, _ = made.ask("GET", QUERY)  # while it grows
        assert status == 200
        assert whole.startswith(first.decode())
        assert whole.count('"finish_reason":"length"') == 1
        assert whole.endswith("data: [DONE]\n\n")


def test_dropping_a_stream_ends_its_reply() -> None:
    with fake_server(pass_s=0.02) as made:
        begun(made, 400, 200)
        made.wait_until_running()
        made.ask("DELETE", QUERY)
        made.wait_until_idle()


def test_the_next_request_of_a_conversation_takes_its_place() -> None:
    with fake_server(pass_s=0.02) as made:
        begun(made, 400, 200)
        second = begun(made, 3).decode()
        assert made.ask("GET", QUERY)[1] == second
        made.wait_until_idle()  # the first one was ended


def test_streams_are_found_by_their_conversation() -> None:
    with fake_server() as made:
        n_bytes = len(begun(made, 3))
        begun(made, 3, key="other")
        status, found = made.post("/v1/streams/lookup", conversation_ids=["talk 7", "nothing"])
        assert status == 200
        assert [each["conversation_id"] for each in found] == [KEY]
        assert found[0]["is_done"] is True
        assert found[0]["total_bytes"] == n_bytes
        assert found[0]["completed_at"] >= found[0]["started_at"] > 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/stream", 400),
        ("DELETE", "/v1/stream", 400),
        ("GET", "/v1/stream?conv_id=unknown", 404),
        ("GET", f"{QUERY}&from=-1", 400),
        ("POST", "/v1/streams/lookup", 400),
    ],
)
def test_what_cannot_be_read_is_an_error_in_a_sentence(method: str, path: str, status: int) -> None:
    with fake_server() as made:
        begun(made, 2)
        found, document, _ = made.ask(method, path, b"{}" if method == "POST" else None)
        assert found == status
        assert document["error"]["message"]


def test_of_a_long_stream_the_last_bytes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MOST_KEPT_BYTES", 300)
    with fake_server() as made:
        with suppress(http.client.IncompleteRead):  # its client may be slower than so few bytes
            begun(made, 9, 100)
        made.wait_until_idle()
        until_s = time.monotonic() + 10
        while not made.post("/v1/streams/lookup", conversation_ids=[KEY])[1][0]["is_done"]:
            assert time.monotonic() < until_s
            time.sleep(0.02)
        status, document, _ = made.ask("GET", QUERY)
        assert status == 400
        n = int(document["error"]["message"].split("first ")[1].split(" ")[0].replace(",", ""))
        end = made.ask("GET", f"{QUERY}&from={n}")[1]
        assert len(end) == 300
        assert end.endswith("data: [DONE]\n\n")


def test_streams_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MOST_KEPT", 1)
    with fake_server() as made:
        for key in (KEY, "two", "three"):
            begun(made, 2, key=key)
        assert made.ask("GET", QUERY)[0] == 404, "too many came after it"
        assert made.ask("GET", "/v1/stream?conv_id=three")[0] == 200
        monkeypatch.setattr(replays, "KEPT_S", -2.0)
        assert made.ask("GET", "/v1/stream?conv_id=three")[0] == 404, "it is too old"
