"""What one training step sees: some queries, candidates for them, and every known right pair between the two.

A batch is a pure function of (data, settings, seed, its number), so any process can make any batch, and a run that
resumes at step t goes on with batch t. W processes share each batch: W times as many queries are drawn, and every
process takes its part of the queries and of the candidates. What W processes see together is what one process sees
with W times the batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sigmax.data.dataset import Indices, MatchDataset, row_of
from sigmax.errors import check_least, lookup
from sigmax.positives import Positives

__all__ = ["DRAWS", "Batch", "Batches", "Draw", "training_weights"]

#: Up to this many candidates, every one of them is offered in every batch.
OFFER_ALL = 512
#: Wrong candidates near each query that a batch draws.
NEAR = 2


@dataclass(frozen=True)
class Batch:
    """Queries, candidates and the right pairs between them."""

    queries: Indices  #: (n,) places in the data set
    candidates: Indices  #: (m,) places in the data set
    positives: Positives  #: (n, m); for a process's part (n, candidates of all processes)

    def part(self, rank: int, processes: int) -> Batch:
        """Return what process `rank` holds: its share of queries and candidates.

        Raises:
            ValueError: there is not one of each for every process.
        """
        if processes == 1:
            return self
        if min(len(self.queries), len(self.candidates)) < processes:
            raise ValueError(
                f"Expected at least one query and one candidate a process and batch, got {len(self.queries)} queries "
                f"and {len(self.candidates)} candidates for {processes} processes. Use fewer."
            )
        shares = np.array_split(np.arange(len(self.queries)), processes)
        mine = shares[rank]
        of_mine = torch.isin(self.positives.rows, torch.from_numpy(mine))
        shape = (len(mine), len(self.candidates))
        right = Positives(self.positives.rows[of_mine] - int(mine[0]), self.positives.columns[of_mine], shape)
        return Batch(self.queries[mine], np.array_split(self.candidates, processes)[rank], right)


@dataclass(frozen=True)
class Draw:
    """A way to make batches."""

    describes: str
    units: Callable[[MatchDataset, Indices], Indices]  #: data, queries -> (u, …) what an epoch goes through
    make: Callable[[Batches, Indices, np.random.Generator], Batch]  #: some of the units -> a batch


class Batches(torch.utils.data.Dataset[Batch]):
    """The batches of a training run, by number.

    Each epoch goes through the split once in an order of its own, in batches whose sizes differ by at most one.

    Args:
        data: the data set.
        batch_size: maximum queries per batch and process.
        steps: number of batches; None for `epochs` epochs.
        epochs: passes over the split, where `steps` is None.
        answers: right answers drawn a query, at most.
        negatives: further candidates drawn at random, or None: all of them while there are at most `OFFER_ALL`,
            else none beside the other queries' answers.
        seed: two runs with one seed see the same batches.
        split: which queries to train on.
        draw: how a batch is made, a name in `DRAWS`.
        near: (queries of the data, k) wrong candidates near each query, −1 where there are no more; a batch that does
            not offer all draws `NEAR` of them for each of its queries.
        processes: how many processes share each batch. Item t · processes + r is process r's part of batch t.

    Raises:
        ValueError: a size below 1 (negatives: below 0).
    """

    def __init__(
        self,
        data: MatchDataset,
        *,
        batch_size: int = 128,
        steps: int | None = None,
        epochs: float = 10,
        answers: int = 4,
        negatives: int | None = None,
        seed: int = 0,
        split: str = "train",
        draw: str = "known-positives",
        near: Indices | None = None,
        processes: int = 1,
    ) -> None:
        check_least(1, batch_size=batch_size, steps=steps, answers=answers, processes=processes)
        check_least(0, negatives=negatives)
        self.data = data
        self.answers = answers
        self.offer_all = negatives is None and len(data.candidates) <= OFFER_ALL
        self.negatives = negatives or 0
        self.near = near
        self.seed = seed
        self.draw = lookup(DRAWS, draw, "draw")
        self.units = self.draw.units(data, data.split(split))
        self.processes = processes
        self.steps_per_epoch = math.ceil(len(self.units) / (batch_size * processes))
        self.steps = steps if steps is not None else max(1, math.ceil(self.steps_per_epoch * epochs))
        self._order: tuple[int, list[Indices]] | None = None

    def __len__(self) -> int:
        """Return the number of items: batches of the whole run, times processes."""
        return self.steps * self.processes

    def __getitem__(self, item: int) -> Batch:
        """Make item t · processes + r, in [0, len(self)): process r's part of batch t."""
        if not 0 <= item < len(self):
            raise IndexError(f"Expected the number of an item in [0, {len(self)}), got {item}.")
        number, rank = divmod(item, self.processes)
        epoch, place = divmod(number, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            shuffled = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.units))
            self._order = (epoch, np.array_split(shuffled, self.steps_per_epoch))
        units = self.units[self._order[1][place]]
        batch = self.draw.make(self, units, np.random.default_rng([self.seed, 1, number]))
        return batch.part(rank, self.processes)

    def positive_rate(self, sample: int = 16) -> float:
        """Return the share of right pairs among all pairs, over the first few batches."""
        graphs = [self[item].positives for item in range(min(sample * self.processes, len(self)))]
        return sum(map(len, graphs)) / sum(math.prod(graph.shape) for graph in graphs)


