"""A model that is freed while nobody asks, other names, and the line that a terminal shows."""

import io
import sys
from collections.abc import Callable
from time import perf_counter, sleep
from typing import Any

import pytest
from serving import FakeSession, SlowEngine, fake_engine_thread, fake_server, served

from localspec.chat import tty
from localspec.cli.output import live_line
from localspec.errors import EngineError
from localspec.serve.resident import Resident

FEW: dict[str, Any] = {"max_tokens": 4, "temperature": 0}


class Closable(FakeSession):
    """Its engine fails after `close`, as a freed one would."""

    def __init__(self) -> None:
        self.engine = SlowEngine(n_sequences=2)
        super().__init__(self.engine)
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = self.engine.fails = True


def until(happened: Callable[[], bool]) -> None:
    started = perf_counter()
    while not happened():
        assert perf_counter() - started < 10
        sleep(0.005)


def test_it_is_freed_when_idle_and_loaded_for_whoever_comes() -> None:
    sessions = [Closable()]

    def again() -> Closable:
        sessions.append(Closable())
        return sessions[-1]

    resident = Resident(sessions[0], again, 0.02)
    resident.hold()
    sleep(0.05)
    assert resident.is_loaded, "somebody holds it"
    resident.release()
    until(lambda: not resident.is_loaded)
    assert sessions[0].is_closed
    resident.hold()
    assert resident.session is sessions[-1]
    assert not sessions[-1].is_closed
    resident.release()
    resident.close()
    assert sessions[-1].is_closed


def test_without_a_time_it_stays() -> None:
    resident = Resident(Closable(), Closable, None)
    resident.hold()
    resident.release()
    sleep(0.02)
    assert resident.is_loaded
    resident.close()
    assert resident.session.is_closed


def test_a_server_answers_before_and_after_it_was_freed() -> None:
    """The same answer, and whoever only watches wakes nothing up."""
    first = Closable()
    made = [first]
    fails: list[bool] = []

    def again() -> Closable:
        if fails:
            fails.clear()
            raise EngineError("no memory is left")
        made.append(Closable())
        return made[-1]

    engine_thread, resident = fake_engine_thread(first.engine, 4), Resident(first, again, 0.05)
    engine_thread.remake = lambda session: fake_engine_thread(session.engine, 4).scheduler
    with served(first, engine_thread, resident) as server:
        before = server.chat(**FEW)["choices"][0]["message"]["content"]
        until(lambda: not resident.is_loaded)
        assert made[-1].is_closed
        n_made = len(made)
        for path in ("/", "/status", "/health", "/metrics", "/slots", "/v1/models"):
            assert server.ask("GET", path)[0] == 200
        assert not server.ask("GET", "/status")[1]["is_loaded"]
        fails.append(True)
        hello = [{"role": "user", "content": "Hello"}]
        status, document = server.post("/v1/chat/completions", model="tiny", messages=hello)
        assert status == 503
        assert "no memory is left" in document["error"]["message"]
        assert server.chat(**FEW)["choices"][0]["message"]["content"] == before
        assert len(made) == n_made + 1
    resident.close()


def test_a_strict_server_has_its_model_alone() -> None:
    said = [{"role": "user", "content": "Hello"}]
    with fake_server(is_strict=True) as server:
        for path, body in (("/v1/chat/completions", {"messages": said}),
                           ("/v1/completions", {"prompt": "x"})):  # fmt: skip
            status, document = server.post(path, model="other", **body, **FEW)
            assert (status, document["error"]["code"]) == (404, "model_not_found")
            assert "'tiny'" in document["error"]["message"]
            assert server.post(path, model="tiny", **body, **FEW)[0] == 200
            nameless = server.post(path.removeprefix("/v1"), **body, **FEW)
            assert nameless[0] == 200
    with fake_server() as server:
        status, document = server.post("/v1/completions", model="other", prompt="x", **FEW)
        assert (status, document["model"]) == (200, "tiny"), "any name is served, and the own told"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_lives_on_a_terminal_and_not_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tty, "DELAY_S", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    for out, is_shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", out)
        with live_line(lambda: "2 users") as end:
            sleep(0.05)
            end()
            n_written = len(out.getvalue())
        assert ("2 users" in out.getvalue()) == is_shown
        assert len(out.getvalue()) == n_written, "nothing comes behind its end"
        assert not is_shown or out.getvalue().endswith(tty.ERASE)
