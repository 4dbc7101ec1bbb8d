"""Which pairs of a batch are right, and which take no part: a sparse graph.

Right answers form a graph, not a diagonal and not groups: *Moon* may be right for two questions that
disagree about *Sun*. `Positives` holds that graph as two sorted lists of (row, column) pairs and never as
an n × m matrix.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

__all__ = ["Positives"]

Indices = Sequence[int] | Tensor


class Positives:
    """The right (and the ignored) pairs between n queries and m candidates.

    Args:
        rows: (k,) query index of each right pair, in [0, n).
        columns: (k,) candidate index of each right pair, in [0, m).
        shape: (n, m).
        ignored: two (i,) index lists, rows and columns, of pairs that take part in nothing: neither right
            nor wrong (unknown, or duplicates of a right answer).

    A pair given twice counts once. Every pair that is neither right nor ignored is wrong.

    Raises:
        TypeError: an index that is not an integer.
        ValueError: an index out of range, lists of different lengths, a pair both right and ignored.

    Example:
        >>> import sigmax
        >>> positives = sigmax.Positives([0, 0, 1, 2, 2], [0, 1, 0, 1, 2], shape=(3, 3))
        >>> positives.to_dense().int()
        tensor([[1, 1, 0],
                [1, 0, 0],
                [0, 1, 1]], dtype=torch.int32)
    """

    __slots__ = ("columns", "ignored_columns", "ignored_rows", "rows", "shape")

    rows: Tensor  #: (k,) int64, sorted by row, then by column, without repeats
    columns: Tensor  #: (k,) int64
    ignored_rows: Tensor  #: (i,) int64, sorted likewise
    ignored_columns: Tensor  #: (i,) int64
    shape: tuple[int, int]  #: (n queries, m candidates)

    def __init__(
        self,
        rows: Indices,
        columns: Indices,
        shape: tuple[int, int],
        ignored: tuple[Indices, Indices] | None = None,
    ) -> None:
        n, m = (int(size) for size in shape)
        if n < 0 or m < 0:
            raise ValueError(f"Expected `shape` to be two sizes of at least 0, got {(n, m)}.")
        self.shape = (n, m)
        self.rows, self.columns = _pairs(rows, columns, self.shape, "positives")
        skipped = _pairs(*(ignored or ([], [])), self.shape, "ignored")
        self.ignored_rows, self.ignored_columns = (index.to(self.device) for index in skipped)
        if len(self.rows) and len(self.ignored_rows):
            both = torch.isin(self._keys(), self._ignored_keys(), assume_unique=True)
            if bool(both.any()):
                where = int(both.nonzero()[0])
                raise ValueError(
                    f"Expected each pair to be right or ignored, got ({int(self.rows[where])}, "
                    f"{int(self.columns[where])}) as both ({int(both.sum())} such pairs). Drop it from one list."
                )

    # -- other ways to make one ------------------------------------------------------------------

    @classmethod
    def from_dense(cls, positives: Tensor | Sequence[Any], ignored: Tensor | Sequence[Any] | None = None) -> Positives:
        """Right pairs where an (n, m) matrix of 0 and 1 (or booleans) is 1; likewise `ignored`.

        Raises:
            ValueError: not a matrix, an entry other than 0 and 1, `ignored` of another shape.
        """
        right = _zero_one(positives, "positives")
        skip = None
        if ignored is not None:
            mask = _zero_one(ignored, "ignored")
            if mask.shape != right.shape:
                raise ValueError(f"Expected `ignored` of shape {tuple(right.shape)}, got {tuple(mask.shape)}.")
            left, top = mask.nonzero(as_tuple=True)
            skip = (left, top)
        rows, columns = right.nonzero(as_tuple=True)
        return cls(rows, columns, (right.shape[0], right.shape[1]), skip)

    @classmethod
    def from_ids(cls, query_ids: Iterable[Hashable], candidate_ids: Iterable[Hashable]) -> Positives:
        """Right pairs where a query's id equals a candidate's id.

        With every right answer's id on its query's row this recognises duplicates in a batch. An id of `None`
        equals nothing.

        Example:
            >>> import sigmax
            >>> sigmax.Positives.from_ids(["a", "b", "a"], ["a", "b", "c", "a"])
            Positives(5 right and 0 ignored pairs of 3 queries × 4 candidates)
        """
        return cls.from_labels(
            [() if key is None else (key,) for key in _tolist(query_ids)],
            [() if key is None else (key,) for key in _tolist(candidate_ids)],
        )

    @classmethod
    def from_labels(
        cls, query_labels: Iterable[Iterable[Hashable]], candidate_labels: Iterable[Hashable | Iterable[Hashable]]
    ) -> Positives:
        """Right pairs where a query's set of labels and a candidate's (a label, or a set of them) have one in common.

        Raises:
            TypeError: a query's labels given as one string instead of a set of strings.

        Example:
            >>> import sigmax
            >>> sigmax.Positives.from_labels([{"cat", "dog"}, set()], ["cat", "dog", "plane"]).to_dense().int()
            tensor([[1, 1, 0],
                    [0, 0, 0]], dtype=torch.int32)
        """
        holders: dict[Hashable, list[int]] = {}
        m = 0
        for j, labels in enumerate(candidate_labels):
            m = j + 1
            several = isinstance(labels, Iterable) and not isinstance(labels, str)
            held: set[Hashable] = set(cast(Iterable[Hashable], labels)) if several else {cast(Hashable, labels)}
            for label in held:
                holders.setdefault(label, []).append(j)
        rows: list[int] = []
        columns: list[int] = []
        n = 0
        for i, labels in enumerate(query_labels):
            n = i + 1
            if isinstance(labels, str):
                raise TypeError(f"Expected a set of labels for query {i}, got the string {labels!r}. Try [{labels!r}].")
            for label in set(labels):
                columns.extend(holders.get(label, ()))
                rows.extend([i] * len(holders.get(label, ())))
        return cls(rows, columns, (n, m))

    # -- reading ---------------------------------------------------------------------------------

    @property
    def counts(self) -> Tensor:
        """(n,) int64: the number of right answers of each query, |Pᵢ|."""
        return torch.bincount(self.rows, minlength=self.shape[0])

    @property
    def device(self) -> torch.device:
        """Where the index tensors are."""
        return self.rows.device

    def __len__(self) -> int:
        """Return the number of right pairs."""
        return len(self.rows)

    def __repr__(self) -> str:
        """Return the counts and the shape."""
        n, m = self.shape
        right, ignored = len(self), len(self.ignored_rows)
        return f"Positives({right} right and {ignored} ignored pairs of {n} queries × {m} candidates)"

    def __eq__(self, other: object) -> bool:
        """Return whether both hold the same pairs and shape, on any device."""
        if not isinstance(other, Positives):
            return NotImplemented
        return self.shape == other.shape and all(
            torch.equal(getattr(self, name).cpu(), getattr(other, name).cpu())
            for name in ("rows", "columns", "ignored_rows", "ignored_columns")
        )

    __hash__ = None  # type: ignore[assignment]

    def to_dense(self) -> Tensor:
        """(n, m) bool: whether each pair is right."""
        return _dense(self.rows, self.columns, self.shape)

    def ignored_to_dense(self) -> Tensor:
        """(n, m) bool: whether each pair is ignored."""
        return _dense(self.ignored_rows, self.ignored_columns, self.shape)

    # -- deriving --------------------------------------------------------------------------------

    def to(self, device: torch.device | str) -> Positives:
        """Return the same graph with its indices on `device`."""
        if torch.device(device) == self.device:
            return self
        return self._made(*(index.to(device) for index in self._indices()), shape=self.shape)

    def transpose(self) -> Positives:
        """Return the graph seen from the candidates: (m, n), row j column i."""
        rows, columns = _sorted_pairs(self.columns, self.rows, self.shape[0])
        ignored_rows, ignored_columns = _sorted_pairs(self.ignored_columns, self.ignored_rows, self.shape[0])
        return self._made(rows, columns, ignored_rows, ignored_columns, shape=(self.shape[1], self.shape[0]))

    def select_columns(self, start: int, stop: int) -> tuple[Positives, Tensor]:
        """Return the graph of the candidates in [start, stop) alone, and the places of its right pairs in this one."""
        inside = (self.columns >= start) & (self.columns < stop)
        beside = (self.ignored_columns >= start) & (self.ignored_columns < stop)
        made = self._made(
            self.rows[inside],
            self.columns[inside] - start,
            self.ignored_rows[beside],
            self.ignored_columns[beside] - start,
            shape=(self.shape[0], stop - start),
        )
        return made, inside.nonzero()[:, 0]

    def with_none(self) -> Positives:
        """Return the graph with one more candidate, *none of these*: right for the queries without a right answer."""
        n, m = self.shape
        lonely = (self.counts == 0).nonzero()[:, 0]
        rows = torch.cat([self.rows, lonely])
        columns = torch.cat([self.columns, torch.full_like(lonely, m)])
        rows, columns = _sorted_pairs(rows, columns, m + 1)
        return self._made(rows, columns, self.ignored_rows, self.ignored_columns, shape=(n, m + 1))

    def excluded(self, *, positives: bool) -> tuple[Tensor, Tensor]:
        """Rows and columns of the pairs that a sum runs past: the ignored ones, and with `positives` the right ones."""
        if not positives:
            return self.ignored_rows, self.ignored_columns
        return torch.cat([self.ignored_rows, self.rows]), torch.cat([self.ignored_columns, self.columns])

    # -- inside ----------------------------------------------------------------------------------

    @classmethod
    def _made(
        cls, rows: Tensor, columns: Tensor, ignored_rows: Tensor, ignored_columns: Tensor, *, shape: tuple[int, int]
    ) -> Positives:
        """Build from indices that are known to be sorted, unique, in range and disjoint."""
        made = cls.__new__(cls)
        made.rows, made.columns, made.ignored_rows, made.ignored_columns = rows, columns, ignored_rows, ignored_columns
        made.shape = shape
        return made

    def _indices(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.rows, self.columns, self.ignored_rows, self.ignored_columns

    def _keys(self) -> Tensor:
        return self.rows * self.shape[1] + self.columns

    def _ignored_keys(self) -> Tensor:
        return self.ignored_rows * self.shape[1] + self.ignored_columns

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as plain tensors, so that data-loader workers can send one."""
        return _rebuild, (*self._indices(), self.shape)


