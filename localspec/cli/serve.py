"""`localspec serve`: one model for many users, over HTTP."""

import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localspec.cli.flags import EngineFlags, variable
from localspec.cli.options import KEYS_VARIABLE, ModelArgument, command, option
from localspec.cli.output import live_line, notify, progress
from localspec.errors import UserError
from localspec.format import count, plus_minus, speed
from localspec.notify import silent

if TYPE_CHECKING:
    from localspec.serve.answering import HttpOptions
    from localspec.serve.engine_thread import EngineThread
    from localspec.serve.resident import Resident
    from localspec.serve.server import Load
    from localspec.session.session import Session
    from localspec.session.session_config import Depths, SessionConfig

SERVER = "Server"
PAGES = ("metrics", "slots", "page")
MANY = 10_000
"""Texts that a server is loaded for: no loading takes too long for them."""


@dataclass(frozen=True)
class ServeFlags:
    """Where the server listens, for whom, and what it promises them."""

    host: str = option(
        "127.0.0.1", "Address to listen on, or several with commas.", panel=SERVER,
        metavar="ADDRESS",
    )  # fmt: skip
    port: int = option(8080, "Port; 0: any free one.", panel=SERVER, min=0, max=65535)
    parallel: int = option(
        4, "Requests that run at once, each with a context of --ctx tokens.", "--parallel",
        "--users", panel=SERVER, min=1, max=64,
    )  # fmt: skip
    queue: int = option(64, "Requests that may wait beside these.", panel=SERVER, min=0, max=65536)
    queue_s: float = option(
        300.0, "Seconds that one may wait.", "--queue-s", panel=SERVER, min=0, metavar="S"
    )
    deadline: float | None = option(
        None, "Seconds from a request's arrival to its end; status 503 beyond. Default: none.",
        panel=SERVER, min=0.001, metavar="S",
    )  # fmt: skip
    latency_target: float | None = option(
        None, "Milliseconds of a pass with prompts or drafts. Default: two plain passes, or 50.",
        "--latency-target", panel=SERVER, min=1, metavar="MS",
    )  # fmt: skip
    api_key: list[str] | None = option(
        None, f"A key that clients must send; may be repeated. Also from {KEYS_VARIABLE}.",
        "--api-key", panel=SERVER, metavar="KEY",
    )  # fmt: skip
    api_key_file: Path | None = option(
        None, "Keys from a file, one a line.", "--api-key-file", panel=SERVER, metavar="FILE"
    )
    cors: list[str] | None = option(
        None, "Let pages of this origin ask, beside this machine's; * is any; may be repeated.",
        "--cors", panel=SERVER, metavar="ORIGIN",
    )  # fmt: skip
    allow_host: list[str] | None = option(
        None, "Answer at this name, too, where only this machine asks; * is any; may be repeated.",
        "--allow-host", panel=SERVER, metavar="NAME",
    )  # fmt: skip
    default: list[str] | None = option(
        None, "A field for requests that leave it out, as temperature=0.2; may be repeated.",
        "--default", panel=SERVER, metavar="FIELD=VALUE",
    )  # fmt: skip
    alias: str | None = option(
        None, "The model's names with commas, the first in answers. Default: its file's.",
        panel=SERVER, metavar="NAME",
    )  # fmt: skip
    tags: str | None = option(
        None, "Words that /v1/models says of the model, with commas.", panel=SERVER, metavar="WORDS"
    )
    strict_model: bool = option(
        False, "Refuse requests for a model of another name, with status 404.", "--strict-model",
        panel=SERVER,
    )  # fmt: skip
    disk_cache: float | None = option(
        None, "GB of files for conversations that the cache has no room for. Default: none.",
        "--disk-cache", panel=SERVER, min=0, metavar="GB",
    )  # fmt: skip
    slot_save_path: Path | None = option(
        None, "Folder of the files that POST /slots/ID?action=save writes.", "--slot-save-path",
        panel=SERVER, metavar="DIR",
    )  # fmt: skip
    without: list[str] | None = option(
        None, f"Have no such page: {', '.join(PAGES)}; may be repeated.", panel=SERVER,
        metavar="NAME",
    )  # fmt: skip
    idle_unload: float | None = option(
        None, "Free the model after so many minutes without requests; the next one loads it.",
        "--idle-unload", panel=SERVER, min=0.001, metavar="MIN",
    )  # fmt: skip

    context_shift: bool = option(
        False, "llama-server's, for commands that name it: only --no-context-shift is done.",
        "--context-shift/--no-context-shift", panel=SERVER, hidden=True,
    )  # fmt: skip

    @property
    def origins(self) -> tuple[str, ...]:
        """Whose pages may ask. UserError for what is no origin: no page would ever match it."""
        from localspec.serve.guard import checked_origin

        return tuple(map(checked_origin, self.cors or ()))

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys. UserError for an empty one, and for a file that has none."""
        if not all(key.strip() for key in self.api_key or ()):
            raise UserError("--api-key is empty: write a key, or leave it out to let anybody ask")
        found = [*(self.api_key or ()), os.environ.get(KEYS_VARIABLE, "")]
        found += _keys_of(self.api_key_file) if self.api_key_file else []
        return tuple(dict.fromkeys(key.strip() for key in found if key.strip()))

    @property
    def hosts(self) -> list[str]:
        """Addresses to listen on. UserError for an empty one: it would be every address."""
        found = [host.strip() for host in self.host.split(",")]
        if not all(found):
            raise UserError(
                f"--host {self.host!r} has no address in it: leave it out for 127.0.0.1"
            )
        return found

    @property
    def defaults(self) -> dict[str, Any]:
        """Of requests, their values in JSON or as text."""
        such = "temperature=0.2"
        return dict(variable(text, "--default", such) for text in self.default or ())

    def http(self, session: "Session") -> "HttpOptions":
        """As the server takes them."""
        from localspec.serve.answering import HttpOptions
        from localspec.serve.server import LOOPBACK, about

        name, *others = self.names(session)
        names = tuple(self.allow_host or ())
        return HttpOptions(
            name,
            self.keys,
            self.origins,
            about={**about(session), "tags": _words(self.tags)},
            slot_folder=self.slot_save_path,
            aliases=tuple(others),
            without=frozenset(self.without or ()),
            hosts=None if set(self.hosts) - set(LOOPBACK) else names,
            wait_s=self.queue_s,
            is_strict=self.strict_model,
        )

    def names(self, session: "Session") -> list[str]:
        """Of the model."""
        return _words(self.alias) or [session.plan.target.model.stem]

    @property
    def load(self) -> "Load":
        """What the server promises under load."""
        from localspec.serve.server import Load

        target_s = None if self.latency_target is None else self.latency_target / 1e3
        disk_bytes = None if self.disk_cache is None else self.disk_cache * 1e9
        return Load(self.queue, target_s, self.deadline, disk_bytes)

    @property
    def idle_s(self) -> float | None:
        """When an idle model is freed."""
        return None if self.idle_unload is None else self.idle_unload * 60


def _words(text: str | None) -> list[str]:
    """Of a list with commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def _keys_of(path: Path) -> list[str]:
    try:
        keys = path.read_text(encoding="utf-8").split()
    except OSError as error:
        raise UserError(f"--api-key-file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--api-key-file {path} cannot be read: it is not UTF-8 text") from error
    if not keys:
        raise UserError(f"--api-key-file {path} has no key in it")
    return keys


