"""What clients do to a server, in short; `scripts/research/run kill-clients` does more of it."""

import random
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from serving import Served, fake_server

FEW: dict[str, Any] = {"max_tokens": 6, "temperature": 0}


def check(server: Served, before: str) -> None:
    """No sequence leaked, and the answers are what they were."""
    server.wait_until_idle()
    n = len(server.engine_thread.scheduler.contexts)
    assert server.engine_thread.scheduler._prefixes.n_free == n
    assert server.chat(**FEW)["choices"][0]["message"]["content"] == before


@pytest.mark.slow
def test_two_hundred_clients_are_killed() -> None:
    clock = random.Random(0)
    with fake_server(n_sequences=4, n_waiting=16, pass_s=0.002) as server:
        before = server.chat(**FEW)["choices"][0]["message"]["content"]
        for i in range(200):
            with server.streaming(max_tokens=200, seed=i) as stream:
                if clock.random() < 0.7:
                    stream.read1(clock.randint(1, 500))
        check(server, before)


def test_sixty_four_at_once_on_four_sequences() -> None:
    """Each is answered, or told when to come again."""
    with fake_server(n_sequences=4, n_waiting=16) as server:
        before = server.chat(**FEW)["choices"][0]["message"]["content"]
        body = {"model": "x", "messages": [{"role": "user", "content": "Hello"}], **FEW}
        with ThreadPoolExecutor(64) as pool:
            asked = [
                pool.submit(server.ask, "POST", "/v1/chat/completions", body) for _ in range(64)
            ]
            found = [each.result() for each in asked]
        assert {status for status, _, _ in found} <= {200, 429}
        for status, document, headers in found:
            if status == 200:
                assert document["choices"][0]["message"]["content"] == before
            else:
                assert int(headers["retry-after"]) >= 1
        check(server, before)


def test_slow_readers_hold_nobody_up() -> None:
    """Their replies are made, wait for them, and take nobody's place meanwhile."""
    with fake_server(n_sequences=2) as server:
        before = server.chat(**FEW)["choices"][0]["message"]["content"]
        with server.streaming(max_tokens=300) as first, server.streaming(max_tokens=300) as second:
            first.read1(1)
            second.read1(1)
            server.wait_until_idle()
            assert server.chat(**FEW)["choices"][0]["message"]["content"] == before
            assert b"[DONE]" in first.read()
            assert b"[DONE]" in second.read()
        check(server, before)


def test_a_row_that_is_no_number_ends_one_request() -> None:
    with fake_server(n_sequences=2) as server:
        before = server.chat(**FEW)["choices"][0]["message"]["content"]
        table = server.engine.table.copy()
        server.engine.table[:] = np.nan
        status, document = server.post("/completions", prompt="ab", **FEW)
        assert status == 500
        assert "NaN" in document["error"]["message"]
        server.engine.table[:] = table
        check(server, before)


def test_full_cells_are_waited_for_or_refused() -> None:
    with fake_server(n_sequences=2, n_waiting=8) as server:
        object.__setattr__(server.engine_thread.scheduler.room, "n_cells", 200)
        before = server.chat(**FEW)["choices"][0]["message"]["content"]
        status, document = server.post("/completions", prompt="ab", max_tokens=300)
        assert status == 400
        assert "200" in document["error"]["message"]
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(server.chat, "Hello" * i, max_tokens=90) for i in range(1, 7)]
            assert all(each.result()["usage"]["completion_tokens"] == 90 for each in asked)
        assert (
            sum(len(context.tokens) for context in server.engine_thread.scheduler.contexts) <= 200
        )
        check(server, before)


def test_what_is_no_http_ends_nothing() -> None:
    with fake_server() as server:
        before = server.chat(**FEW)["choices"][0]["message"]["content"]
        for data in (
            b"\x16\x03\x01\x02\x00",
            b"GET / HTTP/9.9\r\n\r\n",
            b"POST /v1/chat/completions",
        ):
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(data)
        check(server, before)