def _rebuild(rows: Tensor, columns: Tensor, *ignored_and_shape: Any) -> Positives:
    ignored_rows, ignored_columns, shape = ignored_and_shape
    return Positives._made(rows, columns, ignored_rows, ignored_columns, shape=shape)


def _pairs(rows: Indices, columns: Indices, shape: tuple[int, int], name: str) -> tuple[Tensor, Tensor]:
    """Check two index lists, sort them by row then column, drop repeats."""
    checked = []
    for side, indices, size in zip(("rows", "columns"), (rows, columns), shape, strict=True):
        index = torch.as_tensor(indices) if len(indices) else torch.empty(0, dtype=torch.int64)
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise TypeError(
                f"Expected integer {side} for `{name}`, got {index.dtype}. For a matrix use Positives.from_dense."
            )
        if index.ndim != 1:
            raise ValueError(f"Expected {side} of `{name}` to be a list, got a tensor of shape {tuple(index.shape)}.")
        index = index.to(torch.int64)
        if len(index) and (int(index.min()) < 0 or int(index.max()) >= size):
            wrong = int(index[(index < 0) | (index >= size)][0])
            raise ValueError(
                f"Expected {side} of `{name}` in [0, {size}) for shape {shape}, got {wrong}. Is `shape` (queries, "
                "candidates)?"
            )
        checked.append(index)
    if len(checked[0]) != len(checked[1]):
        raise ValueError(f"Expected as many rows as columns for `{name}`, got {len(checked[0])} and {len(checked[1])}.")
    if checked[0].device != checked[1].device:
        raise ValueError(
            f"Expected rows and columns of `{name}` on one device, got {checked[0].device} and {checked[1].device}."
        )
    return _sorted_pairs(checked[0], checked[1], shape[1])


