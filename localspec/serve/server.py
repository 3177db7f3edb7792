"""A session and its options to a running server, and its end.

The first Ctrl-C, SIGTERM or SIGHUP lets the replies that run come to their end for a while; a
second one ends them at once.
"""

import gc
import re
import signal
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from errno import EADDRNOTAVAIL
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from localspec import paths
from localspec.errors import EngineError
from localspec.serve.answering import HttpOptions
from localspec.serve.app import Server
from localspec.serve.engine_thread import EngineThread
from localspec.serve.order import Orders
from localspec.serve.pace import Paced
from localspec.serve.prefixes import Prefixes
from localspec.serve.queue import Room
from localspec.serve.resident import Resident
from localspec.serve.scheduler import Scheduler
from localspec.session.disk_cache import DiskCache, state_key
from localspec.session.session import Session

DRAIN_S = 30.0
"""What replies may take after the first Ctrl-C."""
LINGER_S = 3
"""What a client may take to read its end."""
N_YOUNG = 5_000
"""Objects between two collections, a fraction of a millisecond each: a command waits for forty
times as many, and a server would hold for an hour what its replies leave."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests may wait, and how long a pass may take with prompts; None: by its cost.

    `deadline_s`: of a request from its arrival to its end; None: none. `disk_bytes`: of files for
    conversations whose place in the cache others needed; None: none are written.
    """

    n_waiting: int = 64
    target_s: float | None = None
    deadline_s: float | None = None
    disk_bytes: float | None = None


def engine_thread_of(session: Session, load: Load = Load()) -> EngineThread:
    """Of a session whose engine has one pool of cells, for as many users as sequences."""

    def made(session: Session) -> Scheduler:
        scheduler = scheduler_of(session, load)
        session.leave_thread()
        return scheduler

    return EngineThread(made(session), made)


def scheduler_of(session: Session, load: Load) -> Scheduler:
    """What runs on the session's engine."""
    engine, settings = session.target, session.plan.target.settings
    n = settings.n_sequences
    contexts = [session.context, *(engine.context() for _ in range(n - 1))]
    n_rows = min(settings.ubatch, session.n_ctx) - session.plan.target.n_outputs
    costs = session.learned().target
    is_taught = session.speculation == "auto"
    speculator = session.speculator()
    pace = Paced(speculator, costs, max(1, n_rows), load.target_s, teaches=not is_taught)
    room = Room(n * session.n_ctx, load.n_waiting, load.deadline_s)
    prefixes = Prefixes(contexts, _disk_cache(session, load.disk_bytes))
    return Scheduler(engine, prefixes, pace, room, perf_counter)


def _disk_cache(session: Session, most_bytes: float | None) -> DiskCache | None:
    if most_bytes is None:
        return None
    folder = paths.cache_dir() / "served" / state_key(session.plan.target)
    return DiskCache(folder, most_bytes)


def about(session: Session) -> dict[str, Any]:
    """What /v1/models tells of the model."""
    facts, plan = session.plan.facts, session.plan.target
    return {
        "created": int(Path(plan.model).stat().st_mtime),
        "max_model_len": session.n_ctx,
        "meta": {
            "n_vocab": session.target.vocabulary.n_tokens,
            "n_ctx": session.n_ctx,
            "n_ctx_train": facts.n_ctx_train,
            "n_parallel": plan.settings.n_sequences,
        },
    }


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens. EngineError where that address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
    except (OSError, OverflowError) as error:
        made.close()
        reason = getattr(error, "strerror", None) or error
        is_no_place = getattr(error, "errno", None) == EADDRNOTAVAIL
        is_no_place = is_no_place or isinstance(error, socket.gaierror)
        step = "check --host" if is_no_place else "use --port"
        raise EngineError(f"{host}:{port} cannot be listened on ({reason}): {step}") from error
    return made


@contextmanager
def listening(hosts: Sequence[str], port: int) -> Generator[list[socket.socket]]:
    """Sockets that listen at each of `hosts`, at one port."""
    with ExitStack() as stack:
        made: list[socket.socket] = []
        for host in hosts:
            made.append(stack.enter_context(bound(host, port)))
            port = made[0].getsockname()[1]
        yield made


