"""What matters about a data set before training: its sizes, its faults, and what a plain in-batch loss would see."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sigmax.data.batches import Batches
from sigmax.data.dataset import SPLITS, MatchDataset, row_of
from sigmax.data.normal import likeness, normal
from sigmax.data.pictures import Picture, Query, key_of
from sigmax.data.texts import digest
from sigmax.errors import DataError

__all__ = ["Answers", "Check", "DataFacts", "Pictures", "check", "false_negative_share"]

BATCH_SIZES = (64, 512, 4096)


@dataclass(frozen=True)
class Answers:
    """Right answers per query, over the queries that have any."""

    mean: float
    median: float
    most: int
    several: float  #: share of these queries that have more than one


@dataclass(frozen=True)
class DataFacts:
    """What a data set holds: kept in a trained model, in a comparison and in their reports."""

    name: str
    fingerprint: str  #: equal for equal data, see `MatchDataset.fingerprint`
    queries: int
    candidates: int
    pairs: int  #: right ones
    wrong_pairs: int  #: known to be wrong
    labels: bool  #: whether candidates are fixed labels
    splits: dict[str, int]  #: queries, by split
    unanswered: dict[str, int]  #: queries with no right answer, by split
    answers: Answers

    @classmethod
    def of(cls, data: MatchDataset) -> DataFacts:
        """Count what a data set holds."""
        counts = data.answer_counts
        answered = counts[counts > 0] if counts.any() else np.zeros(1, dtype=np.int64)
        splits = [*SPLITS, *(name for name in data.splits if name not in SPLITS)]
        return cls(
            name=data.name,
            fingerprint=data.fingerprint,
            queries=len(data.queries),
            candidates=len(data.candidates),
            pairs=len(data.pairs),
            wrong_pairs=len(data.wrong),
            labels=data.labels,
            splits={name: len(data.splits[name]) for name in splits if name in data.splits},
            unanswered={name: data.unanswered(name) for name in splits if name in data.splits},
            answers=Answers(
                mean=float(answered.mean()),
                median=float(np.median(answered)),
                most=int(answered.max()),
                several=float((answered > 1).mean()),
            ),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the facts, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Pictures:
    """Sizes and colours of a data set's pictures."""

    width: tuple[int, int]  #: least and most
    height: tuple[int, int]
    grey: int  #: how many
    colour: int


