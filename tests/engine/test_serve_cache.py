"""Saved sequences of a real model beside others in one pool of cells."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from models import smollm2
from serving import Served, events_of, served

from localspec.dialogue.template import Message
from localspec.serve.server import Load, engine_thread_of
from localspec.session.session import Session
from localspec.session.session_config import SessionConfig

GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 6, "stream": False}
STORY = "Once there was a fox who counted: " + " ".join(f"{i} hens," for i in range(80))
OTHERS = [f"{i} Tell me of the sea and of ships. " * 30 for i in range(4)]


@pytest.fixture
def server(tmp_path: Path, tested_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    home = tmp_path / "home"
    shutil.copytree(tested_home, home)
    monkeypatch.setenv("LOCALSPEC_HOME", str(home))
    config = SessionConfig.of(smollm2(), ctx=1024, n_sequences=2, kv_unified=True, spec="none")
    with Session.open(config) as session:
        engine_thread = engine_thread_of(session, Load(disk_bytes=1e9))
        with served(session, engine_thread, slot_folder=tmp_path) as made:
            yield made


def asked(server: Served, said: list[dict[str, str]]) -> tuple[str, int]:
    """The answer, watched as it comes, and how much of its prompt was held."""
    body = {"model": "x", "messages": said, **GREEDY}
    status, document = server.post("/v1/chat/completions", **body)
    assert status == 200, document
    n_cached = document["usage"]["prompt_tokens_details"]["cached_tokens"]
    return document["choices"][0]["message"]["content"], n_cached


def test_saved_and_restored_beside_another_conversation(server: Served) -> None:
    said = [{"role": "user", "content": STORY}]
    first, _ = asked(server, said)
    contexts = server.engine_thread.scheduler.contexts
    id_ = max((0, 1), key=lambda i: len(contexts[i].tokens))
    n_held = len(contexts[id_].tokens)
    assert server.post(f"/slots/{id_}?action=save", filename="fox")[1]["n_saved"] == n_held
    for i in (0, 1):
        server.post(f"/slots/{i}?action=erase")
    other, _ = asked(server, [{"role": "user", "content": OTHERS[0]}])
    free = min((0, 1), key=lambda i: len(contexts[i].tokens))
    restored = server.post(f"/slots/{free}?action=restore", filename="fox")[1]
    assert restored["n_restored"] == n_held
    again, n_cached = asked(server, said)
    assert again == first
    assert n_cached > 300
    assert asked(server, [{"role": "user", "content": OTHERS[0]}])[0] == other
    engine = server.engine
    for context in contexts:
        assert engine.memory.length(context.sequence) == len(context.tokens)


def test_what_others_pushed_out_comes_back_from_disk(server: Served) -> None:
    said = [{"role": "user", "content": STORY}]
    with server.streaming(messages=said, max_tokens=6, temperature=0) as stream:
        chunks = events_of(stream.read().decode())
    answer = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks)
    for other in OTHERS:
        with server.streaming(
            messages=[{"role": "user", "content": other}], max_tokens=1
        ) as stream:
            stream.read()
    story = server.session.chat_prompt([Message(role="user", content=STORY)])
    assert server.engine_thread.scheduler._prefixes.n_held(story) < 100, "it had to go"
    said += [{"role": "assistant", "content": answer}, {"role": "user", "content": "Go on."}]
    _, n_cached = asked(server, said)
    assert n_cached > 300


def test_an_answer_is_made_anew_from_disk_without_reading_its_prompt(server: Served) -> None:
    """What `chat --server` asks for with /regen, when others have pushed the conversation out."""
    said = [{"role": "user", "content": STORY}]
    how: dict[str, Any] = {"messages": said, "max_tokens": 6, "temperature": 0}
    with server.streaming(**how) as stream:
        stream.read()
    for other in OTHERS:
        asking = [{"role": "user", "content": other}]
        with server.streaming(messages=asking, max_tokens=1) as stream:
            stream.read()
    with server.streaming(**how, stream_options={"include_usage": True}) as stream:
        again = events_of(stream.read().decode())
    usage = again[-1]["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_tokens"] - 1
