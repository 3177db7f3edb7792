"""Sequences that are saved, restored and erased on request, as llama.cpp's clients do it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Served, fake_server

FEW: dict[str, Any] = {"max_tokens": 3, "temperature": 0}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with fake_server(n_sequences=2, slot_folder=tmp_path) as made:
        yield made


def act(server: Served, id_: int, action: str, **body: Any) -> tuple[int, Any]:
    return server.post(f"/slots/{id_}?action={action}", **body)


def holder(server: Served) -> int:
    """Which sequence holds something."""
    contexts = server.engine_thread.scheduler.contexts
    return max(range(len(contexts)), key=lambda i: len(contexts[i].tokens))


def n_cached(server: Served, text: str) -> int:
    return server.chat(text, **FEW)["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_what_was_saved_need_not_be_read_again(server: Served, tmp_path: Path) -> None:
    text = "a long conversation " * 5
    assert n_cached(server, text) == 0
    id_ = holder(server)
    n_held = len(server.engine_thread.scheduler.contexts[id_].tokens)
    status, saved = act(server, id_, "save", filename="one.bin")
    assert (status, saved["n_saved"], saved["id_slot"]) == (200, n_held, id_)
    assert saved["n_written"] == (tmp_path / "one.bin").stat().st_size
    assert saved["timings"]["save_ms"] >= 0
    assert act(server, id_, "erase")[1] == {"id_slot": id_, "n_erased": n_held}
    assert n_cached(server, text) == 0
    for each in range(2):
        act(server, each, "erase")
    status, restored = act(server, 1 - id_, "restore", filename="one.bin")
    assert (status, restored["n_restored"]) == (200, n_held)
    assert n_cached(server, text) >= n_held - FEW["max_tokens"] - 1


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("/slots/7?action=erase", {}, 400, "0 to 1"),
        ("/slots/0?action=steal", {}, 400, "steal"),
        ("/slots/0", {}, 400, "action"),
        ("/slots/0?action=save", {}, 400, "filename"),
        ("/slots/0?action=save", {"filename": "../x"}, 400, "plain name"),
        ("/slots/0?action=save", {"filename": "/etc/x"}, 400, "plain name"),
        ("/slots/0?action=save", {"filename": ".x"}, 400, "plain name"),
        ("/slots/0?action=save", {"filename": "日" * 80}, 400, "longer than 200 bytes"),
        ("/slots/0?action=restore", {"filename": "x" * 300}, 400, "longer than 200 bytes"),
        ("/slots/0?action=save", {"filename": "folder"}, 400, "folder"),
        ("/slots/0?action=restore", {"filename": "none.bin"}, 400, "none.bin"),
        ("/slots/x?action=erase", {}, 404, "no such page"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(
    server: Served, tmp_path: Path, path: str, body: Any, status: int, word: str
) -> None:
    (tmp_path / "folder").mkdir()
    found, document = server.post(path, **body)
    assert found == status
    assert word in document["error"]["message"]


def test_without_a_folder_nothing_is_written() -> None:
    with fake_server() as server:
        status, document = act(server, 0, "save", filename="x")
        assert (status, document["error"]["type"]) == (501, "not_supported_error")
        assert "--slot-save-path" in document["error"]["message"]
        assert act(server, 0, "erase")[0] == 200


def test_a_busy_sequence_is_left_alone(server: Served) -> None:
    server.engine.pass_s = 0.05
    with server.streaming() as stream:
        stream.read1(64)
        server.wait_until_running()
        jobs = server.engine_thread.scheduler.running
        id_ = server.engine_thread.scheduler.contexts.index(jobs[0].slot.context)
        status, document = act(server, id_, "erase")
        assert status == 429
        assert "answers a request" in document["error"]["message"]
        assert server.ask("GET", "/slots?fail_on_no_slot=1")[0] == 200, "one of two is free"
        with server.streaming() as other:
            other.read1(64)
            assert server.ask("GET", "/slots?fail_on_no_slot=1")[0] == 503
            assert server.ask("GET", "/slots")[0] == 200
    server.wait_until_idle()


def test_what_is_restored_makes_others_give_up_cells(server: Served) -> None:
    scheduler = server.engine_thread.scheduler
    server.chat("a" * 100, **FEW)
    id_ = holder(server)
    act(server, id_, "save", filename="one.bin")
    server.chat("b" * 300, **FEW)
    object.__setattr__(scheduler.room, "n_cells", 330)
    assert act(server, id_, "restore", filename="one.bin")[0] == 200
    assert sum(len(context.tokens) for context in scheduler.contexts) <= 330