def training_weights(data: MatchDataset) -> torch.Tensor | None:
    """Return (n,) weights of the queries, scaled to a mean of 1 over those of training; None: all count alike."""
    if data.weights is None:
        return None
    return torch.from_numpy(data.weights / data.weights[data.split("train")].mean())


def known_positives(batches: Batches, units: Indices, random: np.random.Generator) -> Batch:
    """Draw up to `answers` right answers a query, add wrong ones, and mark every known right pair.

    However a candidate came in, as this query's answer, another's, a drawn or an explicit wrong answer: if the
    data says that it is right for a query of the batch, it is trained as right.
    """
    data, queries = batches.data, units[:, 0]
    if batches.offer_all:
        candidates = np.arange(len(data.candidates))
    else:
        drawn = [_sample(row_of(data.graph, i), batches.answers, random) for i in queries]
        drawn += [_sample(row_of(data.wrong_graph, i), batches.answers, random) for i in queries]
        drawn.append(random.integers(len(data.candidates), size=batches.negatives))
        if batches.near is not None:
            drawn.append(_near(batches.near[queries], random))
        candidates = np.unique(np.concatenate(drawn))
    if not len(candidates):  # only queries without any answer: something must be there to be wrong
        candidates = random.integers(len(data.candidates), size=1)
    rows, columns = data.graph[queries][:, candidates].nonzero()
    return _batch(queries, candidates, rows, columns)


def one_positive(batches: Batches, units: Indices, random: np.random.Generator) -> Batch:
    """One right pair per row, everything else in the batch wrong, as in-batch losses are used today.

    Another right answer of the same query, or the same answer twice, counts as wrong: the fault that Sigmax exists to
    fix.
    """
    queries, candidates = units[:, 0], units[:, 1]
    diagonal = np.arange(len(units))
    return _batch(queries, candidates, diagonal, diagonal)


def _each_query(data: MatchDataset, queries: Indices) -> Indices:
    return queries[:, None]


def _each_pair(data: MatchDataset, queries: Indices) -> Indices:
    pairs: Indices = data.pairs[np.isin(data.pairs[:, 0], queries)]
    return pairs


#: The ways to make batches, by name.
DRAWS: dict[str, Draw] = {
    "known-positives": Draw(
        "queries with several of their right answers, every known right pair marked",
        _each_query,
        known_positives,
    ),
    "one-positive": Draw(
        "one right pair per row, everything else in the batch wrong",
        _each_pair,
        one_positive,
    ),
}


def _sample(values: Indices, most: int, random: np.random.Generator) -> Indices:
    return values if len(values) <= most else random.choice(values, most, replace=False)


def _near(rows: Indices, random: np.random.Generator) -> Indices:
    """Draw `NEAR` = 2 of what each of (n, k) rows holds beside −1, all if there are no more: `_sample` of many at once.

    By the algorithm, and the random numbers, of `random.choice` (Floyd's, Bentley & Floyd 1987): of c, one of the first
    c − 1, then one of all, the last where that is taken; and a number for their order, which does not matter here.
    """
    held = rows >= 0
    counts = held.sum(1)
    several = counts > NEAR
    c = counts[several]
    bounds = np.stack([c - 2, c - 1, np.ones_like(c)], axis=1)
    first, second, _ = random.integers(0, bounds, endpoint=True).T
    second = np.where(second == first, c - 1, second)
    full = np.take_along_axis(rows[several], np.argsort(~held[several], axis=1, kind="stable"), 1)
    places = np.arange(len(c))
    return np.concatenate([full[places, first], full[places, second], rows[~several][held[~several]]])


def _batch(queries: Indices, candidates: Indices, rows: NDArray[Any], columns: NDArray[Any]) -> Batch:
    right_rows, right_columns = (torch.from_numpy(index.astype(np.int64)) for index in (rows, columns))
    return Batch(queries, candidates, Positives(right_rows, right_columns, (len(queries), len(candidates))))
