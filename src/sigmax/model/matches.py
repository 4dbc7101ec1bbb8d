"""What a model answers: candidates with logit, share and presence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sigmax.calibration.rules import Decision
from sigmax.data.pictures import Query
from sigmax.model.vectors import Vectors

if TYPE_CHECKING:
    pass


__all__ = ["Match", "Matches", "Offer", "Rated"]


@dataclass(frozen=True)
class Match:
    """One candidate for a query."""

    candidate: str
    candidate_id: str
    logit: float
    share: float  #: softmax over the candidates offered
    presence: float | None  #: probability that this pair is right; None if the model was not calibrated

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return dict(vars(self))


@dataclass(frozen=True)
class Matches(Sequence[Match]):
    """The best candidates for one query, best first."""

    query: Query
    best: tuple[Match, ...]
    decision: Decision | None = None  #: what accepts; None if the model was not calibrated
    #: Probability that at least one candidate of all is right, see `sigmax.calibration.any_right`; None if the model
    #: was not calibrated.
    any: float | None = None
    chosen: tuple[Match, ...] = ()  #: all that are accepted, however many were asked for

    def __getitem__(self, place: Any) -> Any:
        """Return the match at a place."""
        return self.best[place]

    def __len__(self) -> int:
        """Return how many candidates were asked for."""
        return len(self.best)

    @property
    def accepted(self) -> tuple[Match, ...]:
        """All candidates that the rule accepts, best first; none of these if it is empty.

        Raises:
            ValueError: the model was not calibrated.
        """
        if self.decision is None:
            raise ValueError(
                "The model was not calibrated, so nothing can be accepted. Try sigmax calibrate DIR DATA, or "
                "sigmax.calibrate(model, data)."
            )
        return self.chosen


@dataclass(frozen=True, eq=False)
class Offer:
    """Candidates with their vectors, encoded once for many queries; it does not follow what the model learns later."""

    candidates: tuple[str, ...]
    candidate_ids: tuple[str, ...]
    vectors: Vectors  #: of the m candidates


@dataclass(frozen=True, eq=False)
class Rated:
    """One query's logits over all m candidates of an offer, and what they say."""

    offer: Offer
    logits: NDArray[np.float32]  #: (m,)
    shares: NDArray[np.float64]  #: (m,) softmax of the logits
    presences: NDArray[np.float64] | None  #: (m,); None if the model was not calibrated
    any: float | None  #: probability that at least one is right; None if the model was not calibrated

    def best(self, top_k: int) -> NDArray[np.int64]:
        """(k,) places of the highest logits, best first; of equal ones the first in the offer."""
        places = np.arange(len(self.logits))
        if top_k < len(places):
            places = np.flatnonzero(self.logits >= np.partition(self.logits, -top_k)[-top_k])
        return self._ordered(places)[:top_k]

    def accepted(self, decision: Decision | None) -> NDArray[np.int64]:
        """(a,) places of all candidates that a decision accepts, best first; none without calibration."""
        if decision is None or self.presences is None:
            return np.empty(0, np.int64)
        return self._ordered(np.flatnonzero(self.presences >= decision.threshold))

    def match(self, place: int) -> Match:
        """Return the candidate at a place of the offer."""
        return Match(
            self.offer.candidates[place],
            self.offer.candidate_ids[place],
            float(self.logits[place]),
            float(self.shares[place]),
            None if self.presences is None else float(self.presences[place]),
        )

    def _ordered(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return places[np.argsort(-self.logits[places], kind="stable")]
