r"""Many queries' loss as a function of a linear model's weights, in coordinates in which the minimum is found soon.

The minimum is that of any other solver; how fast it is found depends on the coordinates.

- Dense features are rotated to their principal axes.
- Sparse features stay as they are, but columns that are multiples of one another become one, exactly: of columns
  cₖ·u with weights wₖ, only Σₖ cₖ wₖ meets a query, and |w|² is least where w is in proportion to c. Many n-grams are
  such: all those of one text alone, and those that no other word has. They are not turned, which would fill them; the
  solver is told of their strongest axes: all texts share the most frequent n-grams, and across those logits are stiff.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from sigmax.arrays import Bools, Ints
from sigmax.errors import lookup
from sigmax.families import OBJECTIVES, Objective, Partition, directed_loss
from sigmax.positives import Positives
from sigmax.training.lbfgs import Lbfgs, Scale

__all__ = ["Coordinates", "HeldOut", "Problem", "coordinates_of", "counted_rows", "positives_of"]

#: Logits computed at a time: they bound the memory beside the features.
PAIR_BLOCK = 2**24
#: Logits that stay in the cache over several operations.
CACHED = 2**17
#: Queries that the curvature is measured on.
MEASURED = 4096
#: Principal axes of sparse features that the solver is told of.
AXES = 16
#: The loss that says what the order of the candidates is worth.
ORDER = "softmax-decoupled"
#: Mean loss below which nothing is better.
LEAST = 1e-9


class Coordinates(Protocol):
    """Features and weights as the solver has them, of width k = d' + 1; the last feature is 1 and carries the bias."""

    power: Tensor  #: (k,) mean square of each feature
    axes: Axes | None  #: of features that are not turned to theirs

    def inward(self, features: Any) -> Any:
        """(n, d) features -> (n, k)."""

    def weights(self, weights: Tensor, biases: Tensor) -> Tensor:
        """(m, d) weights and (m,) biases -> (k, m)."""

    def outward(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Inverse of `weights`."""


class Axes(NamedTuple):
    """The directions in which features vary most, about 0."""

    directions: Tensor  #: (k, r) orthonormal
    power: Tensor  #: (r, 1) mean square along each
    rest: float  #: mean square along any other


class _Rotated:
    """Principal axes of dense features."""

    axes: Axes | None = None

    def __init__(self, features: Tensor) -> None:
        self.centre = features.mean(0)
        centred = features - self.centre
        power, rotation = torch.linalg.eigh((centred.T @ centred).double() / len(features))
        self.rotation = rotation.to(features.dtype)
        self.power = torch.cat([power.clamp_min(0).to(features.dtype), features.new_ones(1)])

    def inward(self, features: Tensor) -> Tensor:
        made = features.new_ones(len(features), len(self.power))
        torch.matmul(features - self.centre, self.rotation, out=made[:, :-1])
        return made

    def weights(self, weights: Tensor, biases: Tensor) -> Tensor:
        return torch.cat([self.rotation.T @ weights.T, (biases + weights @ self.centre)[None]])

    def outward(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        weights = (self.rotation @ theta[:-1]).T
        return weights, theta[-1] - weights @ self.centre


class _Joined:
    """Sparse features whose multiples of one another are one column."""

    def __init__(self, features: sparse.csr_array) -> None:
        columns = sparse.csc_array(features, copy=True)
        columns.eliminate_zeros()
        columns.sort_indices()
        d = columns.shape[1]
        starts, lengths = columns.indptr[:-1], np.diff(columns.indptr)
        there = lengths > 0
        first = np.zeros(d)
        first[there] = columns.data[starts[there]]
        shape = columns.data / np.repeat(first, lengths).astype(columns.dtype)
        # Equal columns have equal sums, added in the same order; those of others differ, but for chances of 2⁻¹⁰⁰.
        real, imaginary = np.random.default_rng(0).random((2, columns.shape[0]))
        keys = np.zeros(d, np.complex128)
        keys[there] = np.add.reduceat(shape * (real + 1j * imaginary)[columns.indices], starts[there])
        group = np.unique(keys, return_inverse=True)[1].ravel()
        k = int(group.max(initial=-1)) + 1
        size = np.sqrt(np.bincount(group, first**2, k))
        part = np.divide(first, size[group], out=np.zeros(d), where=size[group] > 0)
        self.join = sparse.csr_array((part.astype(np.float32), (np.arange(d), group)), (d, k))
        made = self.inward(features).matrix
        self.power = torch.from_numpy(made.power(2).mean(0)).float()
        self.axes: Axes | None = _axes(made)

    def inward(self, features: sparse.csr_array) -> SparseRows:
        made = sparse.hstack([features @ self.join, np.ones((features.shape[0], 1), np.float32)], format="csr")
        return SparseRows(sparse.csr_array(made))

    def weights(self, weights: Tensor, biases: Tensor) -> Tensor:
        return torch.cat([torch.from_numpy(self.join.T @ weights.T.contiguous().numpy()), biases[None]])

    def outward(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.join @ theta[:-1].numpy()).T, theta[-1]


def _axes(matrix: sparse.csr_array) -> Axes | None:
    """Find the `AXES` principal axes of sparse features, not centred."""
    from sklearn.utils.extmath import randomized_svd

    n, rank = matrix.shape[0], min(matrix.shape)
    if rank <= 4 * AXES:
        return None
    _, sizes, axes = randomized_svd(matrix, AXES, n_iter=3, random_state=0)
    power = sizes.astype(np.float64) ** 2 / n
    rest = max(0.0, float(matrix.power(2).sum()) / n - float(power.sum())) / (rank - AXES)
    return Axes(torch.from_numpy(axes.T.copy()).float(), torch.from_numpy(power).float()[:, None], rest)


def coordinates_of(features: Any) -> Coordinates:
    """Choose coordinates by (n, d) features, dense or sparse."""
    return _Joined(features) if isinstance(features, sparse.csr_array) else _Rotated(features)


class SparseRows:
    """A sparse matrix of features that multiplies tensors as a dense one would."""

    def __init__(self, matrix: sparse.csr_array, transposed: SparseRows | None = None) -> None:
        self.matrix = matrix
        self.dtype = torch.float32
        self.T = transposed or SparseRows(sparse.csr_array(matrix.T), self)

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def __getitem__(self, rows: Any) -> SparseRows:
        return SparseRows(self.matrix[rows.numpy() if isinstance(rows, Tensor) else rows])

    def __matmul__(self, other: Tensor) -> Tensor:
        return torch.from_numpy(self.matrix @ other.numpy())


class Problem:
    """Features in the solver's coordinates and right pairs of the queries that count, in blocks of rows.

    Args:
        features: (n, k), see `Coordinates`.
        right: (n, m) 1 where the pair is right.
        loss: a name in `sigmax.families.OBJECTIVES`.
        coordinates: that the features are in.
        weights: (n,) how much each query counts; None: 1 each.
    """

    def __init__(
        self,
        features: Any,
        right: sparse.csr_array,
        loss: str,
        coordinates: Coordinates,
        weights: Tensor | None = None,
    ) -> None:
        self.loss, self.objective = loss, lookup(OBJECTIVES, loss, "loss")
        self.features, self.right, self.coordinates = features, right, coordinates
        self.weights = None if weights is None else weights.to(features.dtype)
        self.n, self.m = right.shape
        step = max(1, PAIR_BLOCK // max(1, self.m))
        cuts = [slice(start, start + step) for start in range(0, self.n, step)]
        self.blocks = [
            (features[cut] if len(cuts) > 1 else features, positives_of(right[cut]), self._of(cut)) for cut in cuts
        ]
        self.frequency = torch.from_numpy((np.asarray(right.sum(0)).ravel() + 0.5) / (self.n + 1.0))
        self.curvature = (self.frequency * (1 - self.frequency)).to(features.dtype)
        self._least = 0.01 * self.curvature

    def _of(self, rows: Any) -> Tensor | None:
        return None if self.weights is None else self.weights[rows]

    def part(self, rows: Ints) -> Problem:
        """Return the problem of some queries, in the same coordinates."""
        places = torch.from_numpy(rows)
        return Problem(self.features[places], self.right[rows], self.loss, self.coordinates, self._of(places))

    def held_out(self, rows: Ints) -> HeldOut:
        """Return some queries to hold out."""
        places = torch.from_numpy(rows)
        return HeldOut(self.features[places], self.right[rows], self.loss, self._of(places))

    def start(self) -> Tensor:
        """(k, m) weights of 0, biases at the labels' log odds."""
        theta = torch.zeros(len(self.coordinates.power), self.m, dtype=self.features.dtype)
        theta[-1] = self.frequency.log() - (1 - self.frequency).log()
        return theta

    def penalties(self, penalty: float) -> Tensor:
        """(k, 1) λ, and 0 for the biases."""
        column = torch.full((len(self.coordinates.power), 1), penalty, dtype=self.features.dtype)
        column[-1] = 0
        return column

    def scale(self, penalty: float) -> Scale:
        """Return what multiplies (k, m) by about the inverse of the Hessian where g was last computed.

        With h the mean of p(1 − p) of each label: 1 / (h·v + λ) for each mean square v of a feature. Of sparse features
        with axes V of power S, and power ρ along any other, h (V S Vᵀ + ρ (1 − V Vᵀ)) + λ is inverted instead, without
        a look at the biases, which have no λ.
        """
        curvature = torch.maximum(self.curvature, self._least)
        axes = self.coordinates.axes
        if axes is None:
            inverse = (self.coordinates.power[:, None] * curvature).add_(self.penalties(penalty)).reciprocal_()
            return lambda theta: theta * inverse
        rest = 1 / (curvature * axes.rest + penalty)
        along = curvature * (axes.power - axes.rest) / (curvature * axes.power + penalty)
        return lambda theta: (theta - axes.directions @ (along * (axes.directions.T @ theta))).mul_(rest)

    def slope(self, theta: Tensor) -> tuple[float, Tensor]:
        """Return the mean loss and its gradient."""
        value, gradient = 0.0, torch.zeros_like(theta)
        bent, rows = torch.zeros_like(self.curvature), 0
        for features, positives, weights in self.blocks:
            logits = features @ theta
            loss, arriving = _loss_and_gradient(self.objective, logits, positives, weights)
            value += loss / self.n
            gradient += features.T @ arriving
            if rows < MEASURED:
                size = arriving[: MEASURED - rows].abs().clamp_(max=1)  # weighted, it may be above
                rows += len(size)
                bent += (size * (1 - size)).sum(0)  # |p − y| (1 − |p − y|) = p (1 − p)
        self.curvature = bent.clamp_min(0) / max(1, rows)
        return value, gradient.div_(self.n)


class HeldOut:
    """What logits are worth on queries that nothing is fitted on: their own loss and that of the order, calibrated.

    The sigmoid's loss alone asks for penalties so strong that they flatten the order of the candidates, which the
    decoupled softmax's loss sees. Scale and bias are fitted, as calibration follows: a stronger penalty is not worse
    for logits that are smaller.

    Args:
        features: (n, k), see `Coordinates`.
        right: (n, m) 1 where the pair is right.
        loss: that is trained, a name in `sigmax.families.OBJECTIVES`.
        weights: (n,) how much each query counts; None: 1 each.
    """

    def __init__(self, features: Any, right: sparse.csr_array, loss: str, weights: Tensor | None = None) -> None:
        self.features, self.positives, self.weights = features, positives_of(right), weights
        self._found = [(OBJECTIVES[name], [1.0, 0.0]) for name in dict.fromkeys((loss, ORDER))]

    def loss(self, theta: Tensor) -> float:
        """Σ over both losses of the log of the mean loss of a·s + c, at about the best a and c, for weights (k, m).

        The logs, because a part of either counts alike: the sigmoid's loss adds up many more terms.
        """
        logits = self.features @ theta
        centre = float(logits.mean())
        logits -= centre  # a and c then hardly depend on each other
        means = (self._calibrated(objective, logits, centre, start) for objective, start in self._found)
        return sum(math.log(max(mean, LEAST)) for mean in means)

    def _calibrated(self, objective: Objective, logits: Tensor, centre: float, start: list[float]) -> float:
        n, curvature = max(1, len(logits)), logits.new_ones(2, 1)

        def slope(at: Tensor) -> tuple[float, Tensor]:
            scale, bias = at[:, 0].tolist()
            loss, arriving = _loss_and_gradient(objective, logits * scale + bias, self.positives, self.weights)
            slopes = torch.stack([(arriving * logits).sum(), arriving.sum()])[:, None] / n
            size = arriving.abs_().clamp_(max=1)
            bent = size.mul_(1 - size)  # p (1 − p), as in `Problem.slope`
            curvature[0, 0], curvature[1, 0] = (bent * logits.square()).sum() / n, bent.sum() / n
            return loss / n, slopes

        solver = Lbfgs(slope, logits.new_tensor([[start[0]], [start[1] + start[0] * centre]]))
        solver.go(
            logits.new_zeros(2, 1), lambda: lambda theta: theta / curvature.clamp_min(1e-6), tolerance=1e-4, steps=10
        )
        scale, bias = solver.at[:, 0].tolist()
        start[:] = scale, bias - scale * centre
        return solver.value


def counted_rows(right: sparse.csr_array, loss: str) -> Bools:
    """(n,) which queries a loss counts."""
    counts = torch.from_numpy(np.diff(right.indptr))
    counted: Bools = lookup(OBJECTIVES, loss, "loss").counted(counts).numpy()
    return counted


def _loss_and_gradient(
    objective: Objective, logits: Tensor, positives: Positives, weights: Tensor | None
) -> tuple[float, Tensor]:
    """Σᵢ wᵢ Lᵢ and its gradient, which takes the place of the logits.

    ∂L/∂s = ∂L/∂A · act(s), and ∂L/∂sₚ more at the right pairs.
    """
    rows, columns = positives.rows, positives.columns
    pairs = logits[rows, columns]
    if objective.against == "wrong":
        logits[rows, columns] = -torch.inf
    step = max(1, CACHED // max(1, logits.shape[1]))
    total = torch.cat([_activated(objective.partition, part) for part in logits.split(step)])
    with torch.enable_grad():
        inputs = total.requires_grad_(), pairs.requires_grad_()
        losses = directed_loss(objective, *inputs, rows, positives.counts)[0]
        value = losses.sum(dtype=torch.float64) if weights is None else (losses * weights).sum(dtype=torch.float64)
    by_total, by_pair = torch.autograd.grad(value, inputs)
    if not bool((by_total == 1).all()):
        logits.mul_(by_total[:, None])
    logits[rows, columns] += by_pair
    return float(value.detach()), logits


def _activated(partition: Partition, logits: Tensor) -> Tensor:
    """(b,) A of each row; act(s) takes the place of the logits."""
    if partition.term == "exp":
        peak = logits.amax(1, keepdim=True)
        peak.masked_fill_(peak == -torch.inf, 0.0)
        size = logits.sub_(peak).exp_().sum(1, keepdim=True)
        logits.div_(size.clamp_min(torch.finfo(size.dtype).tiny))
        return size.log_().add_(peak).squeeze(1)
    if partition.term == "softplus" and logits.dtype == torch.float32:
        total = torch.nn.functional.softplus(logits).sum(1)  # linear from 20 on: off by 2·10⁻⁹ there
        logits.sigmoid_()
        return total
    total = partition.reduce(logits, 1)
    logits.copy_(partition.act(logits, total[:, None]))
    return total


def positives_of(right: sparse.csr_array) -> Positives:
    """Return the right pairs of a sparse (n, m) matrix."""
    rows, columns = right.nonzero()
    return Positives(torch.from_numpy(rows).long(), torch.from_numpy(columns).long(), right.shape)
