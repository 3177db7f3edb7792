"""Who may ask: API keys, compared in constant time; health and the bare page need none."""

import hmac
from collections.abc import Callable, Sequence
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from localspec.serve.page import OPEN_PAGE
from localspec.serve.problem import Problem

OPEN = (OPEN_PAGE, "/health", "/v1/health")


class KeyGuard:
    """ASGI middleware: without `keys` everybody may ask. `written`: an address's form of errors."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[str],
        written: Callable[[str, Problem], dict[str, Any]],
    ) -> None:
        self._app, self._written = app, written
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._admits(scope):
            await self._app(scope, receive, send)
            return
        sentence = "this server wants a key: send one of its API keys as a Bearer token"
        problem = Problem(401, sentence, code="invalid_api_key")
        document = self._written(scope["path"], problem)
        await JSONResponse(document, problem.status)(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        if not self._keys or scope["path"] in OPEN:
            return True
        headers = dict[bytes, bytes](scope["headers"])
        kind, _, bearer = headers.get(b"authorization", b"").partition(b" ")
        given = bearer.strip() if kind.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        matches = [hmac.compare_digest(given, key) for key in self._keys]
        return any(matches)  # all are compared: the time does not tell which
