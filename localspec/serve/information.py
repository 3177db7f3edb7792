"""What the server tells of itself: its model, its health, its counts, what runs, and a page at `/`.

Its sequences are llama.cpp's slots: saved to a file, restored from one, erased. All of that runs in
the engine's thread, between two passes.

The page draws the figures at `/status`. It loads nothing from anywhere else, and the browser is
told to let it load nothing: styles and script are in it, and their digests are all that its policy
admits.
"""

import asyncio
import time
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from time import perf_counter
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from localspec.engine.base import Context
from localspec.serve.answering import HttpOptions, refuse_other_names
from localspec.serve.engine_thread import EngineThread
from localspec.serve.guard import OPEN_PAGE, CasedName
from localspec.serve.messages import BusyError
from localspec.serve.order import Orders
from localspec.serve.problem import BadRequestError, Problem, refused
from localspec.serve.protocols.llama import settings_of
from localspec.serve.protocols.openai import FINGERPRINT
from localspec.serve.queue import Job
from localspec.serve.request_body import body_of
from localspec.serve.resident import Resident
from localspec.serve.scheduler import Scheduler

MOST_NAMED_BYTES = 65536
"""Of a body."""
LONGEST_NAME = 200
"""In bytes: a file is written under a longer name first, and 255 are the most that systems take."""
ACTIONS = ("save", "restore", "erase")


class Information:
    """Handlers of all these pages."""

    def __init__(
        self,
        orders: Orders,
        engine_thread: EngineThread,
        options: HttpOptions,
        resident: Resident | None = None,
    ) -> None:
        self._orders, self._engine_thread, self._options, self._resident = (
            orders,
            engine_thread,
            options,
            resident,
        )
        self._n_ctx, names = orders.session.n_ctx, options.names
        head = {"id": options.model, "aliases": names, "object": "model"}
        self._model = {**head, "owned_by": "localspec", **options.about}
        self._props = self._known()

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        pages = {
            "/v1/models": self.models,
            "/models": self.models,
            "/v1/models/{name:path}": self.model,
            "/health": self.health,
            "/v1/health": self.health,
            "/metrics": self.metrics,
            "/slots": self.slots,
            "/props": self.props,
            OPEN_PAGE: self.page,
            "/status": self.status,
        }
        routes = [Route(path, page, methods=["GET"]) for path, page in pages.items()]
        return [*routes, Route("/slots/{id:int}", self.act, methods=["POST"])]

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [self._model], "models": [self._listed]})

    @property
    def _listed(self) -> dict[str, Any]:
        """As Ollama's clients read it, which llama.cpp's server has beside OpenAI's."""
        named = {"name": self._options.model, "model": self._options.model, "type": "model"}
        details = {"format": "gguf", "family": "", "parameter_size": "", "quantization_level": ""}
        return {**named, "capabilities": ["completion"], "details": details}

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        refuse_other_names({"model": request.path_params["name"]}, self._options.names)
        return JSONResponse(self._model)

    async def health(self, request: Request) -> Response:
        """GET /health: 200 while requests are answered."""
        problem = self._engine_thread.problem
        if problem:
            raise BadRequestError(Problem(503, problem, retry_s=1.0))
        return JSONResponse({"status": "ok"})

    async def metrics(self, request: Request) -> Response:
        """GET /metrics."""
        scheduler = self._engine_thread.scheduler
        text = self._engine_thread.metrics.text(len(scheduler.running), len(scheduler.waiting))
        began = str(int(time.time() - (self._engine_thread.clock() - self._engine_thread.began)))
        response = PlainTextResponse(text, media_type="text/plain; version=0.0.4")
        name = CasedName(b"Process-Start-Time-Unix")
        response.raw_headers.append((name, began.encode()))
        return response

    async def slots(self, request: Request) -> Response:
        """GET /slots: each sequence, and the reply that it is busy with."""
        jobs = tuple(self._engine_thread.scheduler.running)
        by_context = {id(job.slot.context): job for job in jobs if job.slot}
        contexts = self._engine_thread.scheduler.contexts
        is_full = all(id(context) in by_context for context in contexts)
        if is_full and request.query_params.get("fail_on_no_slot"):
            raise BadRequestError(Problem(503, "no slot is free: try again later", retry_s=1.0))
        return JSONResponse(
            [
                {"id": i, "n_ctx": self._n_ctx, **_slot(context, by_context)}
                for i, context in enumerate(contexts)
            ]
        )

    async def props(self, request: Request) -> Response:
        """GET /props: how replies are made by default, and what the model is."""
        return JSONResponse({**self._props, "is_sleeping": not self._is_loaded})

    @property
    def _is_loaded(self) -> bool:
        return self._resident is None or self._resident.is_loaded

    def _known(self) -> dict[str, Any]:
        """Of a model that is loaded; the next time it is loaded this is the same."""
        session = self._orders.session
        vocabulary = session.target.vocabulary
        template = session.prompts.template
        params = settings_of(self._orders.usual, session)
        params["seed"] = self._orders.defaults.get("seed", -1)
        return {
            "default_generation_settings": {"n_ctx": session.n_ctx, "params": params},
            "total_slots": self._engine_thread.scheduler.n_sequences,
            "model_alias": self._options.model,
            "model_path": str(session.plan.target.model),
            "modalities": {"vision": False, "audio": False},
            "chat_template": template.source if template else "",
            "bos_token": vocabulary.bos_text,
            "eos_token": vocabulary.eos_text,
            "build_info": FINGERPRINT,
        }

    async def act(self, request: Request) -> Response:
        """POST /slots/ID?action=...: done when the pass that runs is over."""
        action, id_ = request.query_params.get("action"), request.path_params["id"]
        if action not in ACTIONS:
            raise refused(f"action {action!r} is none of {', '.join(ACTIONS)}", "action")
        path = None if action == "erase" else await self._path(request)
        started = perf_counter()
        future = self._engine_thread.call(lambda scheduler: _done(scheduler, id_, action, path))
        found = await asyncio.wrap_future(future)
        timings = {} if path is None else {f"{action}_ms": 1e3 * (perf_counter() - started)}
        named = {} if path is None else {"filename": path.name, "timings": timings}
        return JSONResponse({"id_slot": id_, **named, **found})

    async def _path(self, request: Request) -> Path:
        if self._options.slot_folder is None:
            sentence = "no files are written here: start the server with --slot-save-path"
            raise BadRequestError(Problem(501, sentence))
        body = await body_of(request, MOST_NAMED_BYTES)
        name = body.get("filename") if isinstance(body, dict) else None
        if not _is_plain(name):
            raise refused(f"filename {name!r} is no plain name of a file", "filename")
        if len(str(name).encode()) > LONGEST_NAME:
            raise refused(f"filename {name!r} is longer than {LONGEST_NAME} bytes", "filename")
        path = self._options.slot_folder / str(name)
        if path.is_dir():
            raise refused(f"filename {name!r} is that of a folder", "filename")
        return path

    async def page(self, request: Request) -> Response:
        """GET /."""
        html, policy = _page()
        headers = {"content-security-policy": policy, "cache-control": "no-cache"}
        return HTMLResponse(html, headers=headers)

    async def status(self, request: Request) -> Response:
        """GET /status: what the page draws."""
        model = {"model": self._options.model, "n_ctx": self._n_ctx, "is_loaded": self._is_loaded}
        document = {**model, **status_of(self._engine_thread)}
        return JSONResponse(document, headers={"cache-control": "no-store"})