@command
def serve(engine: EngineFlags, flags: ServeFlags, model: ModelArgument = None) -> None:
    """Serve a model to many users at once, over HTTP as OpenAI's clients speak it.

    localspec serve model.gguf --parallel 4 --port 8080

    curl localhost:8080/chat/completions -d '{"messages": [{"role": "user", "content": "Hi"}]}'
    """
    keys, defaults, _, hosts = flags.keys, flags.defaults, flags.origins, flags.hosts
    unknown = set(flags.without or ()) - set(PAGES)
    if unknown:
        raise UserError(f"--without {min(unknown)} is none of {', '.join(PAGES)}")
    if flags.slot_save_path and not flags.slot_save_path.is_dir():
        raise UserError(f"--slot-save-path {flags.slot_save_path} is no folder: make it first")
    from localspec.serve.request_body import NO_SHIFT, check_defaults
    from localspec.session.session_config import Depths

    if flags.context_shift:
        raise UserError(f"--context-shift is not supported: {NO_SHIFT}")
    config = engine.session_config(model)
    config = config.with_settings(n_sequences=flags.parallel, kv_unified=True)
    kept = Depths.kept(config.model)
    before = kept.load() or Depths()
    from localspec.serve.resident import Resident
    from localspec.serve.server import LOOPBACK, Running, engine_thread_of, listening
    from localspec.session.session import Session

    check_defaults(defaults)
    how: Any = {"verify": engine.verify, "defaults": defaults}
    with listening(hosts, flags.port) as listeners:
        with progress("loading") as on_progress:
            session = Session.open(_for(before, config), notify, on_progress, talks=True)

        def again() -> Session:
            asked = _for(before + engine_thread.metrics.depths, config)
            return Session.open(asked, silent, talks=True)

        with closing(Resident(session, again, flags.idle_s)) as resident:
            engine_thread = engine_thread_of(session, flags.load)
            server = Running(session, engine_thread, flags.http(session), resident, **how)
            for host in () if keys else set(hosts) - set(LOOPBACK):
                notify(f"{host} can be reached by others: anybody may ask, without a key")
            notify(_ready(session, flags, listeners[0].getsockname()[1]))
            with live_line(lambda: _live(engine_thread, resident)) as end:
                server.serve(listeners, lambda: _closing(end))
            # Beside what other servers kept meanwhile.
            kept.save((kept.load() or Depths()) + engine_thread.metrics.depths)


