"""What the server tells of itself: its model, its health, its counts, what runs."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from localspec.serve.answering import check_model
from localspec.serve.desk import Desk
from localspec.serve.problem import BadRequestError, Problem


class Information:
    """GET handlers. `about` is what /v1/models tells of the model."""

    def __init__(self, desk: Desk, model: str, about: dict[str, Any]) -> None:
        self._desk, self._name = desk, model
        self._model = {"id": model, "object": "model", "owned_by": "localspec", **about}

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
        }
        return [Route(path, page, methods=["GET"]) for path, page in pages.items()]

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [self._model]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        check_model({"model": request.path_params["name"]}, self._name)
        return JSONResponse(self._model)

    async def health(self, request: Request) -> Response:
        """GET /health: 200 while requests are answered."""
        problem = self._desk.problem
        if problem:
            raise BadRequestError(Problem(503, problem, retry_s=1.0))
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
