"""The HTTP side: routes, keys, limits, streams. It knows the engine by messages alone.

A client that goes away ends its replies, also while they wait. Whatever goes wrong is an error in
OpenAI's form; in a stream that has begun it is an event.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from localspec.errors import LocalspecError
from localspec.serve.answer import AnswerDocument
from localspec.serve.desk import Desk
from localspec.serve.guard import KeyGuard
from localspec.serve.messages import END, Delta, Done, Event, Failed, Taken
from localspec.serve.order import Order, Orders
from localspec.serve.page import page_routes
from localspec.serve.problem import BadRequestError, Problem, problem_of, refused

PING_S = 15.0
"""Of silence in a stream: clients give up after minutes without a byte."""
MOST_BYTES = 32 << 20
"""Of a body."""


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How the server answers. `model`: the name that it gives itself. `wait_s`: in the queue."""

    model: str
    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    wait_s: float | None = None
    most_bytes: int = MOST_BYTES
    ping_s: float = PING_S
    about: dict[str, Any] = field(default_factory=dict[str, Any])
    """What /v1/models tells of the model."""


class _Listening:
    """The events of an order's replies, for one request's task. Leaving it ends those that run."""

    def __init__(self, desk: Desk, order: Order, wait_s: float | None) -> None:
        self._desk, self._loop = desk, asyncio.get_running_loop()
        self._queue = asyncio.Queue[tuple[int, Event]]()
        self._open: dict[int, int] = {}
        for place, choice in enumerate(order.choices):
            id_ = desk.new_id()
            self._open[id_] = place
            desk.submit(choice.submit(id_, wait_s), self._hear)

    def _hear(self, event: Event) -> None:
        """In the engine's thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (event.id, event))

    async def next(self) -> tuple[int, Event] | None:
        """The next event, with the place of its choice; None after the last one."""
        if not self._open:
            return None
        id_, event = await self._queue.get()
        place = self._open[id_]
        if isinstance(event, END):
            del self._open[id_]
        return place, event

    def close(self) -> None:
        """End what still runs."""
        for id_ in self._open:
            self._desk.abort(id_)
        self._open.clear()


class Server:
    """The handlers; `app` is the ASGI application."""

    def __init__(self, orders: Orders, desk: Desk, options: HttpOptions) -> None:
        self._orders, self._desk, self._options = orders, desk, options
        v1 = [
            ("/chat/completions", self.chat, "POST"),
            ("/completions", self.completion, "POST"),
            ("/models", self.models, "GET"),
        ]
        routes = [Route(p + path, f, methods=[m]) for path, f, m in v1 for p in ("/v1", "")]
        routes.append(Route("/v1/models/{name:path}", self.model, methods=["GET"]))
        routes += [Route(path, self.health, methods=["GET"]) for path in ("/health", "/v1/health")]
        routes += [Route("/metrics", self.metrics), Route("/slots", self.slots)]
        routes += page_routes(desk, options.model, orders.session.n_ctx)
        middleware = [Middleware(KeyGuard, keys=options.keys)]
        if options.origins:
            cors = Middleware(
                CORSMiddleware, allow_origins=options.origins, allow_methods=["*"],
                allow_headers=["*"],
            )  # fmt: skip
            middleware.insert(0, cors)
        self.app = Starlette(
            routes=routes,
            middleware=middleware,
            exception_handlers={
                HTTPException: _no_such_page,
                LocalspecError: _failed,
                Exception: _bug,
            },
        )

    # what is asked

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        return await self._answered(request, self._orders.chat)

    async def completion(self, request: Request) -> Response:
        """POST /v1/completions."""
        return await self._answered(request, self._orders.completion)

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [self._model]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        name = request.path_params["name"]
        if name != self._options.model:
            sentence = f"there is no model {name!r}: this server has {self._options.model!r}"
            return _response(Problem(404, sentence, "model", "model_not_found"))
        return JSONResponse(self._model)

    @property
    def _model(self) -> dict[str, Any]:
        head = {"id": self._options.model, "object": "model", "owned_by": "localspec"}
        return {**head, **self._options.about}

    async def health(self, request: Request) -> Response:
        """GET /health: 200 while requests are answered."""
        problem = self._desk.problem
        if problem:
            return _response(Problem(503, problem, retry_s=1.0))
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        scheduler = self._desk.scheduler
        text = self._desk.metrics.text(len(scheduler.running), len(scheduler.waiting))
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def slots(self, request: Request) -> Response:
        """GET /slots: how many tokens each running request has, and what waits."""
        scheduler = self._desk.scheduler
        running = [
            {"id": job.id, "n_prompt": job.account.n_prompt, "n_tokens": job.generation.n_tokens}
            for job in tuple(scheduler.running)
        ]
        return JSONResponse({"running": running, "n_waiting": len(scheduler.waiting)})

    # how it is answered

    async def _answered(self, request: Request, read: Callable[[Any], Order]) -> Response:
        body = await _body(request, self._options.most_bytes)
        order = await run_in_threadpool(read, body)
        answer = AnswerDocument(order, self._options.model)
        listening = _Listening(self._desk, order, self._options.wait_s)
        if not order.is_stream:
            return await self._whole(request, listening, answer)
        try:
            place, first = await listening.next() or (0, None)
        except asyncio.CancelledError:
            listening.close()
            raise
        if isinstance(first, Failed):
            listening.close()
            raise first.error
        assert isinstance(first, Taken), place
        events = self._events(listening, answer)
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _whole(
        self, request: Request, listening: _Listening, answer: AnswerDocument
    ) -> Response:
        gone = asyncio.create_task(_gone(request))
        done = asyncio.create_task(_collect(listening, answer))
        try:
            await asyncio.wait({gone, done}, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                return Response(status_code=499)  # nobody reads it
            await done
            return JSONResponse(answer.document)
        finally:
            listening.close()
            gone.cancel()
            done.cancel()

    async def _events(self, listening: _Listening, answer: AnswerDocument) -> AsyncIterator[str]:
        try:
            async for found in _pinged(listening, self._options.ping_s):
                if found is None:
                    yield ": ping\n\n"
                    continue
                place, event = found
                if isinstance(event, Failed):
                    yield _event(problem_of(event.error).document)
                    return
                for chunk in answer.chunks(place, event):
                    yield _event(chunk)
            for chunk in answer.last_chunks:
                yield _event(chunk)
            yield "data: [DONE]\n\n"
        finally:
            listening.close()


async def _pinged(
    listening: _Listening, ping_s: float
) -> AsyncIterator[tuple[int, Delta | Done | Failed] | None]:
    """The events that say something; None after so long a silence."""
    pending = asyncio.create_task(listening.next())
    try:
        while True:
            await asyncio.wait({pending}, timeout=ping_s)
            if not pending.done():
                yield None
                continue
            found = pending.result()
            if found is None:
                return
            place, event = found
            if not isinstance(event, Taken):
                yield place, event
            pending = asyncio.create_task(listening.next())
    finally:
        pending.cancel()


async def _collect(listening: _Listening, answer: AnswerDocument) -> None:
    """All events of an order. Raises what one of its replies failed of."""
    while (found := await listening.next()) is not None:
        place, event = found
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Delta | Done):
            answer.add(place, event)


async def _gone(request: Request) -> None:
    """Until the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _event(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


async def _body(request: Request, most_bytes: int) -> Any:
    """The JSON of a body. BadRequestError for one that is none, or too long."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > most_bytes:
            raise _too_long(most_bytes)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise refused(f"the body is no JSON: {error}") from error


def _too_long(most_bytes: int) -> LocalspecError:
    return BadRequestError(Problem(413, f"the body is longer than {most_bytes:,} bytes"))


def _response(problem: Problem) -> Response:
    return JSONResponse(problem.document, problem.status, problem.headers)


def _no_such_page(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    told = {404: "there is no such page", 405: "this page takes another method"}
    return _response(Problem(status, f"{told.get(status, 'failed')}: {request.url.path}"))


def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, LocalspecError)
    return _response(problem_of(error))


def _bug(request: Request, error: Exception) -> Response:
    return _response(Problem(500, f"a bug in localspec ({error!r}): report it"))