def _for(depths: "Depths", config: "SessionConfig") -> "SessionConfig":
    """Settings that are fastest for texts of these depths."""
    return replace(config, expected=depths.expected(MANY))


def _closing(end: Callable[[], None]) -> None:
    end()
    notify("closing: replies that run come to their end")


def _ready(session: "Session", flags: ServeFlags, port: int) -> str:
    hosts = [f"[{host}]" if ":" in host else host for host in flags.hosts]
    places = " and ".join(f"http://{host}:{port}/v1" for host in hosts)
    return (
        f"{flags.names(session)[0]} answers at {places} · {flags.parallel} at once,"
        f" a context of {session.n_ctx:,} tokens each{_expected(session, flags.parallel)}"
    )


def _expected(session: "Session", n_users: int) -> str:
    """What this machine should do without drafts, where it was measured."""
    from localspec.forecast.forecast import Expectation

    expected = Expectation.of(session.plan.target, session.plan.facts)
    if expected is None:
        return ""
    one = expected.decode(0)
    text = f" · about {plus_minus(one.low, one.high)} tok/s for one user"
    if n_users == 1:
        return text
    every = expected.decode(0, n_users)
    return f"{text}, {plus_minus(every.low, every.high)} for {n_users} together, without drafts"


def _live(engine_thread: "EngineThread", resident: "Resident") -> str:
    """Who is here, how fast, with what drafts, and who waits."""
    now = engine_thread.recent.moment(engine_thread.clock())
    n_users, n_waiting = len(engine_thread.scheduler.running), len(engine_thread.scheduler.waiting)
    if not resident.is_loaded:
        return "the model is not loaded: the next request loads it"
    return (
        f"{count(n_users, 'user')} · {speed(now.tokens_per_s)} ·"
        f" {now.drafted_rows:.1f} drafted rows a pass · {n_waiting} waiting"
    )
