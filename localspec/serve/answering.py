"""One request's way: its body, its order, what is heard of its replies, and the response.

A client that goes away ends its replies, also while they wait. An error is written as the protocol
writes it; in a stream that has begun it is an event.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from localspec.errors import LocalspecError
from localspec.serve.answer import ServedAnswer
from localspec.serve.desk import Desk
from localspec.serve.messages import END, Delta, Done, Event, Failed, Progress, Taken
from localspec.serve.order import Order
from localspec.serve.problem import BadRequestError, Problem, problem_of, refused
from localspec.serve.protocols.protocol import AnswerWriter, Door

PING_S = 15.0
"""Of silence in a stream: clients give up after minutes without a byte."""
MOST_BYTES = 32 << 20
"""Of a body."""


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """`wait_s`: in the queue. `most_bytes`: of a body. `ping_s`: of silence in a stream.

    `is_strict`: a request for another model is refused.
    """

    wait_s: float | None = None
    most_bytes: int = MOST_BYTES
    ping_s: float = PING_S
    is_strict: bool = False


class Answering:
    """Answers at the doors of all protocols; `model` is the name in the answers."""

    def __init__(self, desk: Desk, model: str, limits: HttpLimits) -> None:
        self._desk, self._model, self._limits = desk, model, limits

    async def answered(self, request: Request, door: Door) -> Response:
        """The response to a request."""
        body = await body_of(request, self._limits.most_bytes)
        if self._limits.is_strict:
            refuse_other_names(body, self._model)
        order = await run_in_threadpool(door.read, body)
        answer = ServedAnswer(order)
        writer = door.writer(answer, self._model)
        listening = _Listening(self._desk, order, self._limits.wait_s)
        if not order.is_stream:
            return await self._whole(request, listening, answer, writer)
        try:
            place, first = await listening.next() or (0, None)
        except asyncio.CancelledError:
            listening.close()
            raise
        if isinstance(first, Failed):
            listening.close()
            raise first.error
        assert isinstance(first, Taken), place
        events = self._events(listening, answer, writer)
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        return StreamingResponse(events, media_type="text/event-stream", headers=headers)

    async def _whole(
        self, request: Request, listening: "_Listening", answer: ServedAnswer, writer: AnswerWriter
    ) -> Response:
        gone = asyncio.create_task(_gone(request))
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

    async def _events(
        self, listening: "_Listening", answer: ServedAnswer, writer: AnswerWriter
    ) -> AsyncIterator[str]:
        try:
            for text in writer.opening():
                yield text
            async for found in _pinged(listening, self._limits.ping_s):
                if found is None:
                    yield writer.ping
                    continue
                place, event = found
                if isinstance(event, Failed):
                    yield writer.failed(problem_of(event.error))
                    return
                for text in writer.said(place, answer.add(place, event)):
                    yield text
            for text in writer.closing():
                yield text
        finally:
            listening.close()


class _Listening:
    """The events of an order's replies, for one request's task. Leaving it ends those that run."""

    def __init__(self, desk: Desk, order: Order, wait_s: float | None) -> None:
        self._desk, self._loop = desk, asyncio.get_running_loop()
        self._queue = asyncio.Queue[tuple[int, Event]]()
        self._open: dict[int, int] = {}
        for place, choice in enumerate(order.choices):
            id_ = desk.new_id()
            self._open[id_] = place
            desk.submit(choice.submit(id_, wait_s, order.wishes), self._hear)

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


async def _pinged(
    listening: _Listening, ping_s: float
) -> AsyncIterator[tuple[int, Progress | Delta | Done | Failed] | None]:
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


async def _collect(listening: _Listening, answer: ServedAnswer) -> None:
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


async def body_of(request: Request, most_bytes: int) -> Any:
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


def refuse_other_names(body: Any, name: str) -> None:
    """BadRequestError where another model is asked for."""
    wanted = body.get("model") if isinstance(body, dict) else None
    if wanted not in (None, "", name):
        sentence = f"there is no model {wanted!r}: this server has {name!r}"
        raise BadRequestError(Problem(404, sentence, "model", "model_not_found"))


def _too_long(most_bytes: int) -> LocalspecError:
    return BadRequestError(Problem(413, f"the body is longer than {most_bytes:,} bytes"))
