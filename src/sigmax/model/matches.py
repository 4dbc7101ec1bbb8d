"""What a model answers: candidates with logit, share and presence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Floats, Ints, row_blocks
from sigmax.calibration.familiar import FALSE_ALARMS
from sigmax.metrics.ranking import best_first

if TYPE_CHECKING:
    from sigmax.arrays import Logits
    from sigmax.calibration.calibrator import Calibrator
    from sigmax.calibration.rules import Decision
    from sigmax.data.pictures import Query
    from sigmax.model.vectors import Vectors

__all__ = ["Match", "Matches", "Offer", "Rated", "answer", "rate"]

#: Candidates of each query that are put in order together with those of other queries.
ORDERED = 10
#: Pairs rated at a time: they bound the memory on top of the logits.
PAIR_BLOCK = 2**22


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
    #: The candidates that the rule accepts, best first, however many were asked for; nothing without
    #: calibration.
    accepted: tuple[Match, ...] = ()
    unlisted: int = 0  #: how many more the rule accepts than `accepted` lists
    #: Standard error of the shares, as a part of them, where candidates come from an index or a database; None: exact.
    share_error: float | None = None
    #: P-value of "drawn as the dev queries were", see `sigmax.calibration.Familiar`; None for a model that keeps
    #: nothing of its training queries.
    familiar_p: float | None = None

    @overload
    def __getitem__(self, place: int) -> Match: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Match, ...]: ...
    def __getitem__(self, place: int | slice) -> Match | tuple[Match, ...]:
        """Return the match at a place."""
        return self.best[place]

    def __len__(self) -> int:
        """Return how many candidates were asked for."""
        return len(self.best)

    @property
    def accepted_count(self) -> int:
        """How many candidates the rule accepts."""
        return len(self.accepted) + self.unlisted

    @property
    def outcome(self) -> str | None:
        """What the rule made of the query; None if the model was not calibrated.

        "accepted"; "nothing accepted"; or "none of these" where, besides, probably nothing is right: any right < 1/2.
        """
        if self.decision is None or self.any is None:
            return None
        if self.accepted_count:
            return "accepted"
        return "none of these" if self.any < 0.5 else "nothing accepted"

    @property
    def unlike_training(self) -> bool | None:
        """Whether the query is unlike anything in training: of queries like dev's, at most 5% are told to be."""
        return None if self.familiar_p is None else self.familiar_p <= FALSE_ALARMS

    def accepts(self, match: Match) -> bool | None:
        """Whether the rule accepts a match; None if the model was not calibrated."""
        if self.decision is None or match.presence is None:
            return None
        return match.presence >= self.decision.threshold_of(match.candidate_id)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the decision, for JSON; the accepted are None if the model was not calibrated."""
        decided = self.decision is not None
        estimated = {} if self.share_error is None else {"share_error": self.share_error}
        return {
            "query": str(self.query),
            "any": self.any,
            "outcome": self.outcome,
            "familiar_p": self.familiar_p,
            "unlike_training": self.unlike_training,
            "accepted_count": self.accepted_count if decided else None,
            "accepted": [match.as_dict() for match in self.accepted] if decided else None,
            "matches": [{**match.as_dict(), "accepted": self.accepts(match)} for match in self.best],
            **estimated,
        }


def answer(found: Sequence[Matches]) -> dict[str, Any]:
    """Return the matches of queries under one rule, and what the rule decided, for JSON.

    The command line prints it, and the server sends it.
    """
    decision = found[0].decision if found else None
    return {
        "rule": None if decision is None else {**decision.as_dict(), "promise": decision.promise},
        "results": [matches.as_dict() for matches in found],
    }


@dataclass(frozen=True, eq=False)
class Offer:
    """Candidates with their vectors, encoded once for many queries: a snapshot, later training does not change it."""

    candidates: Sequence[str]
    candidate_ids: Sequence[str]
    vectors: Vectors  #: of the m candidates

    @property
    def size(self) -> int:
        """How many candidates are offered."""
        return len(self.candidates)


@dataclass(frozen=True, eq=False)
class Rated:
    """One query's logits over all m candidates offered, and what they say."""

    candidates: Sequence[str]
    candidate_ids: Sequence[str]
    logits: NDArray[np.float32]  #: (m,)
    shares: Floats  #: (m,) softmax of the logits
    presence: Floats | None  #: (m,); None if the model was not calibrated
    any: float | None  #: probability that at least one is right; None if the model was not calibrated
    #: Standard error of the sum that shares are parts of, as a part of it, where it is estimated; see `Searched`.
    share_error: float | None = None
    familiar_p: float | None = None  #: p-value of "drawn as the dev queries were", see `Matches`
    familiarity: float | None = None  #: how familiar the query is, see `sigmax.calibration.Familiar.score`
    first: Ints | None = None  #: (k,) places of the best by presence, if they are known already

    def best(self, top_k: int, *, order: str = "presence") -> Ints:
        """(k,) places of the best candidates, in an order of `sigmax.metrics.ranking.ORDERS`; equal ones as offered."""
        if order == "presence" and self.first is not None and top_k <= len(self.first):
            return self.first[:top_k]
        presence = self.presence if order == "presence" else None
        depth = min(top_k, len(self.logits))
        (places,) = best_first(self.logits[None], depth, None if presence is None else presence[None])
        best: Ints = places
        return best

    def accepted(self, decision: Decision | None, *, order: str = "presence") -> Ints:
        """(a,) places of all candidates that a decision accepts, best first; none without calibration."""
        if decision is None or self.presence is None:
            return np.empty(0, np.int64)
        least: float | Floats = decision.threshold
        if decision.thresholds is not None:
            least = np.array([decision.threshold_of(one) for one in self.candidate_ids])
        places: Ints = np.flatnonzero(self.presence >= least)
        first = self.presence if order == "presence" else self.logits
        by: Ints = np.lexsort((-self.logits[places], -first[places]))
        return places[by]

    def match(self, place: int) -> Match:
        """Return the candidate at a place of the offer."""
        return Match(
            self.candidates[place],
            self.candidate_ids[place],
            float(self.logits[place]),
            float(self.shares[place]),
            None if self.presence is None else float(self.presence[place]),
        )

    def matches(
        self,
        query: Query,
        top_k: int,
        decision: Decision | None,
        *,
        order: str = "presence",
        most_accepted: int | None = None,
    ) -> Matches:
        """Return the best candidates and the accepted ones, of these the best `most_accepted`; None for all."""
        accepted = self.accepted(decision, order=order)
        listed = accepted[:most_accepted]
        return Matches(
            query,
            tuple(self.match(place) for place in self.best(top_k, order=order).tolist()),
            decision,
            self.any,
            tuple(self.match(place) for place in listed.tolist()),
            len(accepted) - len(listed),
            self.share_error,
            self.familiar_p,
        )


