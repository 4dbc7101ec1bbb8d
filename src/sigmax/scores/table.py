"""Scores: lists of candidates that any scorer gave numbers to, grouped by query, with the truth where it is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sigmax.arrays import Bools, Floats, Ints
from sigmax.errors import DataError, lookup

__all__ = ["UNJUDGED", "Scores", "blocks_of", "coded", "judged", "padded"]

#: What an empty cell of the column `right` stands for.
UNJUDGED = {
    "ignored": "such a pair takes part in nothing, and nor does a query of which only such pairs could be right",
    "wrong": "it is wrong, as is usual where qrels name the right ones",
}


@dataclass(frozen=True, eq=False)
class Scores:
    """Candidates of n queries with their scores: k rows, those of a query side by side.

    Lists may be of any length; a candidate that is on no list was not retrieved, and is not there. Where such a one is
    right, it counts as an answer that nothing can find: for recall, for *contains*, for MAP.

    Make them with `Scores.of` (columns), `Scores.from_matrix` (all candidates), `Scores.from_scorer` (a function) or
    `sigmax.scores.read_scores` (files).
    """

    columns: tuple[str, ...]  #: names of the c score columns
    values: Floats  #: (k, c); NaN where a column did not return the candidate
    starts: Ints  #: (n + 1,) the rows of query i are starts[i] to starts[i + 1]
    queries: Any  #: (n,) an Arrow array of texts
    candidates: Any  #: (k,) an Arrow array of texts
    right: NDArray[np.int8] | None = None  #: (k,) 1 right, 0 wrong, −1 unjudged; None: the truth is not known
    missing: Ints | None = None  #: (n,) right answers of each query that are on its list nowhere; None: 0
    name: str = "scores"
    notes: tuple[str, ...] = ()  #: what was found and mended, in words

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.values)

    @classmethod
    def of(
        cls,
        queries: Any,
        candidates: Any,
        scores: ArrayLike | Mapping[str, ArrayLike],
        right: ArrayLike | None = None,
        *,
        name: str = "scores",
        unjudged: str = "ignored",
    ) -> Scores:
        """Make scores of columns.

        Args:
            queries: (k,) texts or ids, in any order: rows of a query are brought together.
            candidates: (k,) texts or ids.
            scores: (k,) numbers, or column name -> (k,). NaN: the column did not return this candidate. A row without
                any number was returned by nothing; if it is right, it is a missing answer.
            right: (k,) 1 or true, 0 or false, NaN or −1 for unjudged; None: not known.
            name: of the data, for people.
            unjudged: a key of `UNJUDGED`.

        Raises:
            DataError: infinite scores, no rows.
            ValueError: columns of different lengths, no score column.

        Example:
            >>> import sigmax
            >>> scores = sigmax.Scores.of(["sky", "sky", "sea"], ["moon", "sun", "moon"], [2.1, 0.3, 0.1], [1, 1, 0])
            >>> len(scores), scores.columns
            (3, ('score',))
        """
        lookup(UNJUDGED, unjudged, "unjudged")
        named = scores if isinstance(scores, Mapping) else {"score": scores}
        if not named:
            raise ValueError("Expected at least one column of scores, got none.")
        values = np.stack([np.asarray(one, np.float64) for one in named.values()], axis=1)
        truth: NDArray[np.int8] | None = None
        if right is not None:
            given = np.asarray(right).astype(np.float64)
            truth = np.where(np.isnan(given) | (given < 0), -1, given > 0).astype(np.int8)
        return build(tuple(named), values, coded(queries), coded(candidates), truth, name=name, unjudged=unjudged)

    @classmethod
    def from_matrix(
        cls,
        scores: ArrayLike,
        right: ArrayLike | None = None,
        *,
        queries: Sequence[str] | None = None,
        candidates: Sequence[str] | None = None,
        name: str = "scores",
    ) -> Scores:
        """Make scores of an (n, m) matrix, NaN where a candidate was not returned.

        Args:
            scores: (n, m).
            right: (n, m) whether each pair is right; None: not known.
            queries: (n,) their names; numbers if not given.
            candidates: (m,) their names; numbers if not given.
            name: of the data.
        """
        matrix = np.asarray(scores, np.float64)
        n, m = matrix.shape
        rows = np.asarray(queries if queries is not None else [str(i) for i in range(n)], object)
        columns = np.asarray(candidates if candidates is not None else [str(j) for j in range(m)], object)
        truth = None if right is None else np.asarray(right).ravel()
        return cls.of(np.repeat(rows, m), np.tile(columns, n), matrix.ravel(), truth, name=name)

    @classmethod
    def from_scorer(
        cls,
        score: Callable[[str, Sequence[str]], ArrayLike],
        queries: Sequence[str],
        candidates: Sequence[str] | Sequence[Sequence[str]],
        right: Sequence[Sequence[str]] | None = None,
        *,
        name: str = "scores",
    ) -> Scores:
        """Make scores by asking a function, such as a re-ranker, a judge or an API.

        Args:
            score: (query, its candidates) -> one number each.
            queries: (n,) texts.
            candidates: of all queries, or of each its own.
            right: (n,) the right ones of each query, on its list or not; None: not known.
            name: of the data.
        """
        shared = all(isinstance(one, str) for one in candidates)
        asked: list[str] = []
        offered: list[str] = []
        scored: list[float] = []
        truth: list[int] = []
        for number, query in enumerate(queries):
            mine: Sequence[str] = candidates if shared else candidates[number]  # type: ignore[assignment]
            known = set() if right is None else set(right[number])
            beyond = [one for one in known if one not in set(mine)]
            asked += [query] * (len(mine) + len(beyond))
            offered += [*mine, *beyond]
            scored += [*np.asarray(score(query, mine), np.float64).tolist(), *[np.nan] * len(beyond)]
            truth += [int(one in known) for one in (*mine, *beyond)]
        return cls.of(asked, offered, scored, None if right is None else truth, name=name)

    @property
    def lengths(self) -> Ints:
        """(n,) how many candidates each query has."""
        lengths: Ints = np.diff(self.starts)
        return lengths

    @property
    def rows(self) -> Ints:
        """(k,) the query of each row, by its place."""
        return np.repeat(np.arange(len(self.starts) - 1), self.lengths)

    @property
    def wanted(self) -> Ints:
        """(n,) right answers of each query, on its list or not.

        Raises:
            DataError: the truth is not known.
        """
        right = self.truth
        counts: Ints = np.bincount(self.rows[right == 1], minlength=len(self.queries))
        return counts if self.missing is None else counts + self.missing

    @property
    def truth(self) -> NDArray[np.int8]:
        """(k,) `right`.

        Raises:
            DataError: it is not known.
        """
        if self.right is None:
            raise DataError(
                f"{self.name}: no column `right` that says which candidates are right (1) and wrong (0). Add one, or "
                "say its name: right=label."
            )
        return self.right

    def take(self, places: NDArray[Any]) -> Scores:
        """Return the queries at some places (or of a mask), in that order."""
        places = np.flatnonzero(places) if places.dtype == bool else places
        lengths = self.lengths[places]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        rows = np.arange(starts[-1]) + np.repeat(self.starts[places] - starts[:-1], lengths)
        return replace(
            self,
            values=self.values[rows],
            starts=starts,
            queries=self.queries.take(_indices(places)),
            candidates=self.candidates.take(_indices(rows)),
            right=None if self.right is None else self.right[rows],
            missing=None if self.missing is None else self.missing[places],
        )

    def only(self, *columns: str) -> Scores:
        """Return the same rows with some of the columns."""
        for name in columns:
            lookup(dict.fromkeys(self.columns), name, "scores")
        places = [self.columns.index(name) for name in columns]
        return replace(self, columns=columns, values=self.values[:, places])

    def with_column(self, name: str, values: Floats) -> Scores:
        """Return the same rows with one more column."""
        return replace(self, columns=(*self.columns, name), values=np.concatenate([self.values, values[:, None]], 1))


def coded(texts: Any) -> Any:
    """Texts, or anything that can be read as such -> an Arrow array of a dictionary."""
    import pyarrow

    if isinstance(texts, pyarrow.ChunkedArray):
        texts = texts.unify_dictionaries().combine_chunks() if len(texts.chunks) != 1 else texts.chunk(0)
    if isinstance(texts, pyarrow.DictionaryArray):
        return texts
    if not isinstance(texts, pyarrow.Array):
        texts = pyarrow.array([str(one) for one in texts], pyarrow.string())
    return texts.dictionary_encode()


def build(
    columns: tuple[str, ...],
    values: Floats,
    queries: Any,
    candidates: Any,
    right: NDArray[np.int8] | None,
    *,
    missing: Mapping[str, int] | None = None,
    name: str,
    unjudged: str,
    notes: Sequence[str] = (),
) -> Scores:
    """Bring the rows of each query together, drop what cannot be used, and say so.

    Args:
        columns: (c,) names.
        values: (k, c).
        queries: (k,) a dictionary array.
        candidates: (k,) a dictionary array.
        right: (k,) 1, 0 or −1; None: not known.
        missing: query -> right answers that no row names; queries that have no row at all count too.
        name: of the data.
        unjudged: a key of `UNJUDGED`.
        notes: what is known already.

    Raises:
        DataError: infinite scores, no rows.
        ValueError: columns of different lengths.
    """
    import pyarrow

    k = len(values)
    if not (len(queries) == len(candidates) == k and (right is None or len(right) == k)):
        raise ValueError(
            f"Expected columns of one length, got {len(queries)} queries, {len(candidates)} candidates, {k} scores"
            + ("." if right is None else f" and {len(right)} of `right`.")
        )
    if not k:
        raise DataError(f"{name}: no rows.")
    check_finite(values, columns, name)
    said = list(notes)
    code, other = (np.asarray(one.indices, np.int64) for one in (queries, candidates))
    names = queries.dictionary
    if unjudged == "wrong" and right is not None:
        right = np.maximum(right, 0)
    order = None if (np.diff(code) >= 0).all() else np.argsort(code, kind="stable")
    if order is not None:
        code, other, values = code[order], other[order], values[order]
        right = None if right is None else right[order]
        candidates = candidates.take(_indices(order))
    code, other, values, candidates, right = _once(code, other, values, candidates, right, said)
    gone = np.zeros(len(names), np.int64)
    empty = np.isnan(values).all(1)
    if empty.any():
        if right is not None:
            gone += np.bincount(code[empty & (right == 1)], minlength=len(names))
        said.append(
            f"{int(empty.sum()):,} rows have no score: nothing returned them"
            + (f"; {int(gone.sum()):,} of them are right, and count as not found" if gone.any() else "")
        )
        keep = np.flatnonzero(~empty)
        code, values, candidates = code[keep], values[keep], candidates.take(_indices(keep))
        right = None if right is None else right[keep]
    if missing:
        known = {query: place for place, query in enumerate(names.to_pylist())}
        new = [query for query in missing if query not in known]
        known |= {query: len(names) + place for place, query in enumerate(new)}
        names = pyarrow.concat_arrays([names, pyarrow.array(new, names.type)])
        gone = np.concatenate([gone, np.zeros(len(new), np.int64)])
        for query, count in missing.items():
            gone[known[query]] += count
    starts = np.concatenate([[0], np.cumsum(np.bincount(code, minlength=len(names)))])
    found = Scores(columns, values, starts, names, candidates, right, gone if gone.any() else None, name, tuple(said))
    used = (found.lengths > 0) | (gone > 0)
    return found if used.all() else found.take(used)


def _once(
    code: Ints, other: Ints, values: Floats, candidates: Any, right: NDArray[np.int8] | None, said: list[str]
) -> tuple[Ints, Ints, Floats, Any, NDArray[np.int8] | None]:
    """Rows of which none repeats a query and candidate: the first of each, right if any of them is."""
    width = int(other.max(initial=0)) + 1
    key = code * width + other
    first = np.argsort(key, kind="stable")
    repeats = np.flatnonzero(np.append(False, np.diff(key[first]) == 0))
    if not len(repeats):
        return code, other, values, candidates, right
    if right is not None:
        truth = right.copy()
        group = np.cumsum(np.append(True, np.diff(key[first]) != 0)) - 1
        highest = np.full(group[-1] + 1, -1, np.int8)
        np.maximum.at(highest, group, right[first])
        truth[first] = highest[group]
        right = truth
    keep = np.ones(len(code), bool)
    keep[first[repeats]] = False
    said.append(f"{len(repeats):,} rows repeat a query and candidate: the first row of each is kept")
    rows = np.flatnonzero(keep)
    return (
        code[rows],
        other[rows],
        values[rows],
        candidates.take(_indices(rows)),
        None if right is None else right[rows],
    )


def check_finite(values: Floats, columns: Sequence[str], name: str, before: int = 0) -> None:
    """Check that no score is infinite.

    Raises:
        DataError: one is; the message names row and column.
    """
    if np.isinf(values).any():
        row, column = np.argwhere(np.isinf(values))[0]
        raise DataError(
            f"{name}, row {before + row + 1}: the score {values[row, column]} of column {columns[column]!r} is not "
            "finite. Leave the cell empty where a candidate was not returned."
        )


def judged(scores: Scores) -> Scores:
    """Return the queries of which it is known whether anything is right, and say how many were left out.

    A query with unjudged candidates and no right one may have an answer among them.
    """
    right, rows = scores.truth, scores.rows
    n = len(scores.queries)
    open_ = np.bincount(rows[right < 0], minlength=n) > 0
    unknown = open_ & (scores.wanted == 0)
    if not unknown.any():
        return scores
    if unknown.all():
        raise DataError(
            f"{scores.name}: no query has a judged candidate that decides whether anything is right. Fill in the "
            "column right: 1 or 0; or, if an empty cell means wrong, say so: --unjudged wrong."
        )
    note = f"{int(unknown.sum()):,} queries have unjudged candidates and no right one: left out"
    return replace(scores.take(~unknown), notes=(*scores.notes, note))


def padded(starts: Ints, least: int = 1) -> tuple[Ints, Bools]:
    """(n + 1,) starts -> (n, w) rows of each query and whether they are its own; w the longest, or `least`."""
    lengths = np.diff(starts)
    width = max(int(lengths.max(initial=0)), least)
    there = np.arange(width) < lengths[:, None]
    index = np.where(there, starts[:-1, None] + np.arange(width), 0)
    return index, there


def blocks_of(lengths: Ints, cells: int = 2**20) -> Iterator[Ints]:
    """Give places of queries, in blocks of similar length that take at most about so many cells side by side."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        step = 1
        while step:  # the widest of a block is its last
            step = min(step * 2, len(order) - stop)
            while step and (stop + step - start) * lengths[order[stop + step - 1]] > cells:
                step //= 2
            stop += step
        yield order[start:stop]
        start = stop


def _indices(places: NDArray[Any]) -> Any:
    import pyarrow

    return pyarrow.array(places, pyarrow.int64())
