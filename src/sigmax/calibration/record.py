"""What a dev split leaves behind for rules: presences of its pairs, and sums at every threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints

__all__ = ["NOTHING", "SIGNS", "Record", "ThresholdCurve", "one_of_each", "threshold_table"]


#: What is kept of each dev query, to tell later whether queries have changed; the last of models that know what they
#: were trained on.
SIGNS = ("best logit", "any right", "accepted", "familiarity")
#: The threshold that accepts nothing: no presence reaches it.
NOTHING = 2.0


#: Wrong pairs below this presence are not recorded. Calibrated presences add up to the right pairs, so that at most
#: 1 / FLOOR pairs are recorded for each right one.
FLOOR = 1e-3


#: What a record may hold beside what it must.
OPTIONAL: dict[str, type] = {"missing": np.int64, "signs": np.float64, "columns": np.int64, "groups": np.int64}


@dataclass(frozen=True, eq=False)
class Record:
    """What the rules need of a dev split: presences of its right pairs, and of the wrong ones that may be accepted."""

    answered: Bools  #: (n,) whether a query has a right answer
    rows: Ints  #: (k,) query of each pair, a place in `answered`
    presence: Floats  #: (k,)
    right: Bools  #: (k,)
    floor: float = FLOOR  #: wrong pairs below this presence are left out; thresholds below are for right pairs alone
    missing: Ints | None = None  #: (n,) right answers that a query was not offered: no threshold accepts them; None: 0
    signs: Floats | None = None  #: (n, 3 or 4) of each, as the first of `SIGNS`; None: saved before they were
    columns: Ints | None = None  #: (k,) candidate of each pair; None where pairs are not told apart by it
    groups: Ints | None = None  #: (n,) equal for queries that are nearly the same, see `witnesses`; None: none are

    def __post_init__(self) -> None:
        n, k = len(self.answered), len(self.rows)
        if not (len(self.presence) == len(self.right) == k):
            raise ValueError(
                f"Expected one row, presence and truth per pair, got {k}, {len(self.presence)} and {len(self.right)}."
            )
        if self.columns is not None and (len(self.columns) != k or (k and self.columns.min() < 0)):
            raise ValueError(f"Expected one column, at least 0, per pair, got {len(self.columns)} for {k} pairs.")
        if self.groups is not None and len(self.groups) != n:
            raise ValueError(f"Expected a group for each of {n} queries, got {len(self.groups)}.")
        if not 0 <= self.floor <= 1:
            raise ValueError(f"Expected a floor between 0 and 1, got {self.floor}.")
        if k and (self.rows.min() < 0 or self.rows.max() >= n):
            raise ValueError(f"Expected rows of {n} queries, got {self.rows.min()} to {self.rows.max()}.")
        _check_presence(self.presence)
        if (self.presence[~self.right] < self.floor).any():
            raise ValueError(f"Expected no wrong pair below the floor of {self.floor}.")
        if not np.array_equal(self.wanted > 0, self.answered):
            raise ValueError("Expected the queries with a right pair to be the answered ones. Record all right pairs.")

    @classmethod
    def of(
        cls,
        presence: Floats | Iterable[Floats],
        right: Bools,
        *,
        floor: float = FLOOR,
        weights: Floats | None = None,
        missing: Ints | None = None,
        groups: Ints | None = None,
    ) -> Record:
        """Keep what is needed of a split.

        Args:
            presence: (n, m) of every query and candidate, or blocks (b, m) of consecutive queries.
            right: (n, m) whether each pair is right.
            floor: wrong pairs below are left out.
            weights: (n, m) pairs that each presence stands for; None: each for itself. No rule can tell pooled pairs
                apart: the floor rises above them.
            missing: (n,) right answers of each query that are no column, such as those that a search did not return.
            groups: (n,) equal for queries that are nearly the same; None: each for itself.

        Raises:
            ValueError: shapes that differ, a presence that is no probability.
        """
        if weights is not None:
            assert isinstance(presence, np.ndarray)
            pooled = float(presence[weights > 1].max(initial=0.0))
            floor = max(floor, float(np.nextafter(pooled, 1.0)))
            presence = np.where(weights == 1, presence, 0.0)
        rows, columns, kept, start = [], [], [], 0
        for block in [presence] if isinstance(presence, np.ndarray) else presence:
            truth = right[start : start + len(block)]
            if block.shape != truth.shape:
                raise ValueError(f"Expected presences of shape {truth.shape} from query {start} on, got {block.shape}.")
            _check_presence(block)
            i, j = np.nonzero(truth | (block >= floor))
            rows.append(i + start)
            columns.append(j)
            kept.append((block[i, j].astype(np.float64), truth[i, j]))
            start += len(block)
        if start != len(right):
            raise ValueError(f"Expected presences of {len(right)} queries, got {start}.")
        answered = np.asarray(right.any(1)) if right.size else np.zeros(len(right), bool)
        return cls(
            answered if missing is None else answered | (missing > 0),
            np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int64),
            np.concatenate([np.zeros(0), *(part for part, _ in kept)]),
            np.concatenate([np.zeros(0, bool), *(part for _, part in kept)]),
            floor,
            missing,
            columns=None if weights is not None else np.concatenate([np.zeros(0, np.int64), *columns]).astype(np.int64),
            groups=groups,
        )

    @property
    def queries(self) -> int:
        """How many queries the split has."""
        return len(self.answered)

    @property
    def wanted(self) -> Ints:
        """(n,) right answers of each query, offered or not."""
        offered: Ints = np.bincount(self.rows[self.right], minlength=len(self.answered))
        return offered if self.missing is None else offered + self.missing

    def as_tensors(self) -> dict[str, NDArray[Any]]:
        """Return arrays by name, to be saved."""
        return {
            "answered": self.answered,
            "rows": self.rows,
            "presence": self.presence,
            "right": self.right,
            "floor": np.array([self.floor]),
            **{name: value for name in OPTIONAL if (value := getattr(self, name)) is not None},
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[Any]]) -> Record:
        """Read what `as_tensors` gave.

        Raises:
            ValueError: a tensor is missing, or they do not fit together.
        """
        missing = {"answered", "rows", "presence", "right", "floor"} - tensors.keys()
        if missing:
            raise ValueError(f"Expected tensors of a record, {', '.join(sorted(missing))} missing.")
        return cls(
            tensors["answered"].astype(bool),
            tensors["rows"].astype(np.int64),
            tensors["presence"].astype(np.float64),
            tensors["right"].astype(bool),
            float(tensors["floor"][0]),
            **{name: tensors[name].astype(dtype) for name, dtype in OPTIONAL.items() if name in tensors},
        )

    def take(self, queries: Ints) -> Record:
        """Return the record of some queries, given by their rising places."""
        place = np.full(self.queries, -1)
        place[queries] = np.arange(len(queries))
        kept = place[self.rows] >= 0
        return Record(
            self.answered[queries],
            place[self.rows[kept]],
            self.presence[kept],
            self.right[kept],
            self.floor,
            None if self.missing is None else self.missing[queries],
            None if self.signs is None else self.signs[queries[queries < len(self.signs)]],
            None if self.columns is None else self.columns[kept],
            None if self.groups is None else self.groups[queries],
        )

    @cached_property
    def witnesses(self) -> Record:
        """The record of one query of each group, drawn without a look at anything: what promises are tested on.

        Let a split be made of groups that are drawn one by one, each with all its queries, as a file is that holds six
        wordings of each message. Its queries are then no independent sample, and a test that takes them for one breaks
        its promise far more often than it says. Those drawn here are one: each is a query of a new group, all with the
        same chance, and independent of the others. So every test of independent queries holds for them, exact ones
        included, whatever the sizes of groups and however alike their queries are. What is promised is about such a
        query: a group counts once, in however many wordings. Where groups are of one size, or their size tells nothing
        of what is lost on them, that is the average over all queries.

        To average what is lost over each group would use all queries, and serve where the loss is a number of each
        query; but precision is about those that get a candidate, which some of a group may, and exact tests take 0
        or 1.
        """
        if self.groups is None:
            return self
        return replace(self.take(one_of_each(self.groups)), groups=None)

    @cached_property
    def curve(self) -> ThresholdCurve:
        """Sums over queries for every threshold that can be chosen."""
        return _curve(self)


@dataclass(frozen=True, eq=False)
class ThresholdCurve:
    """Sums over queries where presences from t on are accepted, for every recorded t, the highest first.

    Below the floor only right pairs are on record: `found` and `contained` look at nothing else; what counts wrong
    pairs too is complete at the first `recorded` places alone.
    """

    t: Floats  #: (c,) distinct presences, falling
    accepted: Floats  #: (c,) pairs
    hits: Floats  #: (c,) right ones among them
    claims: Floats  #: (c,) queries that get any candidate
    wrong: Floats  #: (c,) Σ over these of the share of wrong ones among their accepted
    found: Floats  #: (c,) Σ over answered queries of the share of their right pairs that is accepted
    contained: Floats  #: (c,) answered queries that get a right candidate
    false: Floats  #: (c,) queries without an answer that get any
    missed: Floats  #: (c,) queries that get any, and of whose candidates the best is wrong
    pairs: int  #: right pairs in all, offered or not
    answered: int  #: queries
    unanswered: int  #: queries
    floor: float

    @property
    def recorded(self) -> int:
        """How many places are not below the floor."""
        return int(np.searchsorted(-self.t, -self.floor, side="right"))

    def threshold(self, place: int) -> float:
        """Half-way from t at a place to the next below, so that equal presences are never split; `NOTHING` for −1."""
        if place < 0:
            return NOTHING
        here = float(self.t[place])
        below = float(self.t[place + 1]) if place + 1 < len(self.t) else 0.0
        if here >= self.floor:  # wrong pairs may stand right below it
            below = max(below, self.floor)
        half_way = (here + below) / 2
        return half_way if half_way > below else here  # neighbouring floats have no half

    def place(self, threshold: float) -> int:
        """Return the place of the lowest t that a threshold accepts; −1 if it accepts none."""
        return int(np.searchsorted(-self.t, -threshold, side="right")) - 1

    def at(self, threshold: float) -> dict[str, float | None]:
        """What a threshold gives on this split; None where there is nothing to measure, or nothing on record."""
        at = self.place(threshold)
        seen = threshold >= self.floor  # wrong pairs too
        value = {
            name: float(getattr(self, name)[at]) if at >= 0 else 0.0
            for name in ("accepted", "hits", "claims", "wrong", "found", "contained", "false")
        }
        both = {
            "precision": _ratio(value["claims"] - value["wrong"], value["claims"]),
            "f1": _ratio(2 * value["hits"], value["accepted"] + self.pairs),
            "pair_precision": _ratio(value["hits"], value["accepted"]),
            "accepted": _ratio(value["accepted"], self.answered + self.unanswered),
            "claims": _ratio(value["claims"], self.answered + self.unanswered),
            "false_claims": _ratio(value["false"], self.unanswered),
        }
        return {
            "precision": None,
            "recall": _ratio(value["found"], self.answered),
            "f1": None,
            "pair_precision": None,
            "pair_recall": _ratio(value["hits"], self.pairs),
            "contains": _ratio(value["contained"], self.answered),
            **(both if seen else dict.fromkeys(both)),
        }


def one_of_each(groups: Ints) -> Ints:
    """(n,) groups -> (g,) one query of each, drawn at random but the same each time; the places rise."""
    order = np.random.default_rng(0).permutation(len(groups))
    drawn: Ints = np.sort(order[np.unique(groups[order], return_index=True)[1]])
    return drawn


def threshold_table(record: Record, at: Iterable[float] | None = None) -> list[dict[str, float | None]]:
    """Rows of what thresholds give on the split; None where there is nothing to measure.

    precision, recall and false_claims are those of the rules; f1 is over all pairs; accepted is the mean per query.

    Args:
        record: of the dev split.
        at: thresholds; 0.05, 0.1, 0.2, …, 0.9, 0.95 if not given.

    Raises:
        ValueError: a threshold below the record's floor: wrong pairs there were not kept.
    """
    names = ("precision", "recall", "f1", "accepted", "false_claims")
    rows: list[dict[str, float | None]] = []
    for threshold in (0.05, *(step / 10 for step in range(1, 10)), 0.95) if at is None else at:
        if not threshold >= record.floor:
            raise ValueError(f"Expected thresholds from the record's floor of {record.floor:g} on, got {threshold}.")
        metrics = record.curve.at(threshold)
        rows.append({"threshold": float(threshold), **{name: metrics[name] for name in names}})
    return rows


def _curve(record: Record) -> ThresholdCurve:
    n = record.queries
    order = np.argsort(-record.presence, kind="stable")
    t, row, right = record.presence[order], record.rows[order], record.right[order]
    wanted = record.wanted
    together = np.argsort(row, kind="stable")
    accepted, hits = (_running(row, values.astype(np.int64), together) for values in (np.ones(len(row)), right))
    wrong = accepted - hits
    before = (wrong - (1 - right)) / np.maximum(accepted - 1, 1)
    steps = {
        "accepted": np.ones(len(row)),
        "hits": right,
        "claims": accepted == 1,
        "wrong": wrong / accepted - before,
        "found": right / np.maximum(wanted[row], 1),
        "contained": right & (hits == 1),
        "false": (accepted == 1) & ~record.answered[row],
        "missed": (accepted == 1) & ~right,
    }
    last = np.flatnonzero(np.append(t[1:] != t[:-1], True)[: len(t)])  # a threshold cannot part equal presences
    sums = {name: np.cumsum(step.astype(np.float64))[last] for name, step in steps.items()}
    answered = int(record.answered.sum())
    return ThresholdCurve(
        t[last],
        **sums,
        pairs=int(wanted.sum()),
        answered=answered,
        unanswered=n - answered,
        floor=record.floor,
    )


def _running(row: Ints, values: Ints, order: Ints) -> Ints:
    """Running sums within each row, in the order given; `order` brings the rows together."""
    total = np.cumsum(values[order])
    first = np.append(True, row[order][1:] != row[order][:-1])[: len(row)]
    before = (total - values[order])[first]
    sums = np.empty_like(total)
    sums[order] = total - before[np.cumsum(first) - 1] if len(row) else total
    return sums


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _check_presence(presence: Floats) -> None:
    wrong = ~((presence >= 0) & (presence <= 1))
    if wrong.any():
        raise ValueError(f"Expected presences between 0 and 1, got {presence[wrong][0]} among them.")
