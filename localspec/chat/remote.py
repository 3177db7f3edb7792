"""A model that a server has, by OpenAI's HTTP: its name, its context, and answers as they come.

Whatever goes wrong is one sentence. Leaving a stream closes its connection, by which the server
knows that nobody listens any more.
"""

import json
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from localspec.chat.archive import Record
from localspec.errors import EngineError, UserError
from localspec.session.reply_options import ReplyOptions

CONNECT_S = 10.0
SILENT_S = 900.0
"""A long prompt is read without a word by servers that send no pings."""
MOST_ERROR = 65536
"""Bytes of an error that are read."""


class LostError(EngineError):
    """The server cannot be reached, or went away."""


class ContextError(UserError):
    """The server says that a prompt does not fit; None: it does not say how long it is."""

    def __init__(self, sentence: str, n_prompt: int | None, n_ctx: int | None) -> None:
        super().__init__(sentence)
        self.n_prompt, self.n_ctx = n_prompt, n_ctx


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where a server is; `key` is sent with each request."""

    url: str
    key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, text: str, key: str | None = None) -> "ServerAddress":
        """Of what a user types: also without http://, and with /v1. UserError for no address."""
        url = text.strip().rstrip("/").removesuffix("/v1")
        url = url if "://" in url else f"http://{url}"
        try:
            parts = urlsplit(url)
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname)
            _ = parts.port
        except ValueError:
            is_good = False
        if not is_good or not url.isascii():
            raise UserError(f"--server {text!r} is no address: http://localhost:8080, say")
        if key is not None and not key.isascii():
            raise UserError("the API key has characters that no key has: check --api-key")
        return cls(url, key)

    def model(self, name: str | None) -> dict[str, Any]:
        """What the server says of a model, or of its first one. LocalspecError where it cannot."""
        with closing(self._connection(CONNECT_S)) as connection:
            answer = self._answer(connection, "GET", "/v1/models", None)
            try:
                document = json.loads(answer.read())
            except (OSError, HTTPException, ValueError) as error:
                raise EngineError(f"{self.url} answered what is no JSON: {error}") from error
        listed = document.get("data") if isinstance(document, dict) else None
        models = [each for each in listed or () if isinstance(each, dict) and "id" in each]
        if not models:
            raise EngineError(f"{self.url} lists no models: is that a server for OpenAI's clients?")
        found = next((each for each in models if each["id"] == name), None)
        return found or ({"id": name} if name else models[0])

    @contextmanager
    def asked(self, body: dict[str, Any]) -> Generator[Iterator[dict[str, Any]]]:
        """The chunks of an answer, to its end. LocalspecError where it fails or breaks off."""
        with closing(self._connection(SILENT_S)) as connection:
            yield self._chunks(self._answer(connection, "POST", "/v1/chat/completions", body))

    def _chunks(self, answer: HTTPResponse) -> Iterator[dict[str, Any]]:
        try:
            for event in _events(answer):
                if event == "[DONE]":
                    return
                yield self._checked(event)
        except (OSError, HTTPException) as error:
            raise self._lost(error) from error
        raise LostError(f"{self.url} went away in the middle of an answer")

    def _connection(self, silent_s: float) -> HTTPConnection:
        parts = urlsplit(self.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=CONNECT_S)
        try:
            connection.connect()
            connection.sock.settimeout(silent_s)
        except (OSError, ValueError) as error:
            connection.close()
            raise self._lost(error) from error
        return connection

    def _answer(
        self, connection: HTTPConnection, method: str, path: str, body: dict[str, Any] | None
    ) -> HTTPResponse:
        headers = {"content-type": "application/json", "accept": "application/json"}
        if self.key:
            headers["authorization"] = f"Bearer {self.key}"
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, urlsplit(self.url).path + path, data, headers)
            answer = connection.getresponse()
            if answer.status == 200:
                return answer
            text = answer.read(MOST_ERROR).decode(errors="replace")
        except (OSError, HTTPException) as error:
            raise self._lost(error) from error
        raise self._refusal(answer.status, text)

    def _lost(self, error: Exception) -> LostError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return LostError(f"{self.url} cannot be reached or went away ({reason}): is it running?")

    def _checked(self, event: str) -> dict[str, Any]:
        try:
            chunk = json.loads(event)
        except ValueError as error:
            raise EngineError(f"{self.url} sent a chunk that is no JSON: {error}") from error
        if not isinstance(chunk, dict):
            raise EngineError(f"{self.url} sent a chunk that is no object")
        if chunk.get("error"):
            raise self._refusal(500, json.dumps(chunk))
        return chunk

    def _refusal(self, status: int, text: str) -> UserError | EngineError:
        """What a server's error means, in its own words where it has some."""
        error = _error_of(text)
        sentence = str(error.get("message") or f"{self.url} answered with status {status}")
        if status == 401:
            return UserError(f"{sentence}: --api-key or LOCALSPEC_API_KEY has one")
        kinds = (error.get("code"), error.get("type"))
        if {"context_length_exceeded", "exceed_context_size_error"} & {str(each) for each in kinds}:
            return ContextError(sentence, error.get("n_prompt_tokens"), error.get("n_ctx"))
        return (UserError if 400 <= status < 500 and status != 429 else EngineError)(sentence)


def _error_of(text: str) -> dict[str, Any]:
    """The error in a body: OpenAI's form, FastAPI's `detail`, or none."""
    try:
        document = json.loads(text)
    except ValueError:
        return {}
    error = document.get("error", document.get("detail")) if isinstance(document, dict) else None
    return error if isinstance(error, dict) else {"message": error}


def _events(lines: HTTPResponse) -> Iterator[str]:
    """The data of server-sent events; comments are pings."""
    data: list[str] = []
    for line in lines:
        text = line.decode(errors="replace").rstrip("\r\n")
        if not text and data:
            yield "\n".join(data)
            data.clear()
        elif text.startswith("data:"):
            data.append(text[5:].removeprefix(" "))


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
