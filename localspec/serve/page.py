"""The page at `/`, and the figures that it draws at `/status`.

It loads nothing from anywhere else, and the browser is told to let it load nothing: styles and
script are in it, and their digests are all that its policy admits.
"""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from localspec.serve.desk import Desk
from localspec.serve.resident import Resident

OPEN_PAGE = "/"
"""It has nothing of anybody's in it, and asks for the key that all else wants."""


def page_routes(desk: Desk, name: str, n_ctx: int, resident: Resident | None = None) -> list[Route]:
    """For a server whose model has that name; `n_ctx`: tokens that each user's context holds."""

    async def page(request: Request) -> HTMLResponse:
        html, policy = _page()
        headers = {"content-security-policy": policy, "cache-control": "no-cache"}
        return HTMLResponse(html, headers=headers)

    async def status(request: Request) -> JSONResponse:
        is_loaded = resident is None or resident.is_loaded
        about = {"model": name, "n_ctx": n_ctx, "is_loaded": is_loaded}
        return JSONResponse({**about, **status_of(desk)}, headers={"cache-control": "no-store"})

    return [
        Route(OPEN_PAGE, page, methods=["GET"]),
        Route("/status", status, methods=["GET"]),
    ]


def status_of(desk: Desk) -> dict[str, Any]:
    """Who is here now, and the curves of the last minutes."""
    scheduler, now = desk.scheduler, desk.clock()
    return {
        "problem": desk.problem,
        "users": scheduler.n_sequences,
        "running": len(scheduler.running),
        "waiting": len(scheduler.waiting),
        "uptime_s": now - desk.began,
        "requests_done": desk.metrics.n_done,
        "curves": desk.recent.curves(now),
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
