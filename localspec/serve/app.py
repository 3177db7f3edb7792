"""The ASGI application: addresses, keys, other origins, and errors as each protocol writes them.

Here are also the pages that answer without the engine: texts to tokens and back, messages to a
prompt. What this server does not do has its page, too: a sentence with status 501.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from localspec.dialogue.template import TemplateError
from localspec.engine.vocabulary import spelled
from localspec.errors import LocalspecError
from localspec.serve.answering import Answering, DirectSend, HttpOptions
from localspec.serve.engine_thread import EngineThread
from localspec.serve.guard import OPEN_PAGE, CrossOrigin, HostGuard, KeyGuard
from localspec.serve.information import Information
from localspec.serve.order import Orders, text_of
from localspec.serve.problem import BadRequestError, Problem, problem_of, refused
from localspec.serve.protocols import anthropic, llama, openai, responses
from localspec.serve.request_body import body_of, checked, flag
from localspec.serve.resident import HeldModel, Resident
from localspec.serve.texts import checked_id, utf8

PAGES = {
    "metrics": ("/metrics",),
    "slots": ("/slots", "/slots/{id:int}"),
    "page": (OPEN_PAGE, "/status"),
}
"""What a server may do without, by its addresses."""
_PAGE = {OPEN_PAGE, "/status"}
"""Of these nothing is said."""
EMBEDDINGS = "this server makes no embeddings: serve an embedding model with llama-server"
RANKS = "this server ranks nothing: serve a reranking model with llama-server"
ASKS = "add_generation_prompt"
NOT_HERE = {
    "/v1/embeddings": EMBEDDINGS, "/embeddings": EMBEDDINGS, "/embedding": EMBEDDINGS,
    "/v1/rerank": RANKS, "/rerank": RANKS, "/v1/reranking": RANKS, "/reranking": RANKS,
    "/v1/audio/transcriptions": "this server reads text, and no audio",
    "/v1/images/generations": "this server makes text, and no images",
}  # fmt: skip


Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """`app` is the ASGI application."""

    def __init__(
        self,
        orders: Orders,
        engine_thread: EngineThread,
        options: HttpOptions,
        resident: Resident | None = None,
    ) -> None:
        protocols = (openai, llama, anthropic, responses)
        doors = [door for protocol in protocols for door in protocol.doors(orders)]
        self._written = {path: door.written for door in doors for path in door.paths}
        answering = Answering(engine_thread, options)
        routes = Information(orders, engine_thread, options, resident).routes()
        routes += Tokens(orders, options.most_bytes).routes()
        routes += answering.replays.routes()
        for door in doors:
            answer: Handler = partial(answering.answered, door=door)
            routes += [Route(path, answer, methods=["POST"]) for path in door.paths]
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


class Tokens:
    """POST handlers; `most_bytes` of a body."""

    def __init__(self, orders: Orders, most_bytes: int) -> None:
        self._orders, self._most_bytes = orders, most_bytes

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        pages = {
            "/tokenize": self._tokenized,
            "/detokenize": self._detokenized,
            "/apply-template": self._templated,
            anthropic.COUNT: self._counted_messages,
            "/v1/chat/completions/input_tokens": self._counted,
            "/chat/completions/input_tokens": self._counted,
            "/v1/responses/input_tokens": self._counted_items,
        }
        routes = [Route(path, self._page(make), methods=["POST"]) for path, make in pages.items()]
        missing = [Route(path, _missing, methods=["POST"]) for path in NOT_HERE]
        return [*routes, *missing]

    def _page(self, make: Callable[[Any], Any]) -> Handler:
        async def page(request: Request) -> Response:
            body = await body_of(request, self._most_bytes)
            return JSONResponse(await run_in_threadpool(make, body))

        return page

    def _tokenized(self, body: Any) -> dict[str, Any]:
        given = checked(body, frozenset({"content", "add_special", "parse_special", "with_pieces"}))
        ids = self._orders.session.target.vocabulary.tokenize(
            utf8(given.get("content", ""), "content"),
            add_special=flag(given, "add_special"),
            parse_special=flag(given, "parse_special", default=True),
        )
        if not flag(given, "with_pieces"):
            return {"tokens": ids}
        return {"tokens": [{"id": i, "piece": self._piece(i)} for i in ids]}

    def _piece(self, token: int) -> str | list[int]:
        """A token's text, or its bytes where they are a part of a character."""
        piece = spelled(self._orders.session.target.vocabulary, token)
        try:
            return piece.decode()
        except UnicodeDecodeError:
            return list(piece)

    def _detokenized(self, body: Any) -> dict[str, Any]:
        given = checked(body, frozenset({"tokens"}))
        ids = given.get("tokens", [])
        if not isinstance(ids, list):
            raise refused("tokens is no list of ids", "tokens")
        vocabulary = self._orders.session.target.vocabulary
        checked_ids = [checked_id(each, vocabulary.n_tokens, "tokens") for each in ids]
        return {"content": text_of(checked_ids, vocabulary)}

    def _counted(self, body: Any) -> dict[str, Any]:
        n = len(self._orders.chat_ids(self._orders.asked(self._orders.given(body))))
        return {"object": "response.input_tokens", "input_tokens": n}

    def _counted_items(self, body: Any) -> dict[str, Any]:
        return self._counted(responses.chat_of(body))

    def _counted_messages(self, body: Any) -> dict[str, Any]:
        counted = self._counted(anthropic.chat_of(body, is_answered=False))
        return {"input_tokens": counted["input_tokens"]}

    def _templated(self, body: Any) -> dict[str, Any]:
        given = self._orders.given(body)
        asks = flag(given, ASKS, default=True)
        asked = self._orders.asked({k: v for k, v in given.items() if asks or k != ASKS})
        template = asked.prompts.template
        if asks or template is None:
            return {"prompt": asked.prompt.clean}
        messages = [asked.prompt.plain(each) for each in asked.prompt.messages]
        try:
            return {"prompt": template.render(messages, add_generation_prompt=False)}
        except TemplateError as error:
            raise refused(f"the chat template refuses this ({error.reason})", "messages") from error


async def _not_here(request: Request) -> Response:
    name = request.url.path.split("/")[1]
    sentence = f"this server was started without {name}: leave --without {name} out to have it"
    raise BadRequestError(Problem(501, sentence))


async def _gone(request: Request, error: Exception) -> Response:
    """Who hung up in the middle of a body reads no answer."""
    return Response(status_code=499)


async def _missing(request: Request) -> Response:
    raise BadRequestError(Problem(501, NOT_HERE[request.url.path]))
