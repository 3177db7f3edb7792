"""Servers for tests, on a port of their own; with a fake engine, or with a session."""

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, sleep
from types import SimpleNamespace
from typing import Any

from fakes import FakeEngine

from localspec.decode.costs import PassCosts
from localspec.decode.curve import PassCurve
from localspec.decode.speculator import Plain
from localspec.dialogue.prompts import Prompts
from localspec.engine.interrupt import Interrupt
from localspec.notify import silent
from localspec.serve.answering import HttpOptions
from localspec.serve.engine_thread import EngineThread
from localspec.serve.pace import Paced
from localspec.serve.prefixes import Prefixes
from localspec.serve.queue import Room
from localspec.serve.resident import Resident
from localspec.serve.scheduler import Scheduler
from localspec.serve.server import Running, bound
from localspec.session.generations import Generations
from localspec.session.reply import Turns
from localspec.session.reply_options import Recommended
from localspec.session.session import Session


class SlowEngine(FakeEngine):
    """Each pass takes `pass_s`, and waits while it `is_held`."""

    def __init__(self, pass_s: float = 0.0, **how: Any) -> None:
        super().__init__(n_ctx=512, **how)
        self.pass_s, self.fails = pass_s, False

    def decode(self, requests: Any) -> Any:
        sleep(self.pass_s)
        if self.fails:
            raise RuntimeError("a bug")
        return super().decode(requests)


class FakeSession(Session):
    """A base model that says letters; no file, nothing loaded."""

    def __init__(self, engine: FakeEngine) -> None:
        self.target: Any = engine
        self.plan: Any = SimpleNamespace(target=engine.config, template="auto")
        self.recommended, self.notify = Recommended({}), silent
        self._turns = Turns(Interrupt())
        self.generations = Generations(engine.vocabulary, engine.config.n_ctx)
        prompts = Prompts(None, engine.vocabulary)
        self.prompting: Any = SimpleNamespace(prompts=lambda values=None: prompts)


def fake_engine_thread(engine: FakeEngine, n_waiting: int) -> EngineThread:
    contexts = [engine.context() for _ in range(engine.config.settings.n_sequences)]
    pace = Paced(Plain(), PassCosts(PassCurve.of([[1, 0.01, 0.0], [101, 0.11, 0.0]])), 64)
    room = Room(512 * len(contexts), n_waiting)
    return EngineThread(Scheduler(engine, Prefixes(contexts), pace, room, perf_counter))


@dataclass
class Served:
    """A server that runs. `ask` sends one request and reads all of the answer."""

    port: int
    session: Session
    running: Running
    engine_thread: EngineThread
    engine: Any

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, document (or text) and headers, these in lower case."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, data, headers or {})
            answer = connection.getresponse()
            text = answer.read().decode()
            found = {name.lower(): value for name, value in answer.getheaders()}
            is_json = found.get("content-type") == "application/json"
            return answer.status, json.loads(text) if is_json else text, found
        finally:
            connection.close()

    def post(self, path: str, **body: Any) -> tuple[int, Any]:
        status, document, _ = self.ask("POST", path, body)
        return status, document

    def chat(self, text: str = "Hello", **body: Any) -> Any:
        """The document of a good answer."""
        messages = [{"role": "user", "content": text}]
        how = {"model": "any", "messages": messages, **body}
        status, document = self.post("/v1/chat/completions", **how)
        assert status == 200, document
        return document

    @contextmanager
    def streaming(self, **body: Any) -> Iterator[http.client.HTTPResponse]:
        """A stream that has begun; leaving it hangs up."""
        said = [{"role": "user", "content": "Hello"}]
        document = {"model": "tiny", "messages": said, "stream": True, **body}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(document))
            yield connection.getresponse()
        finally:
            connection.close()

    def wait_until_idle(self) -> None:
        """Until no request is left. A sequence that leaked would fail here."""
        scheduler = self.engine_thread.scheduler
        self._wait(lambda: not scheduler.running and not scheduler.waiting)

    def wait_until_running(self) -> None:
        """Until a request has a sequence: its stream may begin before."""
        self._wait(lambda: bool(self.engine_thread.scheduler.running))

    def _wait(self, is_so: Callable[[], bool]) -> None:
        started = perf_counter()
        while not is_so():
            assert perf_counter() - started < 20, "a request did not get on"
            sleep(0.01)


def data_of(text: str) -> list[Any]:
    """The documents of a stream, however its events are named and it ends."""
    lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def events_of(text: str) -> list[Any]:
    """The documents of a stream; its end is checked."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@contextmanager
def served(
    session: Session, engine_thread: EngineThread, resident: Resident | None = None, **options: Any
) -> Iterator[Served]:
    """A running server on a free port."""
    defaults = options.pop("defaults", {})
    how = HttpOptions(**{"model": "tiny", **options})
    running = Running(session, engine_thread, how, resident, defaults=defaults)
    with bound("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=running.serve, args=([listener],))
        thread.start()
        try:
            yield Served(port, session, running, engine_thread, session.target)
        finally:
            running.stop(0.0)
            thread.join(30)
            assert not thread.is_alive(), "the server does not end"


@contextmanager
def fake_server(
    n_sequences: int = 2, n_waiting: int = 4, pass_s: float = 0.0, **options: Any
) -> Iterator[Served]:
    engine = SlowEngine(pass_s, n_sequences=n_sequences)
    with served(FakeSession(engine), fake_engine_thread(engine, n_waiting), **options) as made:
        yield made
