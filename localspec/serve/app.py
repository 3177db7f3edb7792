"""The ASGI application: addresses, keys, other origins, and errors as each protocol writes them."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from localspec.errors import LocalspecError
from localspec.serve.answering import Answering, DirectSend, HttpOptions
from localspec.serve.desk import Desk
from localspec.serve.guard import OPEN_PAGE, CrossOrigin, HostGuard, KeyGuard
from localspec.serve.information import Information
from localspec.serve.order import Orders
from localspec.serve.problem import BadRequestError, Problem, problem_of
from localspec.serve.protocols import anthropic, anthropic_events, llama, openai, responses
from localspec.serve.protocols.protocol import Door
from localspec.serve.resident import HeldModel, Resident
from localspec.serve.tokens import Tokens

PAGES = {
    "metrics": ("/metrics",),
    "slots": ("/slots", "/slots/{id:int}"),
    "page": (OPEN_PAGE, "/status"),
}
"""What a server may do without, by its addresses."""
_PAGE = {OPEN_PAGE, "/status"}
"""Of these nothing is said."""


class Server:
    """`app` is the ASGI application."""

    def __init__(
        self, orders: Orders, desk: Desk, options: HttpOptions, resident: Resident | None = None
    ) -> None:
        protocols = (openai, llama, anthropic, responses)
        doors = [door for protocol in protocols for door in protocol.doors(orders)]
        self._written = {path: door.written for door in doors for path in door.paths}
        self._written[anthropic.COUNT] = anthropic_events.written
        answering = Answering(desk, options)
        routes = Information(orders, desk, options, resident).routes()
        routes += Tokens(orders, options.most_bytes).routes()
        routes += answering.replays.routes()
        routes += [route for door in doors for route in _routes(answering, door)]
        missing = {path for name in options.without for path in PAGES[name]}
        routes = [route for route in routes if getattr(route, "path", "") not in missing]
        routes += [Route(path, _not_here, methods=["GET", "POST"]) for path in missing - _PAGE]
        middleware = [
            Middleware(HostGuard, names=options.hosts, refusal=self.refusal),
            Middleware(CrossOrigin, origins=options.origins),
            Middleware(KeyGuard, keys=options.keys, refusal=self.refusal),
        ]
        if resident:
            middleware.append(Middleware(HeldModel, resident=resident, refusal=self.refusal))
        handlers: Any = {
            HTTPException: self._no_such_page, LocalspecError: self._failed, Exception: self._bug,
            ClientDisconnect: _gone,
        }  # fmt: skip
        self.app = DirectSend(
            Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)
        )

    def refusal(self, path: str, problem: Problem) -> Response:
        """An error as the protocol at an address, or above it, writes it."""
        while path and path not in self._written:
            path = path.rpartition("/")[0]
        document = self._written.get(path, Problem.as_openai)(problem)
        return JSONResponse(document, problem.status, problem.headers)

    def _no_such_page(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        told = {404: "there is no such page", 405: "this page takes another method"}
        sentence = f"{told.get(status, 'failed')}: {request.url.path}"
        return self.refusal(request.url.path, Problem(status, sentence))

    def _failed(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, LocalspecError)
        return self.refusal(request.url.path, problem_of(error))

    def _bug(self, request: Request, error: Exception) -> Response:
        return self.refusal(
            request.url.path, Problem(500, f"a bug in localspec ({error!r}): report it")
        )


def _routes(answering: Answering, door: Door) -> list[BaseRoute]:
    answer: Callable[[Request], Awaitable[Response]] = partial(answering.answered, door=door)
    return [Route(path, answer, methods=["POST"]) for path in door.paths]


async def _not_here(request: Request) -> Response:
    name = request.url.path.split("/")[1]
    sentence = f"this server was started without {name}: leave --without {name} out to have it"
    raise BadRequestError(Problem(501, sentence))


async def _gone(request: Request, error: Exception) -> Response:
    """Who hung up in the middle of a body reads no answer."""
    del request, error
    return Response(status_code=499)