def _sorted_pairs(rows: Tensor, columns: Tensor, width: int) -> tuple[Tensor, Tensor]:
    keys = torch.unique(rows * width + columns)  # sorted; n·m < 2⁶³ always holds for matrices one could index
    return (keys // width, keys % width) if width else (keys, keys.clone())


def _zero_one(matrix: Tensor | Sequence[Any], name: str) -> Tensor:
    tensor = torch.as_tensor(matrix)
    if tensor.ndim != 2:
        raise ValueError(f"Expected `{name}` to be an (n, m) matrix, got shape {tuple(tensor.shape)}.")
    if tensor.dtype == torch.bool:
        return tensor
    right = tensor == 1
    if not bool((right | (tensor == 0)).all()):
        odd = tensor[~(right | (tensor == 0))].flatten()[0].item()
        raise ValueError(
            f"Expected `{name}` to hold only 0 and 1, got {odd}. For graded scores choose a cut: scores >= cut."
        )
    return right


def _dense(rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> Tensor:
    matrix = torch.zeros(shape, dtype=torch.bool, device=rows.device)
    matrix[rows, columns] = True
    return matrix


def _tolist(ids: Iterable[Hashable]) -> list[Hashable]:
    return ids.tolist() if hasattr(ids, "tolist") else list(ids)
