"""Sequences as llama.cpp's server names them: saved to a file, restored from one, erased.

All of it runs in the engine's thread, between two passes.
"""

import asyncio
from pathlib import Path
from time import perf_counter
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from localspec.engine.base import Context
from localspec.serve.asked import body_of
from localspec.serve.desk import Desk
from localspec.serve.messages import BusyError
from localspec.serve.problem import BadRequestError, Problem, refused
from localspec.serve.scheduler import Scheduler

MOST_BYTES = 65536
"""Of a body."""
LONGEST_NAME = 200
"""In bytes: a file is written under a longer name first, and 255 are the most that systems take."""
ACTIONS = ("save", "restore", "erase")


class Slots:
    """POST /slots/ID?action=...; files are in `folder`, and None are written without one."""

    def __init__(self, desk: Desk, folder: Path | None) -> None:
        self._desk, self._folder = desk, folder

    def routes(self) -> list[Route]:
        """The one address."""
        return [Route("/slots/{id:int}", self.act, methods=["POST"])]

    async def act(self, request: Request) -> Response:
        """Do it, when the pass that runs is over."""
        action, id_ = request.query_params.get("action"), request.path_params["id"]
        if action not in ACTIONS:
            raise refused(f"action {action!r} is none of {', '.join(ACTIONS)}", "action")
        path = None if action == "erase" else await self._path(request)
        started = perf_counter()
        future = self._desk.call(lambda scheduler: _done(scheduler, id_, action, path))
        found = await asyncio.wrap_future(future)
        timings = {} if path is None else {f"{action}_ms": 1e3 * (perf_counter() - started)}
        named = {} if path is None else {"filename": path.name, "timings": timings}
        return JSONResponse({"id_slot": id_, **named, **found})

    async def _path(self, request: Request) -> Path:
        if self._folder is None:
            sentence = "no files are written here: start the server with --slot-save-path"
            raise BadRequestError(Problem(501, sentence))
        body = await body_of(request, MOST_BYTES)
        name = body.get("filename") if isinstance(body, dict) else None
        if not _is_plain(name):
            raise refused(f"filename {name!r} is no plain name of a file", "filename")
        if len(str(name).encode()) > LONGEST_NAME:
            raise refused(f"filename {name!r} is longer than {LONGEST_NAME} bytes", "filename")
        path = self._folder / str(name)
        if path.is_dir():
            raise refused(f"filename {name!r} is that of a folder", "filename")
        return path


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