def rate(
    logits: Logits, candidates: Sequence[str], candidate_ids: Sequence[str], calibrator: Calibrator | None
) -> Iterator[Rated]:
    """Rate every candidate for each query: share, presence and P(any) of its logits.

    Args:
        logits: of n queries over the m candidates.
        candidates: (m,) as matches name them.
        candidate_ids: (m,) as the calibrator knows them.
        calibrator: None for a model that was not calibrated.
    """
    for rows in row_blocks(logits.values.shape, PAIR_BLOCK):
        values = logits.values[rows]
        shares = np.exp(values.astype(np.float64) - values.max(1, keepdims=True, initial=-np.inf))
        shares /= shares.sum(1, keepdims=True)
        presence = anything = familiar = None
        if calibrator is not None:
            none = None if logits.none is None else logits.none[rows]
            novelty = None if logits.novelty is None else logits.novelty[rows]
            presence, anything = calibrator.read(values, candidate_ids, none, novelty=novelty)
            familiar = calibrator.familiarity(presence, novelty)
        first = best_first(values, min(ORDERED, values.shape[1]), presence)
        for row in range(len(values)):
            yield Rated(
                candidates,
                candidate_ids,
                values[row],
                shares[row],
                None if presence is None else presence[row],
                None if anything is None else float(anything[row]),
                familiar_p=None if familiar is None else float(familiar[1][row]),
                familiarity=None if familiar is None else float(familiar[0][row]),
                first=first[row],
            )