@dataclass(frozen=True)
class Check(DataFacts):
    """The facts of a data set, and its faults."""

    unused_candidates: int  #: right for no query
    untrained_candidates: int  #: right for a dev or test query, but for no training query
    duplicate_queries: int  #: queries that are equal to an earlier one of the same split
    conflicting_queries: int  #: those of them with other right answers
    leaked_queries: int  #: dev and test queries that are training queries too
    duplicate_candidates: int  #: candidates whose text an earlier one has
    lookalikes: int  #: candidates that are easily taken for an earlier one, see `sigmax.data.normal.likeness`
    lookalike: tuple[str, str] | None  #: an earlier candidate and one that is easily taken for it
    conflicts: int  #: pairs that came as right and wrong at once
    notes: tuple[str, ...]  #: what training refuses, and what the reader left out or settled
    false_negatives: dict[int, float]  #: batch size -> share of rows, see `false_negative_share`
    pictures: Pictures | None  #: None for texts

    @property
    def findings(self) -> list[str]:
        """Return findings in words: what to fix or to know, most important first."""
        found = []
        if self.leaked_queries:
            found.append(
                f"{self.leaked_queries} dev or test queries are training queries too: metrics will be too good. "
                "Remove them from one side."
            )
        if self.conflicting_queries:
            found.append(
                f"{self.conflicting_queries} queries repeat an earlier one with other right answers. Merge them, or "
                "correct one."
            )
        if self.duplicate_queries > self.conflicting_queries:
            found.append(f"{self.duplicate_queries - self.conflicting_queries} queries repeat an earlier one exactly.")
        if self.duplicate_candidates:
            found.append(
                f"{self.duplicate_candidates} candidates have the text of an earlier one: the same answer would be "
                "right and wrong at once. Merge them."
            )
        if self.lookalike:
            found.append(
                f"{self.lookalikes} candidates are easily taken for an earlier one, such as "
                f"{' and '.join(map(_told_apart, self.lookalike))}. Merge those that mean the same."
            )
        found += self.notes
        if self.labels and self.untrained_candidates:
            found.append(
                f"{self.untrained_candidates} labels occur in dev or test but never in train: a label table cannot "
                "learn them."
            )
        worst = max(self.false_negatives.values(), default=0.0)
        if worst > 0.01:
            shares = ", ".join(f"{share:.1%} at {size}" for size, share in self.false_negatives.items())
            found.append(
                "A plain in-batch loss would train right answers as wrong: share of rows with a false negative "
                f"{shares}. Sigmax marks every known right pair."
            )
        if any(self.unanswered.values()):
            counts = ", ".join(f"{count} in {name}" for name, count in self.unanswered.items() if count)
            found.append(
                f"Queries with no right answer: {counts}. The sigmoid learns from them; the softmax leaves them out."
            )
        else:
            found.append("Every query has a right answer: saying “none of these” cannot be learnt nor measured here.")
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the facts and the findings, for JSON."""
        return {**asdict(self), "findings": self.findings}


def check(data: MatchDataset) -> Check:
    """Look at a data set before training."""
    facts = DataFacts.of(data)
    repeated, conflicting = _duplicates(data)
    training = {_same(data.queries[i]) for i in data.split("train")}
    alike = _lookalikes(data.candidates)
    held_out = np.concatenate([data.split("dev"), data.split("test")])
    used = np.unique(data.pairs[:, 1])
    in_train = np.unique(data.graph[data.split("train")].indices)
    in_held_out = np.unique(data.graph[held_out].indices)
    # Of the largest batch that a loss of one pair per row can see.
    rows = int(data.answer_counts[data.split("train")].sum())
    return Check(
        **vars(facts),
        unused_candidates=len(data.candidates) - len(used),
        untrained_candidates=len(np.setdiff1d(in_held_out, in_train)),
        duplicate_queries=repeated,
        conflicting_queries=conflicting,
        leaked_queries=sum(_same(data.queries[i]) in training for i in held_out),
        duplicate_candidates=len(data.candidates) - len({digest(normal(text)) for text in data.candidates}),
        lookalikes=len(alike),
        lookalike=alike[0] if alike else None,
        conflicts=data.conflicts,
        notes=(*_refused(data), *data.notes),
        false_negatives={size: false_negative_share(data, size) for size in BATCH_SIZES if size <= rows}
        or ({rows: false_negative_share(data, rows)} if rows else {}),
        pictures=_pictures(data),
    )


def _refused(data: MatchDataset) -> list[str]:
    """Say why training refuses a data set, if it does."""
    try:
        data.check_answers(("train", "dev"))
    except DataError as error:
        return [str(error)]
    return []


def _same(query: Query) -> bytes:
    """What queries share that are the same to a reader."""
    return digest(normal(key_of(query)))


def _lookalikes(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Texts that are easily taken for an earlier one and are not the same, each beside the first of its like."""
    first: dict[str, str] = {}
    found = []
    for text in texts:
        earlier = first.setdefault(likeness(text), text)
        if normal(earlier) != normal(text):
            found.append((earlier, text))
    return found


def _told_apart(text: str) -> str:
    """A text for people; with code points where letters alone do not tell it from what looks like it."""
    return repr(text) if text.isascii() else f"{text!r} ({ascii(text)[1:-1]})"


def _pictures(data: MatchDataset) -> Pictures | None:
    """Sizes, and how many pictures are grey."""
    forms = [query.form() for query in data.queries if isinstance(query, Picture)]
    if not forms:
        return None
    widths, heights, modes = zip(*forms, strict=True)
    grey = modes.count("L")
    return Pictures((min(widths), max(widths)), (min(heights), max(heights)), grey, len(forms) - grey)


def false_negative_share(data: MatchDataset, batch_size: int, *, batches: int = 20, seed: int = 0) -> float:
    """Share of rows in which a plain in-batch loss trains a right answer as wrong.

    Draws batches of one right pair per row, as such losses do, and counts the rows for which another row's answer is
    right too, the same answer included.

    Args:
        data: the data set; its train split is used.
        batch_size: rows per batch (at most as many as there are pairs).
        batches: how many batches are drawn.
        seed: random seed.
    """
    drawn = Batches(data, batch_size=batch_size, steps=batches, seed=seed, draw="one-positive")
    if not len(drawn.units):
        return 0.0
    harmed = rows = 0
    for number in range(len(drawn)):
        batch = drawn[number]
        right = data.graph[batch.queries] @ np.bincount(batch.candidates, minlength=len(data.candidates))
        harmed += int((right > 1).sum())
        rows += len(batch.queries)
    return harmed / rows


def _duplicates(data: MatchDataset) -> tuple[int, int]:
    """Queries equal to an earlier one in their split, and those of them with other right answers."""
    answers: dict[tuple[str, bytes], list[frozenset[int]]] = defaultdict(list)
    for name in SPLITS:
        for i in data.split(name):
            answers[name, _same(data.queries[i])].append(frozenset(row_of(data.graph, i).tolist()))
    repeated = sum(len(sets) - 1 for sets in answers.values())
    conflicting = sum(sum(count for _, count in Counter(sets).most_common()[1:]) for sets in answers.values())
    return repeated, conflicting
