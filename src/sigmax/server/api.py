"""The API: what is asked and answered, in JSON, and the page."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any, NoReturn

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import sigmax
from sigmax.calibration.rules import RULES
from sigmax.candidates.store import UnavailableError
from sigmax.errors import nearest
from sigmax.server.items import Items, queries_of
from sigmax.server.messages import (
    Error,
    ExplainAnswer,
    ExplainRequest,
    Health,
    MatchAnswer,
    MatchRequest,
    ModelsAnswer,
    RateRequest,
)
from sigmax.server.metrics import Metrics
from sigmax.server.served import ExplainWork, Full, MatchWork, Served, Work

if TYPE_CHECKING:
    from sigmax.server.rated import ServedScores

__all__ = ["OPEN_PATHS", "make_api"]

log = logging.getLogger("sigmax.server")

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
#: Paths that tell nothing and cost nothing.
OPEN_PATHS = frozenset({*PAGE, "/health"})


_WHY = {
    400: "The body cannot be read.",
    401: "The key is missing or wrong.",
    404: "No such model.",
    408: "The request came too slowly.",
    413: "The body is too large.",
    415: "The body is of another type or encoding.",
    422: "The request is not as it should be.",
    503: "Too many queries are waiting, or the database of candidates cannot be reached.",
    504: "The answer took too long.",
}
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error, "description": why} for status, why in _WHY.items()
}
_READ_ERRORS: dict[int | str, dict[str, Any]] = {401: _ERRORS[401]}


def make_api(
    served: Mapping[str, Served],
    metrics: Metrics,
    *,
    scores: Mapping[str, ServedScores] | None = None,
    root_path: str = "",
) -> FastAPI:
    """Make the API over models by name. They answer and watch their folders from its startup to its shutdown.

    Args:
        served: the models.
        metrics: what /metrics tells.
        scores: calibrated scores, which rate what others scored.
        root_path: the prefix under which clients reach it, for /openapi.json.
    """
    calibrated = scores or {}
    one_at_a_time = asyncio.Semaphore(1)

    @contextlib.asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work) for model in served.values() for work in (model.run(), model.watch())]
        tasks += [asyncio.create_task(one.watch()) for one in calibrated.values()]
        for task in tasks:
            task.add_done_callback(_ended)
        yield
        for task in tasks:
            task.cancel()

    api = FastAPI(
        title="Sigmax",
        version=sigmax.__version__,
        summary="Matches queries to their right answers, several, one or none, and tells how sure it is.",
        lifespan=running,
        servers=[{"url": root_path}] if root_path else None,
        docs_url=None,
        redoc_url=None,
    )
    api.add_exception_handler(RequestValidationError, _not_valid)
    api.add_exception_handler(AnyHTTPException, _http_error)
    api.add_exception_handler(Exception, _failed)

    def chosen(name: str | None) -> Served:
        if name is None and len(served) == 1:
            return next(iter(served.values()))
        if name is None:
            _refuse(422, f"model: expected one of {', '.join(served)}, got none.")
        if name in calibrated:
            _refuse(422, f"model: {name!r} holds calibrated scores; POST lists of scored candidates to /rate.")
        if name not in served:
            _refuse(404, f"model: expected one of {', '.join(served)}, got {name!r}.{nearest(name, served)}")
        return served[name]

    async def answered(model: Served, work: Work) -> Any:
        try:
            return await model.ask(work)
        except Full:
            raise HTTPException(
                503, f"{model.max_queue} queries wait already. Try again in a second.", {"Retry-After": "1"}
            ) from None
        except UnavailableError as error:
            raise HTTPException(503, str(error), {"Retry-After": "1"}) from None
        except ValueError as error:
            _refuse(422, str(error))

    @api.post("/match", response_model=MatchAnswer, responses=_ERRORS)
    async def match(asked: MatchRequest) -> Response:
        """Find the best candidates for one query or many, and which of all candidates are accepted."""
        model = chosen(asked.model)
        queries = _queries(model, asked.query)
        answer = await answered(model, MatchWork(queries, asked.top_k, asked.rule, asked.confidence, asked.where))
        return _json({"model": model.name, **answer})

    @api.post("/explain", response_model=ExplainAnswer, responses=_ERRORS)
    async def explain(asked: ExplainRequest) -> Response:
        """Show what softmax and sigmoid make of the same logits."""
        model = chosen(asked.model)
        answer = await answered(model, ExplainWork(_queries(model, asked.query), asked.top_k))
        return _json({"model": model.name, **answer})

    @api.post("/rate", response_model=MatchAnswer, responses=_ERRORS)
    async def rate(asked: RateRequest) -> Response:
        """Tell what scores of others mean: presences, whether any is right, and what is accepted."""
        name = next(iter(calibrated)) if asked.model is None and len(calibrated) == 1 else asked.model
        if name is None or name not in calibrated:
            known = ", ".join(calibrated) or "none, for none is served"
            _refuse(404 if name else 422, f"model: expected calibrated scores of {known}, got {name or 'none'}.")
        lists = [(one.query, [(row.candidate, row.scores) for row in one.candidates]) for one in asked.lists]
        async with one_at_a_time:
            try:
                answer = await asyncio.to_thread(
                    calibrated[name].rate, lists, asked.top_k, asked.rule, asked.confidence
                )
            except ValueError as error:
                _refuse(422, str(error))
        return _json({"model": name, **answer})

    @api.get("/models", response_model=ModelsAnswer, responses=_READ_ERRORS)
    async def models() -> Response:
        """List the models, and the rules by which they accept."""
        told = [
            {
                "name": name,
                "candidates": one.loaded.offer.size,
                "pictures": one.loaded.model.pictures,
                "calibrated": one.loaded.model.calibrator is not None,
                "loss": one.loaded.loss_name,
                "loaded": one.since.isoformat(timespec="seconds"),
            }
            for name, one in served.items()
        ]
        rules = [
            {"name": name, "summary": rule.summary, "takes_level": rule.takes_level} for name, rule in RULES.items()
        ]
        others = [
            {"name": name, "scores": one.columns, "loaded": one.since.isoformat(timespec="seconds")}
            for name, one in calibrated.items()
        ]
        return _json({"models": told, "scores": others, "rules": rules})

    @api.get("/health", response_model=Health)
    async def health() -> Response:
        """Tell whether all is well."""
        everything: dict[str, Served | ServedScores] = {**served, **calibrated}
        told = [
            {"name": name, "loaded": one.since.isoformat(timespec="seconds"), "error": one.error}
            for name, one in everything.items()
        ]
        ill = any(one["error"] for one in told)
        return _json({"status": "degraded" if ill else "ok", "models": told})

    @api.get("/metrics", response_class=Response, responses=_READ_ERRORS)
    async def counts() -> Response:
        """Tell Prometheus what was done."""
        return Response(metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")

    route = next(one for one in api.routes if getattr(one, "path", "") == "/match")
    api.add_middleware(_Straight, route=route, model=MatchRequest, answer=match, refused=_http_error)
    for path, (name, kind) in PAGE.items():
        _add_page(api, path, (resources.files("sigmax.server") / "page" / name).read_bytes(), kind)
    return api


class _Straight:
    """Answers one route without FastAPI's steps between a body and its function, which take as long as the model does.

    Whatever is not as it should be goes their way, and is told as ever.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        route: BaseRoute,
        model: type[BaseModel],
        answer: Callable[[Any], Awaitable[Response]],
        refused: Callable[[Request, Exception], Awaitable[Response]],
    ) -> None:
        self.app, self.route, self.path = app, route, getattr(route, "path", "")
        self.model, self.answer, self.refused = model, answer, refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self.path or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        message = await receive()
        try:
            if message["type"] != "http.request" or message.get("more_body"):
                raise ValueError("Not the whole body.")
            asked = self.model.model_validate(json.loads(message["body"]))
        except (ValueError, RecursionError):
            await self.app(scope, _again(message, receive), send)
            return
        scope["route"] = self.route
        try:
            response = await self.answer(asked)
        except AnyHTTPException as error:
            response = await self.refused(Request(scope), error)
        await response(scope, receive, send)


