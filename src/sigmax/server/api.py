"""The API: what is asked and answered, in JSON, and the page."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from importlib import resources
from typing import Annotated, Any, NoReturn

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as AnyHTTPException

import sigmax
from sigmax.calibration.calibrator import DEFAULT_RULE
from sigmax.calibration.rules import CONFIDENCE, RULES, parse_rule
from sigmax.candidates.store import UnavailableError
from sigmax.errors import nearest
from sigmax.server.items import Items, queries_of
from sigmax.server.metrics import Metrics
from sigmax.server.served import ExplainWork, Full, MatchWork, Served, Work

__all__ = ["OPEN_PATHS", "make_api"]

MAX_TOP_K = 100
MAX_EXPLAINED = 8
PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
#: Paths that tell nothing and cost nothing.
OPEN_PATHS = frozenset({*PAGE, "/health"})


# -- what is asked -------------------------------------------------------------------------------


def _rule(text: str) -> str:
    parse_rule(text)
    return text


def _few(items: Items) -> Items:
    if len(items) > MAX_EXPLAINED:
        raise ValueError(f"Expected at most {MAX_EXPLAINED} queries to explain, got {len(items)}.")
    return items


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    query: Items
    model: str | None = Field(None, description="Its name; may be left out where one model is served.")
    top_k: int = Field(5, ge=1, le=MAX_TOP_K, description="How many candidates.")


class MatchRequest(_Asked):
    """Queries, and what is accepted."""

    rule: Annotated[str, AfterValidator(_rule)] = Field(
        DEFAULT_RULE,
        max_length=64,
        description="; ".join(f"{name}{'=LEVEL' * rule.takes_level}" for name, rule in RULES.items()),
        json_schema_extra={"pattern": "^(best-f1|(precision|recall|contains|false-claims)=0\\.[1-9][0-9]{0,5})$"},
    )
    confidence: float = Field(CONFIDENCE, gt=0, lt=1, description="With which the rule's promise holds.")
    where: dict[str, str | int | float | bool | None] = Field(
        {}, max_length=16, description="Values that the metadata of candidates must have, where a database holds them."
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "what's in the sky?", "top_k": 3, "rule": "precision=0.9"}]}
    )


class ExplainRequest(_Asked):
    """Queries whose logits are shown side by side."""

    query: Annotated[Items, AfterValidator(_few)] = Field(description=f"At most {MAX_EXPLAINED}.")

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": ["party", "pizza"], "top_k": 5}]})


# -- what is answered ----------------------------------------------------------------------------


class Error(BaseModel):
    """What was expected, what came, and what to try."""

    error: str


class Candidate(BaseModel):
    """One candidate for a query."""

    candidate: str
    candidate_id: str
    logit: float
    share: float = Field(description="Softmax over all candidates: adds up to 1 whether or not anything is right.")
    presence: float | None = Field(description="Probability that this one is right; null without calibration.")


class RankedCandidate(Candidate):
    """One of the best candidates."""

    accepted: bool | None


class Result(BaseModel):
    """The best candidates for one query."""

    query: str
    any: float | None = Field(description="Probability that at least one candidate of all is right.")
    outcome: str | None = Field(
        description="accepted; nothing accepted; or none of these, where any is below 1/2 as well. null without "
        "calibration."
    )
    familiar_p: float | None = Field(
        description='P-value of "drawn as the dev queries were"; null where nothing of the training queries is kept.'
    )
    unlike_training: bool | None = Field(
        description="Whether it is unlike anything in training, which is said of at most 5% of queries like dev's."
    )
    accepted_count: int | None = Field(description="How many the rule accepts.")
    accepted: list[Candidate] | None = Field(description="The best 100 of them.")
    matches: list[RankedCandidate]
    share_error: float | None = Field(
        None, description="Standard error of the shares, as a part of them, where the candidates come from an index."
    )


class MatchAnswer(BaseModel):
    """A result for each query, in order."""

    model: str
    rule: dict[str, Any] | None = Field(description="What the rule decided; null for a model without calibration.")
    results: list[Result]


class Activation(BaseModel):
    """One candidate of one item."""

    candidate: str
    candidate_id: str
    logit: float
    exp: float | None = Field(description="null where no float holds it.")
    share: float
    binary: float = Field(description="The logit through σ.")
    presence: float | None
    verdict: str = Field(description="present, perhaps or absent")
    shared: dict[str, float] | None = Field(
        description="What each word shared with the query adds to the logit; null for a model without shared words."
    )


class Explanation(BaseModel):
    """The activation table of one item."""

    item: str
    offered: int = Field(description="Candidates that the shares are over, shown or not.")
    expected: float = Field(description="How many are expected to be right.")
    any: float | None
    familiar_p: float | None
    unlike_training: bool | None
    bounds: tuple[float, float] = Field(description="absent below the first, present from the second on.")
    calibrated: bool
    competition: float | None = Field(
        description="How much the share counts in presences, from 0 (the logit alone) to 1; null without calibration."
    )
    activations: list[Activation]


class ExplainAnswer(BaseModel):
    """The same rows for every item."""

    model: str
    items: list[Explanation]
    shift: list[float | None] | None = Field(description="Between logits of items that differ by a constant.")
    words: list[str]


class ModelFacts(BaseModel):
    """A model that is served."""

    name: str
    candidates: int
    pictures: bool = Field(description="Whether its queries are pictures.")
    calibrated: bool
    loss: str
    loaded: str


class RuleFacts(BaseModel):
    """A rule by which candidates are accepted."""

    name: str
    summary: str
    takes_level: bool


class ModelsAnswer(BaseModel):
    """The models, and the rules that they know."""

    models: list[ModelFacts]
    rules: list[RuleFacts]


class ModelHealth(BaseModel):
    """How a model does."""

    name: str
    loaded: str
    error: str | None = Field(description="Why a newer model could not be loaded; the older one answers.")


class Health(BaseModel):
    """How the server does."""

    status: str = Field(description="ok, or degraded where a newer model could not be loaded.")
    models: list[ModelHealth]


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


def make_api(served: Mapping[str, Served], metrics: Metrics, *, root_path: str = "") -> FastAPI:
    """Make the API over models by name. They answer and watch their folders from its startup to its shutdown.

    Args:
        served: the models.
        metrics: what /metrics tells.
        root_path: the prefix under which clients reach it, for /openapi.json.
    """

    @contextlib.asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(work) for model in served.values() for work in (model.run(), model.watch())]
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

    @api.get("/models", response_model=ModelsAnswer, responses=_READ_ERRORS)
    async def models() -> Response:
        """List the models, and the rules by which they accept."""
        told = [
            {
                "name": name,
                "candidates": one.loaded.offer.size,
                "pictures": one.loaded.model.pictures,
                "calibrated": one.loaded.model.calibrator is not None,
                "loss": one.loaded.model.loss.objective.name,
                "loaded": one.loaded.since.isoformat(timespec="seconds"),
            }
            for name, one in served.items()
        ]
        rules = [
            {"name": name, "summary": rule.summary, "takes_level": rule.takes_level} for name, rule in RULES.items()
        ]
        return _json({"models": told, "rules": rules})

    @api.get("/health", response_model=Health)
    async def health() -> Response:
        """Tell whether all is well."""
        told = [
            {"name": name, "loaded": one.loaded.since.isoformat(timespec="seconds"), "error": one.error}
            for name, one in served.items()
        ]
        ill = any(one.error for one in served.values())
        return _json({"status": "degraded" if ill else "ok", "models": told})

    @api.get("/metrics", response_class=Response, responses=_READ_ERRORS)
    async def counts() -> Response:
        """Tell Prometheus what was done."""
        return Response(metrics.text(), media_type="text/plain; version=1.0.0; charset=utf-8")

    for path, (name, kind) in PAGE.items():
        _add_page(api, path, (resources.files("sigmax.server") / "page" / name).read_bytes(), kind)
    return api


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


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse(value, status, headers)


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
