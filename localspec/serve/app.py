"""The ASGI application: addresses, keys, other origins, and errors as each protocol writes them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from localspec.errors import LocalspecError
from localspec.serve.answering import Answering, DirectSend, HttpLimits
from localspec.serve.desk import Desk
from localspec.serve.guard import OPEN_PAGE, CrossOrigin, HostGuard, KeyGuard
from localspec.serve.information import Information, Slots, page_routes
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


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How the server answers. `model`: the name that it gives itself.

    `origins`: whose pages may ask, beside those of this machine. `hosts`: names that it answers at,
    beside this machine's; None: any. `without`: of `PAGES`, those that it does not have.
    """

    model: str
    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    limits: HttpLimits = field(default_factory=HttpLimits)
    about: dict[str, Any] = field(default_factory=dict[str, Any])
    """What /v1/models tells of the model."""
    slot_folder: Path | None = None
    """Where sequences are saved on request."""
    aliases: tuple[str, ...] = ()
    """Other names of the model."""
    without: frozenset[str] = frozenset()
    hosts: tuple[str, ...] | None = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of the model's."""
        return (self.model, *self.aliases)


Written = Callable[[Problem], dict[str, Any]]


class Server:
    """`app` is the ASGI application."""

    def __init__(
        self, orders: Orders, desk: Desk, options: HttpOptions, resident: Resident | None = None
    ) -> None:
        protocols = (openai, llama, anthropic, responses)
        doors = [door for protocol in protocols for door in protocol.doors(orders)]
        self._written = {path: door.written for door in doors for path in door.paths}
        self._written[anthropic.COUNT] = anthropic_events.written
        answering = Answering(desk, options.names, options.limits)
        routes = Information(orders, desk, options.names, options.about, resident).routes()
        routes += Tokens(orders, options.limits.most_bytes).routes()
        routes += Slots(desk, options.slot_folder).routes()
        routes += page_routes(desk, options.model, orders.session.n_ctx, resident)
        routes += answering.replays.routes()
        routes += [route for door in doors for route in _routes(answering, door)]
        missing = {path for name in options.without for path in PAGES[name]}
        routes = [route for route in routes if getattr(route, "path", "") not in missing]
        routes += [Route(path, _not_here, methods=["GET", "POST"]) for path in missing - _PAGE]
        middleware = [Middleware(KeyGuard, keys=options.keys, written=self.written)]
        if resident:
            middleware.append(Middleware(HeldModel, resident=resident, written=self.written))
        middleware.insert(0, Middleware(CrossOrigin, origins=options.origins))
        middleware.insert(0, Middleware(HostGuard, names=options.hosts, written=self.written))
        handlers: Any = {
            HTTPException: self._no_such_page, LocalspecError: self._failed, Exception: self._bug,
            ClientDisconnect: _gone,
        }  # fmt: skip
        self.app = DirectSend(
            Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)
        )

    def written(self, path: str, problem: Problem) -> dict[str, Any]:
        """An error as the protocol at an address, or above it, writes it."""
        while path and path not in self._written:
            path = path.rpartition("/")[0]
        return self._written.get(path, Problem.as_openai)(problem)

    def _response(self, request: Request, problem: Problem) -> Response:
        document = self.written(request.url.path, problem)
        return JSONResponse(document, problem.status, problem.headers)

    def _no_such_page(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        told = {404: "there is no such page", 405: "this page takes another method"}
        sentence = f"{told.get(status, 'failed')}: {request.url.path}"
        return self._response(request, Problem(status, sentence))

    def _failed(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, LocalspecError)
        return self._response(request, problem_of(error))

    def _bug(self, request: Request, error: Exception) -> Response:
        return self._response(request, Problem(500, f"a bug in localspec ({error!r}): report it"))


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
