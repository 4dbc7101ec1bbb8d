"""The losses once more, as their docstrings state them: loops over floats, sharing no code with `sigmax`.

Also `Batch` and `batches()`: small random batches to compare them on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from sigmax import Positives

Matrix = list[list[float]]
Pairs = set[tuple[int, int]]


# -- logits --------------------------------------------------------------------------------------


def logits(
    queries: Matrix,
    candidates: Matrix,
    scale: float,
    bias: float = 0.0,
    log_q: list[float] | None = None,
    similarity: str = "cosine",
) -> Matrix:
    """s = logit_scale · ⟨query, candidate⟩ + logit_bias − log q."""
    log_q = log_q or [0.0] * len(candidates)
    length = math.hypot if similarity == "cosine" else lambda *_: 1.0
    return [
        [
            scale * sum(a * b for a, b in zip(x, y, strict=True)) / (length(*x) * length(*y)) + bias - log_q[j]
            for j, y in enumerate(candidates)
        ]
        for x in queries
    ]


# -- the loss of one row: its logits, its right answers, and the candidates offered (right or wrong) -------


RowLoss = Callable[[list[float], set[int], set[int]], float | None]
ROW_LOSSES: dict[str, RowLoss] = {}
FLOORS: dict[str, Callable[[int], float]] = {}  #: the smallest loss with k right answers


def oracle(name: str, floor: Callable[[int], float]) -> Callable[[RowLoss], RowLoss]:
    """Register the second telling of an objective: all that a new loss needs here."""

    def register(row_loss: RowLoss) -> RowLoss:
        ROW_LOSSES[name], FLOORS[name] = row_loss, floor
        return row_loss

    return register


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@oracle("softmax-average", floor=math.log)
def softmax_average(s: list[float], right: set[int], offered: set[int]) -> float | None:
    if not right:
        return None
    total = math.log(sum(math.exp(s[j]) for j in offered))
    return total - sum(s[p] for p in right) / len(right)


@oracle("softmax-decoupled", floor=lambda k: 0.0)
def softmax_decoupled(s: list[float], right: set[int], offered: set[int]) -> float | None:
    if not right:
        return None
    wrong = sum(math.exp(s[j]) for j in offered - right)
    return -sum(math.log(math.exp(s[p]) / (math.exp(s[p]) + wrong)) for p in right) / len(right)


@oracle("softmax-any", floor=lambda k: 0.0)
def softmax_any(s: list[float], right: set[int], offered: set[int]) -> float | None:
    if not right:
        return None
    total = sum(math.exp(s[j]) for j in offered)
    return -math.log(sum(math.exp(s[p]) / total for p in right))


@oracle("softmax-pairs", floor=lambda k: 0.0)
def softmax_pairs(s: list[float], right: set[int], offered: set[int]) -> float | None:
    if not right:
        return None
    return math.log(1 + sum(math.exp(s[j] - s[p]) for p in right for j in offered - right))


@oracle("sigmoid", floor=lambda k: 0.0)
def sigmoid(s: list[float], right: set[int], offered: set[int]) -> float:
    return sum(-math.log(sigma(s[j])) for j in right) + sum(-math.log(sigma(-s[j])) for j in offered - right)


# -- the loss of a batch -------------------------------------------------------------------------


def row_losses(name: str, s: Matrix, shape: tuple[int, int], right: Pairs, ignored: Pairs) -> list[float | None]:
    """The loss of each query; None where it is left out."""
    n, m = shape
    return [
        ROW_LOSSES[name](
            s[i] if m else [],
            {j for j in range(m) if (i, j) in right},
            {j for j in range(m) if (i, j) not in ignored},
        )
        for i in range(n)
    ]


def loss(
    name: str,
    s: Matrix,
    shape: tuple[int, int],
    right: Pairs,
    ignored: Pairs,
    directions: str = "queries",
    reduction: str = "mean",
) -> float | list[float]:
    """The whole loss of a matrix of logits."""
    n, m = shape
    sides = [row_losses(name, s, shape, right, ignored)]
    if directions == "both":
        turned = [[s[i][j] for i in range(n)] for j in range(m)]
        sides.append(row_losses(name, turned, (m, n), {(j, i) for i, j in right}, {(j, i) for i, j in ignored}))
    if reduction == "none":
        return [(x or 0.0) / len(sides) for side in sides for x in side]
    parts = []
    for side in sides:
        counted = [x for x in side if x is not None]
        parts.append(sum(counted) / (max(len(counted), 1) if reduction == "mean" else 1))
    return sum(parts) / len(parts)


def supcon(vectors: Matrix, labels: list[int], temperature: float) -> float:
    """L_out of Khosla et al. 2020: every vector is an anchor, the others of its label are its positives."""
    z = logits(vectors, vectors, 1 / temperature)
    losses = []
    for i, label in enumerate(labels):
        others = [a for a in range(len(labels)) if a != i]
        same = [p for p in others if labels[p] == label]
        total = sum(math.exp(z[i][a]) for a in others)
        if same:
            losses.append(-sum(math.log(math.exp(z[i][p]) / total) for p in same) / len(same))
    return sum(losses) / len(losses)


def tiles_of(height: int, width: int) -> Callable[[int, int, int, bool], tuple[int, int]]:
    """What to put in the place of `tiled._tile`: tiles of this size, and rows whole where they are asked for."""
    return lambda n, m, itemsize, whole_rows: (height, max(1, m) if whole_rows else width)


# -- batches to compare on -----------------------------------------------------------------------


@dataclass
class Batch:
    queries: Tensor  #: (n, d) float64
    candidates: Tensor  #: (m, d) float64
    cells: Tensor  #: (n, m) int: 0 wrong, 1 right, 2 ignored

    @property
    def positives(self) -> Positives:
        return Positives.from_dense(self.cells == 1, self.cells == 2)

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.cells.shape)

    @property
    def right(self) -> Pairs:
        return {(i, j) for i, j in (self.cells == 1).nonzero().tolist()}

    @property
    def ignored(self) -> Pairs:
        return {(i, j) for i, j in (self.cells == 2).nonzero().tolist()}

    def leaves(self) -> tuple[Tensor, Tensor]:
        """Copies of the vectors which want a gradient."""
        return self.queries.clone().requires_grad_(), self.candidates.clone().requires_grad_()


def random_batch(n: int, m: int, d: int = 4, *, seed: int = 0, odds: tuple[float, ...] = (0.6, 0.25, 0.15)) -> Batch:
    """Normal vectors; each pair wrong, right or ignored with probabilities `odds`."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randn(n, d, generator=generator, dtype=torch.float64)
    candidates = torch.randn(m, d, generator=generator, dtype=torch.float64)
    cuts = torch.tensor(odds, dtype=torch.float64).cumsum(0)[:2]
    cells = torch.bucketize(torch.rand(n, m, generator=generator, dtype=torch.float64), cuts, right=True)
    return Batch(queries, candidates, cells)


@st.composite
def batches(draw: st.DrawFn, smallest: int = 0, largest: int = 6) -> Batch:
    n, m = draw(st.integers(smallest, largest)), draw(st.integers(smallest, largest))
    batch = random_batch(n, m, draw(st.integers(1, 4)), seed=draw(st.integers(0, 2**32 - 1)))
    cells = draw(st.lists(st.lists(st.integers(0, 2), min_size=m, max_size=m), min_size=n, max_size=n))
    batch.cells = torch.tensor(cells, dtype=torch.int64).reshape(n, m)
    return batch
