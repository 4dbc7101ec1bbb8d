"""MatchDataset: queries, candidates, and which pairs are right. The one form every reader produces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sigmax.data.normal import normal
from sigmax.data.pictures import Picture, Query, key_of
from sigmax.data.texts import Numbered, TextsOnDisk, digest
from sigmax.errors import DataError, lookup

if TYPE_CHECKING:
    from scipy import sparse

__all__ = ["CONFLICTS", "SPLITS", "Indices", "MatchDataset", "row_of", "seeded_split", "settled"]

Indices = NDArray[np.int64]

#: The parts of every data set: trained on, chosen on, reported on.
SPLITS = ("train", "dev", "test")

#: What becomes of a pair that the data calls right and wrong at once.
CONFLICTS = {
    "right": "right was kept",
    "wrong": "wrong was kept",
    "drop": "both were dropped, as if nothing had been said",
}


@dataclass(frozen=True, eq=False)
class MatchDataset:
    """Queries, the candidates offered to them, and the right pairs.

    A pair that is not in `pairs` is wrong as far as the data says; pairs in `wrong` are *known* to be wrong
    and worth training against (hard negatives).

    Raises:
        DataError: a query that is neither a text nor a picture, texts beside pictures, a candidate that is no text;
            pairs out of range, a pair both right and wrong, an empty or unknown split, weights that are
            negative or none in training.
    """

    name: str
    queries: Sequence[Query]  #: texts, or pictures
    candidates: Sequence[str]
    pairs: Indices  #: (k, 2) query and candidate of each right pair; sorted and made unique
    #: "train", "dev", "test" -> query indices, disjoint; what is only trained on may come without "test"
    splits: Mapping[str, Indices]
    wrong: Indices = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))  #: (w, 2) explicit wrong pairs
    labels: bool = False  #: candidates are a fixed set of labels, not texts of their own
    query_ids: Sequence[str] = ()
    candidate_ids: Sequence[str] = ()
    conflicts: int = 0  #: pairs that came as right and wrong at once, see `settled`
    notes: tuple[str, ...] = ()  #: what its reader left out or settled, in words
    weights: NDArray[np.float64] | None = None  #: (n,) how much each query counts in training; None: all alike

    def __post_init__(self) -> None:
        """Sort and check."""
        set_ = object.__setattr__
        self._check_kinds()
        for name in ("pairs", "wrong"):
            given = np.asarray(getattr(self, name), dtype=np.int64).reshape(-1, 2)
            set_(self, name, np.unique(given, axis=0))
            shape = (len(self.queries), len(self.candidates))
            outside = ((given < 0) | (given >= shape)).any(1)
            if outside.any():
                i, j = given[outside][0].tolist()
                raise DataError(f"{self.name}: expected `{name}` inside {shape} (queries, candidates), got {(i, j)}.")
        if not self.query_ids:
            names = list(map(str, self.queries)) if self.pictures else Numbered("q", len(self.queries))
            set_(self, "query_ids", names)
        if not self.candidate_ids:
            set_(self, "candidate_ids", self.candidates)
        both = (self.graph.multiply(self.wrong_graph)).nonzero()
        if len(both[0]):
            i, j = both[0][0], both[1][0]
            raise DataError(
                f"{self.name}: {len(both[0])} pairs are both right and wrong, the first of them "
                f"{self.queries[i]!r} → {self.candidates[j]!r}. Drop one of the two."
            )
        set_(
            self,
            "splits",
            {part: _indices(given, f"{self.name}: the {part} split") for part, given in self.splits.items()},
        )
        holder = np.full(len(self.queries), -1)
        for place, (part, indices) in enumerate(self.splits.items()):
            outside = (indices < 0) | (indices >= len(self.queries))
            if outside.any():
                i = indices[outside][0]
                raise DataError(f"{self.name}: expected the {part} split in [0, {len(self.queries)}), got {i}.")
            if (holder[indices] >= 0).any():
                i = indices[holder[indices] >= 0][0]
                before = list(self.splits)[holder[i]]
                raise DataError(
                    f"{self.name}: query {self.queries[i]!r} is in the splits {before} and {part}. Each query "
                    "belongs to one."
                )
            holder[indices] = place
        for part in SPLITS if "test" in self.splits else ("train", "dev"):
            if not len(self.splits.get(part, ())):
                different = len({normal(str(query)) for query in self.queries})
                if different < len(SPLITS):
                    raise DataError(
                        f"{self.name}: expected at least {len(SPLITS)} different queries, one each for "
                        f"{', '.join(SPLITS)}, got {different} in {len(self.queries)} rows."
                    )
                raise DataError(
                    f"{self.name}: the {part} split is empty (splits: "
                    f"{', '.join(f'{key} {len(value)}' for key, value in self.splits.items()) or 'none'}). "
                    "Give each of train, dev and test at least one query, or no split at all to have one made."
                )

        if self.weights is not None:
            weights = np.asarray(self.weights, dtype=np.float64)
            if weights.shape != (len(self.queries),) or not (np.isfinite(weights).all() and (weights >= 0).all()):
                raise DataError(f"{self.name}: expected {len(self.queries)} finite weights, none of them negative.")
            if not weights[self.split("train")].any():
                raise DataError(f"{self.name}: expected a weight above 0 in training, got none.")
            set_(self, "weights", weights)

    def _check_kinds(self) -> None:
        """Refuse what is neither text nor picture here, where its place is known, and not in the middle of training."""
        for side, kinds in (("queries", (str, Picture)), ("candidates", (str,))):
            items = getattr(self, side)
            if isinstance(items, TextsOnDisk):
                continue
            if isinstance(items, str):
                raise DataError(f"{self.name}: expected `{side}` to be a list, got one text: {items[:60]!r}.")
            kind = type(items[0]) if len(items) and issubclass(type(items[0]), str | Picture) else str
            for i, item in enumerate(items):
                if not isinstance(item, kinds):
                    what = "a text" if side == "candidates" else "a text or a picture"
                    raise DataError(f"{self.name}: expected {what} at {i} of `{side}`, got {item!r}.")
                if not isinstance(item, kind):
                    raise DataError(f"{self.name}: expected texts or pictures in `{side}`, got both ({i}: {item!r}).")

    @cached_property
    def graph(self) -> sparse.csr_array:
        """(n, m) sparse: 1 where the pair is right."""
        return self._sparse(self.pairs)

    @cached_property
    def wrong_graph(self) -> sparse.csr_array:
        """(n, m) sparse: 1 where the pair is known to be wrong."""
        return self._sparse(self.wrong)

    @cached_property
    def answer_counts(self) -> Indices:
        """(n,) number of right answers of each query."""
        return np.bincount(self.pairs[:, 0], minlength=len(self.queries))

    @property
    def pictures(self) -> bool:
        """Whether queries are pictures."""
        return len(self.queries) > 0 and isinstance(self.queries[0], Picture)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of texts or pictures, pairs and splits: equal for equal data."""
        hashed = hashlib.blake2b(digest_size=8)
        for texts in (map(key_of, self.queries), self.candidates):
            for i, text in enumerate(texts):
                hashed.update(f"\0{text}".encode() if i else text.encode())
        for indices in (self.pairs, self.wrong, *(self.splits[name] for name in sorted(self.splits))):
            hashed.update(np.ascontiguousarray(indices).tobytes())
        if self.weights is not None:
            hashed.update(self.weights.tobytes())
        return hashed.hexdigest()

    def unanswered(self, split: str) -> int:
        """Return how many queries of a split have no right answer."""
        return int((self.answer_counts[self.split(split)] == 0).sum())

    def check_answers(self, splits: Iterable[str]) -> None:
        """Check that each of some splits has a right pair and one that is not.

        Raises:
            DataError: one in which nothing is right, or everything.
        """
        for name in splits:
            counts = self.answer_counts[self.split(name)]
            if (counts == len(self.candidates)).all():
                raise DataError(
                    f"{self.name}: every candidate is right for every {name} query; there is nothing to tell apart. "
                    "Add candidates that are wrong, or queries for which some are."
                )
            if not counts.any():
                what = "measure" if name == "test" else "learn from"
                raise DataError(f"{self.name}: no {name} query has a right answer; there is nothing to {what}.")

    def split(self, name: str) -> Indices:
        """Return the query indices of a split.

        Raises:
            ValueError: an unknown split.
        """
        return lookup(self.splits, name, "split")

    def without_candidates(self, hidden: NDArray[np.bool_], name: str) -> MatchDataset:
        """Take candidates away: queries whose right answers were all among them are left with none."""
        kept: list[int] = np.flatnonzero(~hidden).tolist()
        place = np.full(len(self.candidates), -1, dtype=np.int64)
        place[kept] = np.arange(len(kept))

        def moved(pairs: Indices) -> Indices:
            return np.stack([pairs[:, 0], place[pairs[:, 1]]], axis=1)[place[pairs[:, 1]] >= 0]

        return replace(
            self,
            name=name,
            candidates=[self.candidates[j] for j in kept],
            candidate_ids=[self.candidate_ids[j] for j in kept],
            pairs=moved(self.pairs),
            wrong=moved(self.wrong),
        )

    def _sparse(self, pairs: Indices) -> sparse.csr_array:
        from scipy import sparse  # takes as long to import as everything else that listing the formats needs

        ones = np.ones(len(pairs), dtype=np.int8)
        shape = (len(self.queries), len(self.candidates))
        return sparse.csr_array((ones, (pairs[:, 0], pairs[:, 1])), shape=shape)