class _Uvicorn(uvicorn.Server):
    """Leaves signals to `Running`, which lets replies end first."""

    def capture_signals(self) -> Any:
        """Nothing."""
        return nullcontext()


_ELDER = re.compile(rb"[^\r\n]* HTTP/1\.0\r|.*\r\nupgrade:", re.IGNORECASE | re.DOTALL)
"""A client of HTTP/1.0, or one that offers another protocol, as Java's does with each question."""


class _Wire(HttpToolsProtocol):
    """A parser in C. It sends parts of a stream in a coding that HTTP/1.0 does not have, and loses
    the body behind an offer of another protocol: a request that begins with these gets the one in
    Python, and so do those behind it."""

    _is_new = True

    def data_received(self, data: bytes) -> None:
        """Bytes of a client; the first ones of a request tell who it is."""
        is_first = self._is_new or self.timeout_keep_alive_task is not None  # it waits for one
        if is_first and _ELDER.match(data):
            self._unset_keepalive_if_required()
            self.connections.discard(self)
            other = H11Protocol(self.config, self.server_state, self.app_state)
            other.connection_made(self.transport)
            self.transport.set_protocol(other)
            other.data_received(data)
            return
        self._is_new = False
        super().data_received(data)


class Running:
    """A server on a listening socket; `serve` returns when it has ended."""

    def __init__(
        self,
        session: Session,
        engine_thread: EngineThread,
        options: HttpOptions,
        resident: Resident | None = None,
        **how: Any,
    ) -> None:
        self._engine_thread = engine_thread
        orders = Orders(session, **how)
        app = Server(orders, engine_thread, options, resident).app
        if resident:
            self._follow(resident, orders)
        config = uvicorn.Config(
            app,
            http=_Wire,
            log_level="error",  # a line for each stray client says nothing of use
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=LINGER_S,
        )
        self._uvicorn = _Uvicorn(config)
        self._n_signals = 0
        self._ending: threading.Thread | None = None

    def _follow(self, resident: Resident, orders: Orders) -> None:
        """Go on with each session that takes the place of another one."""

        def adopt(session: Session) -> None:
            orders.session = session
            self._engine_thread.scheduler = self._engine_thread.remake(session)

        resident.on_loaded = adopt
        resident.is_idle = lambda: self._engine_thread.scheduler.is_idle
        resident.on_freeing = lambda: self._engine_thread.scheduler.keep_all()

    def serve(
        self, listeners: list[socket.socket], on_end: Callable[[], None] = lambda: None
    ) -> None:
        """Answer until `stop`, Ctrl-C or a signal; `on_end` is told of the first of these."""
        self._on_end = on_end
        before = {each: signal.signal(each, self._on_signal) for each in _signals()}
        gc.freeze()  # what is loaded stays: no collection between two passes walks through it
        gc.set_threshold(N_YOUNG, 3, 3)
        self._engine_thread.start()
        try:
            self._uvicorn.run(sockets=listeners)
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
            self.stop(0.0)
            if self._ending:
                self._ending.join()

    def stop(self, wait_s: float = DRAIN_S) -> None:
        """End: replies that run have so long. From any thread."""
        if self._ending is None:
            self._ending = threading.Thread(target=self._end, args=(wait_s,))
            self._ending.start()

    def _end(self, wait_s: float) -> None:
        self._engine_thread.close(wait_s)
        self._engine_thread.scheduler.keep_all()
        self._uvicorn.should_exit = True

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._n_signals += 1
        if self._n_signals == 1:
            with suppress(OSError):  # the terminal may be gone that it would tell
                self._on_end()
            self.stop()
        else:
            self._engine_thread.cut()


def _signals() -> tuple[signal.Signals, ...]:
    """Those that end it. One that is ignored by SIGHUP, as `nohup` wants, goes on."""
    if threading.current_thread() is not threading.main_thread():
        return ()
    hang_up = getattr(signal, "SIGHUP", None)  # a terminal that closes; Windows has none
    is_heeded = hang_up is not None and signal.getsignal(hang_up) != signal.SIG_IGN
    return (signal.SIGINT, signal.SIGTERM, *([hang_up] if hang_up and is_heeded else []))
