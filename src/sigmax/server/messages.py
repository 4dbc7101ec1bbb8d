"""What the API is asked and what it answers: every message, as it is checked and as /openapi.json describes it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from sigmax.calibration.calibrator import DEFAULT_RULE
from sigmax.calibration.rules import CONFIDENCE, RULES, parse_rule
from sigmax.server.items import Items

__all__ = [
    "Error",
    "ExplainAnswer",
    "ExplainRequest",
    "Health",
    "MatchAnswer",
    "MatchRequest",
    "ModelsAnswer",
    "RateRequest",
]

MAX_TOP_K = 100
MAX_EXPLAINED = 8
#: Lists in a request, and candidates in a list.
MAX_LISTS, MAX_LISTED = 64, 1000
_RULES: dict[str, Any] = {"pattern": "^(best-f1|(precision|recall|contains|false-claims)=0\\.[1-9][0-9]{0,5})$"}


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
        json_schema_extra=_RULES,
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


class ScoredCandidate(BaseModel):
    """A candidate and its scores."""

    model_config = ConfigDict(extra="forbid", strict=True)

    candidate: str = Field(max_length=10_000)
    scores: dict[str, Annotated[float, Field(allow_inf_nan=False)] | None] = Field(
        description="By column, as calibrated; left out or null where a column did not return the candidate.",
        max_length=100,
    )


class ScoredList(BaseModel):
    """A query and all candidates that were retrieved for it: shares are among them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: str = Field(max_length=10_000)
    candidates: list[ScoredCandidate] = Field(min_length=1, max_length=MAX_LISTED)


class RateRequest(BaseModel):
    """Lists of scored candidates, and what is accepted."""

    lists: list[ScoredList] = Field(min_length=1, max_length=MAX_LISTS)
    model: str | None = Field(None, description="Name of the calibrated scores; may be left out where one is served.")
    top_k: int = Field(5, ge=1, le=MAX_TOP_K, description="How many candidates.")
    rule: Annotated[str, AfterValidator(_rule)] = Field(DEFAULT_RULE, max_length=64, json_schema_extra=_RULES)
    confidence: float = Field(CONFIDENCE, gt=0, lt=1, description="With which the rule's promise holds.")

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        json_schema_extra={
            "examples": [
                {
                    "lists": [
                        {
                            "query": "party",
                            "candidates": [{"candidate": "d1", "scores": {"score": 1.5}}],
                        }
                    ]
                }
            ]
        },
    )


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


class ScoresFacts(BaseModel):
    """Calibrated scores that are served."""

    name: str
    scores: list[str] = Field(description="Columns of scores that each candidate brings.")
    loaded: str


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
    scores: list[ScoresFacts]
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
