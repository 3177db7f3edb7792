"""One request's way: its body, its order, what is heard of its replies, and the response.

A client that goes away ends its replies, also while they wait. An error is written as the protocol
writes it; in a stream that has begun it is an event.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from localspec.serve.answer import ServedAnswer
from localspec.serve.engine_thread import EngineThread
from localspec.serve.listening import Heard, Listening, LoopBell, hung_up
from localspec.serve.messages import Delta, Done, Failed, Taken
from localspec.serve.problem import BadRequestError, Problem, problem_of, refused
from localspec.serve.protocols import AnswerWriter, Door
from localspec.serve.replays import HEADER, Replay, Replays, ReplayStream
from localspec.serve.request_body import MOST_BYTES, body_of

PING_S = 15.0
"""Of silence in a stream: clients give up after minutes without a byte."""


_SEND = "localspec.send"


class DirectSend:
    """ASGI middleware, the outermost: the server's own `send` goes along, because a stream has a
    part for each token, and none of the others looks at it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_SEND] = send
        await self._app(scope, receive, send)


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How the server answers. `model`: the name that it gives itself; `aliases`: other ones.

    `origins`: whose pages may ask, beside those of this machine. `hosts`: names that it answers at,
    beside this machine's; None: any. `without`: of `PAGES`, those that it does not have.
    `wait_s`: in the queue. `most_bytes`: of a body. `ping_s`: of silence in a stream. `is_strict`:
    a request for another model is refused.
    """

    model: str
    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict[str, Any])
    """What /v1/models tells of the model."""
    slot_folder: Path | None = None
    """Where sequences are saved on request."""
    aliases: tuple[str, ...] = ()
    without: frozenset[str] = frozenset()
    hosts: tuple[str, ...] | None = ()
    wait_s: float | None = None
    most_bytes: int = MOST_BYTES
    ping_s: float = PING_S
    is_strict: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All of the model's."""
        return (self.model, *self.aliases)


class Answering:
    """Answers at the doors of all protocols."""

    def __init__(self, engine_thread: EngineThread, options: HttpOptions) -> None:
        self._engine_thread, self._options = engine_thread, options
        self._bell: LoopBell | None = None
        self.replays = Replays()

    async def answered(self, request: Request, door: Door) -> Response:
        """The response to a request."""
        body = await body_of(request, self._options.most_bytes)
        if self._options.is_strict:
            refuse_other_names(body, self._options.names, is_needed=door.names_model)
        order = await run_in_threadpool(door.read, body)
        answer = ServedAnswer(order)
        writer = door.writer(answer, self._options.model)
        silence_s = self._options.ping_s if order.is_stream else None
        self._bell = self._bell or LoopBell()
        wait_s = self._options.wait_s
        listening = Listening(self._engine_thread, self._bell, order, wait_s, silence_s)
        if not order.is_stream:
            return await self._whole(request, listening, answer, writer)
        try:
            await listening.admitted()
        except BaseException:
            listening.close()
            raise
        stream = EventStream(listening, answer, writer)
        key = request.headers.get(HEADER)
        return (
            ReplayStream(self.replays.begin(key, stream.fill, listening.close)) if key else stream
        )

    async def _whole(
        self, request: Request, listening: Listening, answer: ServedAnswer, writer: AnswerWriter
    ) -> Response:
        gone = asyncio.create_task(hung_up(request.receive))
        done = asyncio.create_task(_collect(listening, answer))
        try:
            await asyncio.wait({gone, done}, return_when=asyncio.FIRST_COMPLETED)
            if not done.done():
                return Response(status_code=499)  # nobody reads it
            await done
            return JSONResponse(writer.document)
        finally:
            listening.close()
            gone.cancel()
            done.cancel()


class EventStream(Response):
    """A stream of events that has begun; who hangs up ends its replies."""

    media_type = "text/event-stream"

    def __init__(self, listening: Listening, answer: ServedAnswer, writer: AnswerWriter) -> None:
        self._listening, self._answer, self._writer = listening, answer, writer
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""
        listening = self._listening
        gone = asyncio.create_task(hung_up(receive))
        gone.add_done_callback(lambda _: listening.close())
        try:
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            await self._body(scope.get(_SEND, send))
            await send({"type": "http.response.body", "body": b""})
        except OSError:
            pass  # it hung up while something was sent
        finally:
            listening.close()
            gone.cancel()

    async def fill(self, replay: Replay) -> None:
        """Write all of it, whoever reads it."""
        try:
            await self._body(replay.take)
        finally:
            self._listening.close()

    async def _body(self, send: Send) -> None:
        listening, writer = self._listening, self._writer
        text = "".join(writer.opening())
        while True:
            if text:
                part = {"type": "http.response.body", "body": text.encode(), "more_body": True}
                await send(part)
            if listening.is_over:
                return
            heard = await listening.next()
            text = self._text(heard) if heard or listening.is_over else writer.ping

    def _text(self, heard: Heard) -> str:
        """Of events, and of the end behind the last of them."""
        texts: list[str] = []
        for place, event in heard:
            if isinstance(event, Failed):
                self._listening.close()
                return "".join([*texts, self._writer.failed(problem_of(event.error))])
            if not isinstance(event, Taken):
                texts += self._writer.said(place, self._answer.add(place, event))
        if heard and self._listening.is_over:
            texts += self._writer.closing()
        return "".join(texts)


async def _collect(listening: Listening, answer: ServedAnswer) -> None:
    """All events of an order. Raises what one of its replies failed of."""
    while not listening.is_over:
        for place, event in await listening.next():
            if isinstance(event, Failed):
                raise event.error
            if isinstance(event, Delta | Done):
                answer.add(place, event)


def refuse_other_names(body: Any, names: Sequence[str], *, is_needed: bool = False) -> None:
    """BadRequestError where another model is asked for, or none where one `is_needed`."""
    wanted = body.get("model") if isinstance(body, dict) else None
    if wanted in (None, "") and is_needed:
        raise refused(f"model is missing: this server has {names[0]!r}", "model")
    if wanted not in (None, "", *names):
        sentence = f"there is no model {wanted!r}: this server has {names[0]!r}"
        raise BadRequestError(Problem(404, sentence, "model", "model_not_found"))