def _slot(context: Context, by_context: Mapping[int, Job]) -> dict[str, Any]:
    job = by_context.get(id(context))
    n_held = len(context.tokens)
    if job is None:
        return {"is_processing": False, "id_task": -1, "n_held": n_held}
    generation = job.generation
    longest = generation.limits.max_tokens
    n_said = generation.n_tokens
    n_remain = -1 if longest is None else longest - n_said
    said = {"has_next_token": not generation.is_finished, "n_remain": n_remain, "n_decoded": n_said}
    return {
        "is_processing": True,
        "id_task": job.id,
        "n_held": n_held,
        "n_prompt_tokens": generation.n_prompt,
        "n_prompt_tokens_cache": job.account.n_cached,
        "next_token": [said],
    }


def _is_plain(name: Any) -> bool:
    """It must not lead out of the folder."""
    is_name = isinstance(name, str) and bool(name) and name.isprintable()
    return is_name and not name.startswith(".") and not set(name) & set('/\\:<>"|?*')


def _done(scheduler: Scheduler, id_: int, action: str, path: Path | None) -> dict[str, Any]:
    """In the engine's thread."""
    if not 0 <= id_ < scheduler.n_sequences:
        raise refused(f"slot {id_} is none of 0 to {scheduler.n_sequences - 1}", "id_slot")
    context = scheduler.contexts[id_]
    if any(job.slot and job.slot.context is context for job in scheduler.running):
        raise BusyError(f"slot {id_} answers a request: try again later", 1.0)
    if path is None:
        n_erased = len(context.tokens)
        context.go_back(0)
        return {"n_erased": n_erased}
    if action == "save":
        return _saved(context, path)
    found = _restored(context, path)
    scheduler.keep(context)
    return found


def _saved(context: Context, path: Path) -> dict[str, Any]:
    context.save(path)
    return {"n_saved": len(context.tokens), "n_written": path.stat().st_size}


def _restored(context: Context, path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise refused(f"there is no file {path.name!r}: save a slot first", "filename")
    if not context.restore(path):
        sentence = f"{path.name!r} is of another model or of other settings, or finds no room"
        raise refused(sentence, "filename")
    return {"n_restored": len(context.tokens), "n_read": path.stat().st_size}


def status_of(engine_thread: EngineThread) -> dict[str, Any]:
    """Who is here now, and the curves of the last minutes."""
    scheduler, now = engine_thread.scheduler, engine_thread.clock()
    return {
        "problem": engine_thread.problem,
        "users": scheduler.n_sequences,
        "running": len(scheduler.running),
        "waiting": len(scheduler.waiting),
        "uptime_s": now - engine_thread.began,
        "requests_done": engine_thread.metrics.n_done,
        "curves": engine_thread.recent.curves(now),
    }


@cache
def _page() -> tuple[str, str]:
    """The page, and what a browser lets it do."""
    html = files("localspec.serve").joinpath("page.html").read_text(encoding="utf-8")
    script, style = (_digest(html, tag) for tag in ("script", "style"))
    return html, (
        f"default-src 'none'; script-src '{script}'; style-src '{style}'; connect-src 'self';"
        " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(html: str, tag: str) -> str:
    text = html.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()
