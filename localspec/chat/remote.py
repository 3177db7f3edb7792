"""A model that a server has: what a chat needs to know of it."""

from dataclasses import dataclass
from typing import Any

from localspec.chat.archive import Record
from localspec.chat.server import ServerAddress
from localspec.session.config import ReplyOptions

REMOTE_SETTINGS = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty")
_EFFORTS = {"off": "none", "low": "low", "medium": "medium", "high": "high"}


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Who is to answer: a server, and the name of one of its models; None: its first."""

    address: ServerAddress
    name: str | None = None


@dataclass(slots=True)
class RemoteModel:
    """`n_ctx`: tokens of a conversation, None where the server does not say it."""

    address: ServerAddress
    name: str
    n_ctx: int | None
    n_held: int = 0
    """Tokens of the conversation when it was last answered."""

    @classmethod
    def of(cls, where: Elsewhere) -> "RemoteModel":
        """Ask the server which model it has. Raises LocalspecError."""
        found = where.address.model(where.name)
        meta = found.get("meta")
        given = found.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else 0)
        return cls(
            where.address, str(found["id"]), given if isinstance(given, int) and given else None
        )

    @property
    def described(self) -> dict[str, Any]:
        """For programs."""
        return {"model": self.name, "n_ctx": self.n_ctx, "server": self.address.url}

    def rows(self) -> list[tuple[str, ...]]:
        """For /stats."""
        return [("server", self.address.url)]

    def size_of(self, text: str) -> str | None:
        """Its tokens are not known here."""
        return None

    def reading(self, n_prompt: int) -> str:
        """What an answer waits for."""
        return f"{self.address.url} reads the conversation"

    def effective(self, options: ReplyOptions) -> ReplyOptions:
        """The server has its own recommendations for what was not chosen."""
        return options

    def restore(self, record: Record) -> None:
        """The server keeps caches of its own."""
        self.n_held = 0

    def save(self, record: Record) -> None:
        """Likewise."""

    def save_behind(self, record: Record) -> None:
        """Likewise."""

    def close(self) -> None:
        """Nothing is held here."""


def body_of(
    model: RemoteModel, options: ReplyOptions, said: list[dict[str, Any]]
) -> dict[str, Any]:
    """What a server is asked: what was chosen here, and the seed, which repeats an answer."""
    sampling, chosen = options.sampling, options.chosen
    names = REMOTE_SETTINGS if chosen is None else [n for n in REMOTE_SETTINGS if n in chosen]
    body: dict[str, Any] = {"model": model.name, "messages": said, "stream": True}
    body |= {"stream_options": {"include_usage": True}, "seed": sampling.seed}
    body |= {name: getattr(sampling, name) for name in names}
    if options.max_tokens is not None:
        body["max_tokens"] = options.max_tokens
    if options.stop:
        body["stop"] = list(options.stop)
    if options.ignore_eos:
        body["ignore_eos"] = True
    variables = dict(options.template_args)
    if options.think in _EFFORTS:
        body["reasoning_effort"] = _EFFORTS[options.think]
    elif options.think == "on":
        variables.setdefault("enable_thinking", True)
    return body | ({"chat_template_kwargs": variables} if variables else {})
