"""`localspec serve`: one model for many users, over HTTP."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localspec.cli.flags import EngineFlags, variable
from localspec.cli.notify import notify, progress
from localspec.cli.options import ModelArgument, command, option
from localspec.errors import UserError

if TYPE_CHECKING:
    from localspec.serve.app import HttpOptions
    from localspec.session.session import Session

SERVER = "Server"
KEYS_VARIABLE = "LOCALSPEC_API_KEY"


@dataclass(frozen=True)
class ServeFlags:
    """Where the server listens, for whom, and what it promises them."""

    host: str = option("127.0.0.1", "Address to listen on.", panel=SERVER, metavar="ADDRESS")
    port: int = option(8080, "Port; 0: any free one.", panel=SERVER, min=0, max=65535)
    parallel: int = option(
        4, "Requests that run at once, each with a context of --ctx tokens.", "--parallel",
        "--users", panel=SERVER, min=1, max=64,
    )  # fmt: skip
    queue: int = option(64, "Requests that may wait beside these.", panel=SERVER, min=0, max=65536)
    queue_s: float = option(
        300.0, "Seconds that one may wait.", "--queue-s", panel=SERVER, min=0, metavar="S"
    )
    latency_target: float | None = option(
        None, "Milliseconds of a pass with prompts. Default: two plain passes, at least 50.",
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
        None, "Let pages of this origin ask; * is any; may be repeated.", "--cors", panel=SERVER,
        metavar="ORIGIN",
    )  # fmt: skip
    default: list[str] | None = option(
        None, "A field for requests that leave it out, as temperature=0.2; may be repeated.",
        "--default", panel=SERVER, metavar="FIELD=VALUE",
    )  # fmt: skip
    alias: str | None = option(
        None, "The model's name in answers. Default: its file's.", panel=SERVER, metavar="NAME"
    )

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys. UserError for a file that has none."""
        found = [*(self.api_key or ()), os.environ.get(KEYS_VARIABLE, "")]
        found += _keys_of(self.api_key_file) if self.api_key_file else []
        return tuple(dict.fromkeys(key.strip() for key in found if key.strip()))

    @property
    def defaults(self) -> dict[str, Any]:
        """Of requests, their values in JSON or as text."""
        such = "temperature=0.2"
        return dict(variable(text, "--default", such) for text in self.default or ())

    def http(self, session: "Session") -> "HttpOptions":
        """As the server takes them."""
        from localspec.serve.answering import Limits
        from localspec.serve.app import HttpOptions
        from localspec.serve.server import about

        name = self.alias or session.plan.target.model.stem
        return HttpOptions(
            name, self.keys, tuple(self.cors or ()), Limits(self.queue_s), about(session)
        )


def _keys_of(path: Path) -> list[str]:
    try:
        keys = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--api-key-file {path} cannot be read: {error}") from error
    if not keys:
        raise UserError(f"--api-key-file {path} has no key in it")
    return keys


@command
def serve(engine: EngineFlags, flags: ServeFlags, model: ModelArgument = None) -> None:
    """Serve a model to many users at once, over HTTP as OpenAI's clients speak it.

    localspec serve model.gguf --parallel 4 --port 8080

    curl localhost:8080/chat/completions -d '{"messages": [{"role": "user", "content": "Hi"}]}'
    """
    keys, defaults = flags.keys, flags.defaults
    config = engine.session_config(model)
    config = config.with_settings(n_sequences=flags.parallel, kv_unified=True)
    from localspec.serve.asked import check_defaults
    from localspec.serve.server import LOOPBACK, Load, Running, bound, desk_of
    from localspec.session.session import Session

    target_s = None if flags.latency_target is None else flags.latency_target / 1e3
    check_defaults(defaults)
    with bound(flags.host, flags.port) as listener:
        with progress("loading") as on_progress:
            session = Session.open(config, notify, on_progress, talks=True)
        with session:
            desk = desk_of(session, Load(flags.queue, target_s))
            how: Any = {"verify": engine.verify, "defaults": defaults}
            server = Running(session, desk, flags.http(session), **how)
            if flags.host not in LOOPBACK and not keys:
                notify(f"{flags.host} can be reached by others: anybody may ask, without a key")
            notify(_ready(session, flags, listener.getsockname()[1]))
            server.serve(listener, lambda: notify("closing: replies that run come to their end"))


def _ready(session: "Session", flags: ServeFlags, port: int) -> str:
    host = f"[{flags.host}]" if ":" in flags.host else flags.host
    name = flags.alias or session.plan.target.model.stem
    return (
        f"{name} answers at http://{host}:{port}/v1 · {flags.parallel} at once,"
        f" a context of {session.n_ctx:,} tokens each"
    )
