"""Streams that a client can come back to: after a lost connection, or a page that was loaded again.

A request with the header X-Conversation-Id goes on when its client has gone, and its bytes are kept
for whoever asks for them, from any offset on. These are llama.cpp's addresses: GET and DELETE
/v1/stream?conv_id=ID, and POST /v1/streams/lookup. All of it runs in the event loop's thread.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from localspec.serve.listening import hung_up
from localspec.serve.problem import BadRequestError, Problem, refused
from localspec.serve.request_body import MOST_BYTES, body_of

HEADER = "x-conversation-id"
MOST_KEPT_BYTES = 4 << 20
"""Of one stream; the first ones are dropped."""
KEPT_S = 300.0
"""After its end."""
MOST_KEPT = 64
"""Streams that have ended."""
MODEL_MARK = "::"
"""Front ends put the model's name behind it."""


class Replay:
    """The bytes of one stream, and whoever waits for more; `cancel` ends its reply."""

    def __init__(self, cancel: Callable[[], None]) -> None:
        self.cancel = cancel
        self.began, self.ended = int(time.time()), 0
        self.n_dropped = 0
        self._kept = bytearray()
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def n_bytes(self) -> int:
        """All that there were."""
        return self.n_dropped + len(self._kept)

    async def take(self, message: Message) -> None:
        """As ASGI's `send`: keep a part of the body."""
        self._kept += message["body"]
        surplus = max(0, len(self._kept) - MOST_KEPT_BYTES)
        del self._kept[:surplus]
        self.n_dropped += surplus
        self._wake()

    def end(self) -> None:
        """Nothing more comes."""
        self.ended = int(time.time())
        self._wake()

    async def after(self, offset: int) -> bytes:
        """What follows `offset`, as soon as there is something; empty at the end, and where it was
        dropped."""
        while offset >= self.n_bytes and not self.ended:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        return bytes(self._kept[offset - self.n_dropped :]) if offset >= self.n_dropped else b""

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class ReplayStream(Response):
    """A stream from `offset` on. Who hangs up ends nothing but this reading."""

    media_type = "text/event-stream"

    def __init__(self, replay: Replay, offset: int = 0) -> None:
        self._replay, self._offset = replay, offset
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-cache", "x-accel-buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""
        reading = asyncio.create_task(self._read(send))
        gone = asyncio.create_task(hung_up(receive))
        try:
            await asyncio.wait({reading, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            gone.cancel()

    async def _read(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        while part := await self._replay.after(self._offset):
            self._offset += len(part)
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if self._offset >= self._replay.n_dropped:  # else it is cut off, and its client sees that
            await send({"type": "http.response.body", "body": b""})


class Replays:
    """By conversation, one each: the next request of a conversation takes the place of the last."""

    def __init__(self) -> None:
        self._known: dict[str, Replay] = {}
        self._tasks = set[asyncio.Task[None]]()

    def begin(
        self, key: str, fill: Callable[[Replay], Awaitable[None]], cancel: Callable[[], None]
    ) -> Replay:
        """A stream that `fill` writes to its end."""
        self.drop(key)
        self._forget()
        replay = self._known[key] = Replay(cancel)

        async def filled() -> None:
            try:
                await fill(replay)
            finally:
                replay.end()

        task = asyncio.create_task(filled())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return replay

    def drop(self, key: str) -> None:
        """End it, and forget it."""
        replay = self._known.pop(key, None)
        if replay:
            replay.cancel()

    def routes(self) -> list[BaseRoute]:
        """Of llama.cpp's addresses."""
        return [
            Route("/v1/stream", self._read, methods=["GET"]),
            Route("/v1/stream", self._stop, methods=["DELETE"]),
            Route("/v1/streams/lookup", self._lookup, methods=["POST"]),
        ]

    async def _read(self, request: Request) -> Response:
        self._forget()
        replay = self._known.get(_key(request))
        if replay is None:
            raise BadRequestError(Problem(404, "this stream is not known, or over for too long"))
        asked = request.query_params.get("from", "0")
        if not asked.isdecimal():
            raise refused(f"from {asked!r} is no number of bytes", "from")
        if int(asked) < replay.n_dropped:
            sentence = f"from {asked}: the first {replay.n_dropped:,} bytes are dropped"
            raise refused(sentence, "from")
        return ReplayStream(replay, int(asked))

    async def _stop(self, request: Request) -> Response:
        self.drop(_key(request))
        return Response(status_code=204)

    async def _lookup(self, request: Request) -> Response:
        self._forget()
        try:
            asked = (await body_of(request, MOST_BYTES))["conversation_ids"]
        except (KeyError, TypeError) as error:
            raise refused("conversation_ids is missing: send a list of them") from error
        if not isinstance(asked, list):
            raise refused("conversation_ids is no list", "conversation_ids")
        wanted = {each for each in asked if isinstance(each, str) and each}
        found = [_told(key, replay) for key, replay in self._known.items()
                 if key in wanted or key.partition(MODEL_MARK)[0] in wanted]  # fmt: skip
        return JSONResponse(found)

    def _forget(self) -> None:
        """Those that are over for long, and the first of too many."""
        ended = [(key, replay) for key, replay in self._known.items() if replay.ended]
        ended.sort(key=lambda one: one[1].ended)
        latest = time.time() - KEPT_S
        for i, (key, replay) in enumerate(ended):
            if replay.ended < latest or i < len(ended) - MOST_KEPT:
                del self._known[key]


def _key(request: Request) -> str:
    key = request.query_params.get("conv_id", "")
    if not key:
        raise refused("conv_id is missing: name the conversation", "conv_id")
    return key


def _told(key: str, replay: Replay) -> dict[str, Any]:
    return {
        "conversation_id": key,
        "is_done": bool(replay.ended),
        "total_bytes": replay.n_bytes,
        "started_at": replay.began,
        "completed_at": replay.ended,
    }