def _again(message: Message, receive: Receive) -> Receive:
    """Receive a message once more, then what comes after it."""
    first = [message]

    async def received() -> Message:
        return first.pop() if first else await receive()

    return received


def _ended(task: asyncio.Task[None]) -> None:
    """Tell that what should go on for ever has failed."""
    if not task.cancelled() and (error := task.exception()):
        log.critical("Answering or watching a model has ended: %s. Restart the server.", error, exc_info=error)


def _add_page(api: FastAPI, path: str, content: bytes, kind: str) -> None:
    async def page() -> Response:
        return Response(content, headers={"content-type": kind})

    api.add_api_route(path, page, methods=["GET"], include_in_schema=False)


def _queries(model: Served, items: Items) -> Any:
    try:
        return queries_of(items, pictures=model.loaded.model.pictures)
    except ValueError as error:
        _refuse(422, str(error))


# -- JSON ----------------------------------------------------------------------------------------


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    # By the writer of Pydantic: that of the standard library takes a sixth of the time between requests.
    return Response(to_json(value), status, headers, media_type="application/json")


def _refuse(status: int, error: str) -> NoReturn:
    raise HTTPException(status, error) from None


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHTTPException)
    return _json({"error": error.detail}, error.status_code, error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    return _json({"error": "The server failed; its log says why. Try again, or something simpler."}, 500)


async def _not_valid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _json({"error": " ".join(map(_told, error.errors()[:3]))}, 422)


def _told(found: Mapping[str, Any]) -> str:
    """One of pydantic's findings in a sentence."""
    if found["type"] == "json_invalid":
        return f"Expected JSON, got something else at character {found['loc'][-1]}: {found['ctx']['error']}."
    place = ".".join(str(part) for part in found["loc"][1:]) or "body"
    if found["type"] == "value_error":
        return f"{place}: {found['ctx']['error']}"
    got = json.dumps(found.get("input"), ensure_ascii=True, default=str)
    return f"{place}: {found['msg']}, got {got if len(got) <= 80 else got[:77] + '…'}."