def _indices(given: object, what: str) -> Indices:
    """Queries of a split as an array, whatever sequence they came in."""
    found = np.asarray(given)
    if found.size and found.dtype.kind not in "iu":
        raise DataError(f"{what}: expected the numbers of queries, got {found.dtype} such as {found.flat[0]!r}.")
    return found.astype(np.int64).reshape(-1)


def settled(pairs: Indices, wrong: Indices, conflicts: str) -> tuple[Indices, Indices, int, list[str]]:
    """Settle what is right and wrong at once.

    Args:
        pairs: (k, 2) right pairs.
        wrong: (w, 2) pairs known to be wrong.
        conflicts: a key of `CONFLICTS`.

    Returns:
        Both, settled; how many different pairs were in both; and a note that says so, if there are any.

    Raises:
        UnknownNameError: another word.
    """
    lookup(CONFLICTS, conflicts, "conflicts")
    width = 1 + max((int(array[:, 1].max()) for array in (pairs, wrong) if len(array)), default=0)
    right_keys, wrong_keys = (array[:, 0] * width + array[:, 1] for array in (pairs, wrong))
    both = np.intersect1d(right_keys, wrong_keys)
    if len(both) and conflicts != "right":
        pairs = pairs[~np.isin(right_keys, both)]
    if len(both) and conflicts != "wrong":
        wrong = wrong[~np.isin(wrong_keys, both)]
    note = f"{len(both):,} pairs are right and wrong at once; for each of them {CONFLICTS[conflicts]} (`conflicts`)."
    return pairs, wrong, len(both), [note] if len(both) else []


def row_of(graph: sparse.csr_array, i: int) -> Indices:
    """Return the candidates that a graph joins to query i."""
    row: Indices = graph.indices[graph.indptr[i] : graph.indptr[i + 1]]
    return row


def seeded_split(keys: Iterable[str], *, seed: int = 0, shares: tuple[float, float] = (0.8, 0.1)) -> dict[str, Indices]:
    """Split by query: the order of a seeded hash of each key decides, so equal keys stay together.

    Args:
        keys: one text per query; equal texts land in the same part.
        seed: another seed, another split.
        shares: of train and dev; test is the rest.
    """
    hashed = np.fromiter((int.from_bytes(digest(f"{seed}:{normal(key)}", 8), "big") for key in keys), dtype=np.uint64)
    distinct, place = np.unique(hashed, return_inverse=True)
    dev = max(1, round(len(distinct) * shares[1]))
    train = min(max(1, round(len(distinct) * shares[0])), max(1, len(distinct) - dev - 1))
    part = np.searchsorted([train, train + dev], place, side="right")
    return {name: np.flatnonzero(part == number) for number, name in enumerate(SPLITS)}
