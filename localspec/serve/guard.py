"""Who may ask: those with a key, and pages of this machine and of origins that the owner lets in.

A server that only this machine can reach answers at this machine's names alone: a page elsewhere
can have its own name lead here (DNS rebinding), and its browser then takes us for its own server.

Keys are compared in constant time; health and the bare page need none. A browser asks with OPTIONS
before it asks. The answer names the page's own origin and never `*`, so that pages may send
credentials; it says nothing of origins to those that may not.
"""

import hmac
import socket
from collections.abc import Callable, Collection, Sequence
from ipaddress import ip_address
from re import compile as compiled

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from localspec.errors import UserError
from localspec.serve.problem import Problem

LOCAL = compiled(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?")
"""Origins of pages that this machine serves."""
ORIGIN = compiled(r"[a-z][a-z0-9+.-]*://[^/?#\s]+|null")
ANY = "*"
SECONDS = 600
"""For which a browser need not ask again."""
_ALLOWED = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Max-Age": str(SECONDS),
}


def checked_origin(text: str) -> str:
    """An origin as browsers send it, or `*`. UserError for anything else."""
    origin = text.strip().removesuffix("/").lower()
    if origin != ANY and not ORIGIN.fullmatch(origin):
        raise UserError(f"--cors {text!r} is no origin: write one as https://example.org, or *")
    return origin


OWN_ENDS = (".localhost", ".local", ".internal")
"""Of names that nobody can buy."""


def is_own(host: str, names: Collection[str]) -> bool:
    """Whether a request's Host is an address, a name of this machine, or one of `names`."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    name = name.strip("[]").rstrip(".").lower()
    if ANY in names or name in ("", "localhost", socket.gethostname().lower(), *names):
        return True
    try:
        return bool(ip_address(name))  # nobody can have an address lead elsewhere
    except ValueError:
        return name.endswith(OWN_ENDS)


Refusal = Callable[[str, Problem], Response]
"""An error as it is written at an address."""


class HostGuard:
    """ASGI middleware: answers at this machine's names and at `names`; None: at any."""

    def __init__(self, app: ASGIApp, names: Collection[str] | None, refusal: Refusal) -> None:
        self._app, self._refusal = app, refusal
        self._names = None if names is None else [name.lower() for name in names]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = dict[bytes, bytes](scope.get("headers", ())).get(b"host", b"").decode("latin-1")
        if scope["type"] != "http" or self._names is None or is_own(given, self._names):
            await self._app(scope, receive, send)
            return
        sentence = f"this server does not answer at {given!r}: --allow-host adds a name"
        problem = Problem(403, sentence, code="wrong_host")
        await self._refusal(scope["path"], problem)(scope, receive, send)


class CrossOrigin:
    """ASGI middleware; `origins` beside this machine's, `*`: any."""

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app, self._origins = app, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict[bytes, bytes](scope["headers"])
        named = self._named(headers.get(b"origin", b"").decode("latin-1"))
        if scope["method"] == "OPTIONS":
            allowed = {**named, **self._allowed(headers)} if named else {}
            await _answer({"Allow": "GET, POST, DELETE, OPTIONS"} | allowed)(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start" and named:
                message["headers"] = [*message.get("headers", ()), *_raw(named)]
            await send(message)

        await self._app(scope, receive, marked)

    def _named(self, origin: str) -> dict[str, str]:
        """What says to a browser that the page at `origin` may read the answer."""
        is_welcome = ANY in self._origins or origin in self._origins or LOCAL.fullmatch(origin)
        if not origin or not is_welcome:
            return {}
        return {
            "Access-Control-Allow-Origin": origin,
            "Access-Control-Allow-Credentials": "true",
            "Vary": "Origin",
        }

    @staticmethod
    def _allowed(headers: dict[bytes, bytes]) -> dict[str, str]:
        """With credentials browsers read `*` as a name: then the headers are named."""
        wanted = headers.get(b"access-control-request-headers", b"").decode("latin-1")
        return _ALLOWED if not wanted else {**_ALLOWED, "Access-Control-Allow-Headers": wanted}


def _answer(headers: dict[str, str]) -> Response:
    response = Response(status_code=200)
    response.raw_headers += _raw(headers)
    return response


class CasedName(bytes):
    """A header's name that is sent as it is written: uvicorn and Starlette write names small, and
    some clients look for them as they are written elsewhere."""

    __slots__ = ()

    def lower(self) -> "CasedName":
        return self


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(CasedName(name.encode()), value.encode("latin-1")) for name, value in headers.items()]


OPEN_PAGE = "/"
"""It has nothing of anybody's in it, and asks for the key that all else wants."""
OPEN = (OPEN_PAGE, "/health", "/v1/health")


class KeyGuard:
    """ASGI middleware: without `keys` everybody may ask."""

    def __init__(self, app: ASGIApp, keys: Sequence[str], refusal: Refusal) -> None:
        self._app, self._refusal = app, refusal
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._admits(scope):
            await self._app(scope, receive, send)
            return
        sentence = "this server wants a key: send one of its API keys as a Bearer token"
        problem = Problem(401, sentence, code="invalid_api_key")
        await self._refusal(scope["path"], problem)(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        if not self._keys or scope["path"] in OPEN:
            return True
        headers = dict[bytes, bytes](scope["headers"])
        kind, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = bearer.strip() if kind.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        matches = [hmac.compare_digest(given, key) for key in self._keys]
        return any(matches)  # all are compared: the time does not tell which
