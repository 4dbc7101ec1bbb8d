"""Test queries to read: what each contender answered, chosen without a look at how interesting they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.familiar import FALSE_ALARMS
from sigmax.data.dataset import MatchDataset, row_of
from sigmax.model.matches import Match, rate
from sigmax.scan import Logits, SplitLogits

__all__ = ["KINDS", "Answer", "Answers", "Example", "best_answers", "choose_examples"]

#: How the best candidates of several contenders may turn out, and how a reader says it.
KINDS = {
    "right": "All are right",
    "differ": "Some are right, some are wrong",
    "wrong": "All are wrong",
    "unanswered": "Nothing is right",
}
TOP = 3
EXAMPLES = 20


@dataclass(frozen=True)
class Answer(Match):
    """One candidate for a query, beside the truth."""

    right: bool


@dataclass(frozen=True)
class Answers:
    """One contender's best candidates for a query, best first."""

    best: tuple[Answer, ...]
    any: float | None  #: probability that at least one of all candidates is right
    unlike_training: bool = False  #: whether the query is told to be unlike anything in training


@dataclass(frozen=True)
class Example:
    """A query, its right answers, and what contenders gave."""

    query: str  #: its text, or a picture's name
    kind: str  #: a name in `KINDS`
    right: tuple[str, ...]
    answers: dict[str, Answers]  #: contender -> its best candidates

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return asdict(self)


def best_answers(split: SplitLogits, candidates: Sequence[str], calibrator: Calibrator) -> list[Answers]:
    """The best candidates for each query of a split, with share and presence."""
    answers = []
    for right, rated in zip(
        split.right,
        rate(Logits(split.logits, split.none, split.novelty), candidates, split.candidate_ids, calibrator),
        strict=True,
    ):
        best = tuple(Answer(**vars(rated.match(j)), right=bool(right[j])) for j in rated.best(TOP).tolist())
        answers.append(Answers(best, rated.any, rated.familiar_p is not None and rated.familiar_p <= FALSE_ALARMS))
    return answers


def choose_examples(
    data: MatchDataset, answers: Mapping[str, Sequence[Answers]], split: str = "test"
) -> tuple[Example, ...]:
    """Draw up to `EXAMPLES` queries, as many of each of `KINDS` as there are, by a fixed seed.

    Args:
        data: the data set.
        answers: contender -> its answers to each query of the split; the best candidates of all decide the kind.
        split: which queries.
    """
    rows = data.split(split)
    kinds = [
        _kind([given[place].best[0].right for given in answers.values()]) if data.answer_counts[i] else "unanswered"
        for place, i in enumerate(rows)
    ]
    random = np.random.default_rng(0)
    piles = {
        kind: random.permutation([place for place, one in enumerate(kinds) if one == kind]).astype(int).tolist()
        for kind in KINDS
    }
    drawn: list[int] = []
    while len(drawn) < min(EXAMPLES, len(rows)):
        drawn += [pile.pop() for pile in piles.values() if pile][: EXAMPLES - len(drawn)]
    order = list(KINDS)
    return tuple(
        Example(
            str(data.queries[rows[place]]),
            kinds[place],
            tuple(data.candidates[j] for j in row_of(data.graph, rows[place])),
            {name: given[place] for name, given in answers.items()},
        )
        for place in sorted(drawn, key=lambda place: (order.index(kinds[place]), place))
    )


def _kind(right: Sequence[bool]) -> str:
    """How best candidates turned out, by whether each is right."""
    return "right" if all(right) else "differ" if any(right) else "wrong"
