r"""Linear models over fixed features, solved to the minimum instead of trained step by step.

For features xᵢ, logits s = x·W + b and a loss of `sigmax.families`, convex in the logits,

    f(W, b) = (1/n) Σᵢ wᵢ Lᵢ(s) + (λ/2) |W|²

is minimised by L-BFGS over all n queries at once, with weights wᵢ (1 each by default); the biases are free. λ is chosen
by cross-validation on the training queries, for n-grams on dev. With one right answer per query "softmax-average" is
multinomial logistic regression, and "sigmoid" is one-against-rest logistic regression, as in scikit-learn with
C = 1/(λn).

The minimum is that of any other solver; how fast it is found depends on the coordinates. Features are rotated to
their principal axes, and every weight is scaled by (hⱼ·vₖ + λ)^(-1/2), with vₖ the mean square of coordinate k and hⱼ
the curvature p(1 − p) of label j at its frequency p: then the Hessian at the start is close to the identity. Sparse
features stay as they are: tf-idf leaves little to rotate.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from sigmax.arrays import Bools
from sigmax.data.batches import training_weights
from sigmax.encoders.labels import LabelTable
from sigmax.encoders.ngrams import NgramEmbedding
from sigmax.errors import lookup
from sigmax.families import OBJECTIVES, Objective, directed_loss, excluded_logits
from sigmax.losses import make_loss
from sigmax.positives import Positives

if TYPE_CHECKING:
    from sigmax.data.dataset import MatchDataset
    from sigmax.model.dual_encoder import DualEncoder

__all__ = ["LinearModel", "choose_penalty", "choose_penalty_on", "fit_linear", "solve"]

log = logging.getLogger(__name__)

#: Called with the step and {"loss": f}.
Logged = Callable[[int, dict[str, float]], None]

#: Penalties tried, strongest first: each is the one before divided by √10.
PENALTIES = tuple(10 ** (-k / 2) for k in range(2, 16))
#: Logits computed at a time: they bound the memory beside the features.
PAIR_BLOCK = 2**24
FOLDS = 5
#: Cross-validation stops when this many queries have been held out: more would not change the choice.
ENOUGH_QUERIES = 1000
#: Relative decrease of the loss at which the solver stops: of the result, and in cross-validation.
TOLERANCE, ROUGH = 1e-6, 1e-3
#: C tried on n-grams, and the relative decrease at which the solver goes on to the next one.
STRENGTHS = (3.0, 30.0, 300.0)
PATH = 1e-4


@dataclass(frozen=True, eq=False)
class LinearModel:
    """Weights and biases at the minimum."""

    weights: Tensor  #: (m, d)
    biases: Tensor  #: (m,)
    penalty: float  #: λ
    value: float  #: f at the minimum
    steps: int = 0  #: how often f was computed


def solve(
    model: DualEncoder,
    data: MatchDataset,
    loss: str,
    *,
    one_positive: bool = False,
    seed: int = 0,
    logged: Logged | None = None,
    tell: bool = True,
) -> int:
    """Set what is linear in a model to the minimum of a loss over all training queries.

    Args:
        model: one whose query encoder is fixed and ends in a coordinate of 1, and whose candidates are a table, which
            is set; or one of n-grams with a coordinate for each label, which are set.
        data: the data set.
        loss: a name in `sigmax.families.OBJECTIVES`.
        one_positive: count each right pair as a query of its own whose only right answer it is.
        seed: seed of the folds.
        logged: called whenever f was computed on all queries.
        tell: log the number of steps and the penalty.

    Returns:
        How often f was computed on all queries.
    """
    queries = data.split("train")
    right = data.graph[queries]
    if model.none_vector is not None:
        right = _with_none(right)
    ngrams = model.query_encoder if isinstance(model.query_encoder, NgramEmbedding) else None
    features: Any
    if ngrams is None:
        features = model.encode([data.queries[i] for i in queries])[:, :-1]
    else:
        features = ngrams.matrix([str(data.queries[i]) for i in queries])
    given = training_weights(data)
    weights = None if given is None else given[queries]
    if one_positive:
        rows, columns = right.nonzero()
        weights = None if weights is None else weights[rows]
        features = features[rows]
        right = sparse.csr_array(
            (np.ones(len(rows), np.int8), (np.arange(len(rows)), columns)), (len(rows), right.shape[1])
        )
    if ngrams is None:
        found = choose_penalty(features, right, loss, weights=weights, seed=seed, logged=logged)
        _set_labels(model, found)
    else:
        dev = data.split("dev")
        truth = data.graph[dev]
        if model.none_vector is not None:
            truth = _with_none(truth)
        held_out = ngrams.matrix([str(data.queries[i]) for i in dev]), truth
        found = choose_penalty_on(held_out, features, right, loss, weights=weights, logged=logged)
        _set_ngrams(model, ngrams, found)
    with torch.no_grad():
        model.loss.log_scale.zero_()
        if model.loss.logit_bias is not None:
            model.loss.logit_bias.zero_()
    log.log(
        logging.INFO if tell else logging.DEBUG,
        "Solved in %d steps; penalty %.1e, chosen %s.",
        found.steps,
        found.penalty,
        "by cross-validation" if ngrams is None else "on dev",
    )
    return found.steps


def _with_none(right: sparse.csr_array) -> sparse.csr_array:
    """Add the column of *none of these*."""
    return sparse.csr_array(sparse.hstack([right, (right.sum(1) == 0)[:, None]], format="csr", dtype=np.int8))


@torch.no_grad()
def _set_labels(model: DualEncoder, found: LinearModel) -> None:
    vectors = torch.cat([found.weights, found.biases[:, None]], dim=1)
    assert isinstance(model.candidate_encoder, LabelTable)
    model.candidate_encoder.vectors.copy_(vectors[: len(model.candidates)])
    if model.none_vector is not None:
        model.none_vector.copy_(vectors[-1])


@torch.no_grad()
def _set_ngrams(model: DualEncoder, encoder: NgramEmbedding, found: LinearModel) -> None:
    """Give each label a coordinate of the n-grams' vectors, and one to *none of these* where it was trained."""
    table = found.weights.T.clone()
    table[-1] += found.biases  # the n-gram that every text has
    encoder.resize(table)
    axes = torch.eye(table.shape[1])
    model.candidate_encoder = LabelTable(model.candidates, axes[: len(model.candidates)], frozen=True)
    if model.none_vector is not None:
        model.none_vector = nn.Parameter(axes[-1].clone())


def fit_linear(
    features: Tensor | sparse.csr_array,
    right: sparse.csr_array,
    loss: str,
    penalty: float,
    *,
    weights: Tensor | None = None,
    start: LinearModel | None = None,
    tolerance: float = TOLERANCE,
    steps: int = 500,
    logged: Logged | None = None,
) -> LinearModel:
    """Minimise f.

    Args:
        features: (n, d) floating point; sparse ones float32.
        right: (n, m) 1 where the pair is right.
        loss: a name in `sigmax.families.OBJECTIVES`.
        penalty: λ, above 0.
        weights: (n,) how much each query counts, about 1 on average; None: all alike.
        start: where to begin, a solution with another penalty for instance; None: weights of 0, biases at the labels'
            log odds.
        tolerance: relative decrease of f per step at which the solver stops.
        steps: maximum steps.
        logged: called whenever f was computed.
    """
    problem = _Problem(features, right, loss, weights)
    return _solve(problem, penalty, start=start, tolerance=tolerance, steps=steps, logged=logged)


def choose_penalty(
    features: Tensor,
    right: sparse.csr_array,
    loss: str,
    *,
    weights: Tensor | None = None,
    seed: int = 0,
    logged: Logged | None = None,
) -> LinearModel:
    """Choose λ among `PENALTIES` by the mean loss of queries held out, calibrated, and fit all queries with it.

    Each fold goes from the strongest penalty to weaker ones, beginning where the one before ended, until one is worse.
    """
    n = features.shape[0]
    folds = np.array_split(np.random.default_rng(seed).permutation(n), min(FOLDS, n))
    losses = np.zeros(len(PENALTIES))
    tried = len(PENALTIES)
    found: dict[int, LinearModel] = {}
    held_out = 0
    for fold in folds:
        rest = np.setdiff1d(np.arange(n), fold)
        inside, outside = torch.from_numpy(rest), torch.from_numpy(fold)
        problem = _Problem(features[inside], right[rest], loss, None if weights is None else weights[inside])
        test, test_weights = features[outside], None if weights is None else weights[outside]
        model: LinearModel | None = None
        best = np.inf
        for place in range(tried):
            found[place] = model = _solve(problem, PENALTIES[place], start=model, tolerance=ROUGH, steps=100)
            value = _calibrated_loss(model, test, right[fold], loss, test_weights)
            losses[place] += value * len(fold)
            if value > best:
                tried = place + 1
                break
            best = value
        held_out += len(fold)
        if held_out >= ENOUGH_QUERIES:
            break
    chosen = int(losses[:tried].argmin())
    return fit_linear(features, right, loss, PENALTIES[chosen], weights=weights, start=found[chosen], logged=logged)


def choose_penalty_on(
    held_out: tuple[sparse.csr_array, sparse.csr_array],
    features: sparse.csr_array,
    right: sparse.csr_array,
    loss: str,
    *,
    weights: Tensor | None = None,
    logged: Logged | None = None,
) -> LinearModel:
    """Choose λ = 1/(C·n) among `STRENGTHS` by the mean loss, calibrated, of other queries than those that are fitted.

    It goes from the strongest penalty to weaker ones, beginning where the one before ended, until one is worse.

    Args:
        held_out: features and right pairs of queries held out.
        features: (n, d) of the queries to fit.
        right: (n, m) 1 where the pair is right.
        loss: a name in `sigmax.families.OBJECTIVES`.
        weights: (n,) of the queries to fit, not negative; None: 1 each.
        logged: called whenever f was computed.
    """
    problem, test = _Problem(features, right, loss, weights), _SparseRows(held_out[0])
    best: LinearModel | None = None
    least, model, taken = np.inf, None, 0
    for strength in STRENGTHS:
        penalty = 1 / (strength * max(1, problem.n))
        model = _solve(problem, penalty, start=model, tolerance=PATH, steps=100, logged=logged)
        taken += model.steps
        value = _calibrated_loss(model, test, held_out[1], loss, None)
        if best is not None and value >= least:
            break
        best, least = model, value
    assert best is not None
    return replace(best, steps=taken)


class _Problem:
    """Tensor and right pairs of the queries that count, in blocks of rows and in coordinates that suit the solver."""

    def __init__(self, features: Any, right: sparse.csr_array, loss: str, weights: Tensor | None = None) -> None:
        self.objective = lookup(OBJECTIVES, loss, "loss")
        counted = self.objective.counted(torch.from_numpy(np.diff(right.indptr))).numpy()
        if not counted.all():
            features, right = _rows(features, counted), right[counted]
            weights = None if weights is None else weights[torch.from_numpy(counted)]
        self.n, self.m = right.shape
        self.d = features.shape[1]
        self.frequency = torch.from_numpy((np.asarray(right.sum(0)).ravel() + 0.5) / (self.n + 1.0))
        step = max(1, PAIR_BLOCK // max(1, self.m))
        cuts = [slice(start, start + step) for start in range(0, self.n, step)]
        held = self._held(features, cuts)
        parts = [None if weights is None else weights[cut].to(self.dtype) for cut in cuts]
        self.blocks = [(rows, _positives(right[cut]), part) for rows, cut, part in zip(held, cuts, parts, strict=True)]

    def _held(self, features: Any, cuts: list[slice]) -> list[Any]:
        """Blocks of rows in the solver's coordinates, which are chosen here."""
        self.rotation: Tensor | None = None
        if isinstance(features, sparse.csr_array):  # stays sparse: neither centred nor rotated
            self.dtype, self.power = torch.float32, torch.from_numpy(features.power(2).mean(0)).double()
            return [_SparseRows(features[cut]) for cut in cuts]
        self.centre = features.mean(0)
        centred = features - self.centre
        power, rotation = torch.linalg.eigh((centred.T @ centred).double() / self.n)
        self.dtype, self.power, self.rotation = features.dtype, power.clamp_min(0), rotation.to(features.dtype)
        rotated = centred @ self.rotation
        return [rotated[cut] for cut in cuts]

    def inward(self, model: LinearModel) -> tuple[Tensor, Tensor]:
        """(d, m) weights and (m,) biases in the solver's coordinates."""
        if self.rotation is None:
            return model.weights.T, model.biases
        return self.rotation.T @ model.weights.T, model.biases + model.weights @ self.centre

    def outward(self, weights: Tensor, biases: Tensor) -> tuple[Tensor, Tensor]:
        """Inverse of `inward`."""
        if self.rotation is None:
            return weights.T, biases
        weights = (self.rotation @ weights).T
        return weights, biases - weights @ self.centre

    def gradients(self, weights: Tensor, biases: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss, and its gradients at weights and biases."""
        value, by_weight, by_bias = (
            biases.new_zeros(()),
            torch.zeros_like(weights),
            torch.zeros_like(biases),
        )
        for features, positives, counts in self.blocks:
            logits = (features @ weights).add_(biases)
            loss, arriving = _loss_and_gradient(self.objective, logits, positives, counts)
            value += loss / self.n
            arriving /= self.n
            by_weight += features.T @ arriving
            by_bias += arriving.sum(0)
        return value, by_weight, by_bias


class _SparseRows:
    """A sparse matrix of features that multiplies tensors as a dense one would."""

    def __init__(self, matrix: sparse.csr_array, transposed: _SparseRows | None = None) -> None:
        self.matrix = matrix
        self.T = transposed or _SparseRows(sparse.csr_array(matrix.T), self)

    def __matmul__(self, other: Tensor) -> Tensor:
        return torch.from_numpy(self.matrix @ other.numpy())


def _rows(features: Any, kept: Bools) -> Any:
    return features[kept if isinstance(features, sparse.csr_array) else torch.from_numpy(kept)]


def _loss_and_gradient(
    objective: Objective, logits: Tensor, positives: Positives, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Σᵢ wᵢ Lᵢ and its gradient: ∂L/∂s = ∂L/∂A · act(s), and ∂L/∂sₚ more at the right pairs."""
    rows, columns = positives.rows, positives.columns
    compared = excluded_logits(objective, logits, positives) if objective.against == "wrong" else logits
    total = objective.partition.reduce(compared, 1)
    gradient = objective.partition.act(compared, total[:, None])
    with torch.enable_grad():
        inputs = total.requires_grad_(), logits[rows, columns].requires_grad_()
        losses = directed_loss(objective, *inputs, rows, positives.counts)[0]
        value = losses.sum() if weights is None else losses @ weights
    by_total, by_pair = torch.autograd.grad(value, inputs)
    gradient.mul_(by_total[:, None])
    gradient[rows, columns] += by_pair
    return value.detach(), gradient


@torch.no_grad()
def _solve(
    problem: _Problem,
    penalty: float,
    *,
    start: LinearModel | None,
    tolerance: float,
    steps: int,
    logged: Logged | None = None,
) -> LinearModel:
    curvature = problem.frequency * (1 - problem.frequency)
    stretch = (problem.power[:, None] * curvature + penalty).rsqrt().to(problem.dtype)
    lift = curvature.rsqrt().to(problem.dtype)
    if start is None:
        weights = torch.zeros(problem.d, problem.m, dtype=problem.dtype)
        biases = (problem.frequency.log() - (1 - problem.frequency).log()).to(problem.dtype)
    else:
        weights, biases = problem.inward(start)
    inner = (weights / stretch).requires_grad_(), (biases / lift).requires_grad_()
    first, _, _ = problem.gradients(weights, biases)
    optimizer = torch.optim.LBFGS(
        inner,
        max_iter=steps,
        max_eval=2 * steps,
        history_size=10,
        tolerance_grad=0.0,
        tolerance_change=tolerance * float(first),
        line_search_fn="strong_wolfe",
    )
    value: Tensor = first
    taken = 0

    @torch.no_grad()
    def step() -> Tensor:
        nonlocal value, taken
        weights, biases = inner[0] * stretch, inner[1] * lift
        value, by_weight, by_bias = problem.gradients(weights, biases)
        value += penalty / 2 * weights.square().sum()
        taken += 1
        if logged is not None:
            logged(taken, {"loss": float(value)})
        inner[0].grad = by_weight.add_(weights, alpha=penalty).mul_(stretch)
        inner[1].grad = by_bias * lift
        return value

    optimizer.step(step)
    return LinearModel(
        *problem.outward(inner[0].detach() * stretch, inner[1].detach() * lift), penalty, float(value), taken
    )


def _calibrated_loss(
    model: LinearModel, features: Any, right: sparse.csr_array, loss: str, weights: Tensor | None
) -> float:
    """Mean loss of logits a·s + c at the best a and c: calibration follows, so neither is the penalty's concern."""
    objective = make_loss(loss, logit_scale=1.0, logit_bias=0.0)
    logits, positives = features @ model.weights.T + model.biases, _positives(right)
    scale, bias = (logits.new_tensor(start, requires_grad=True) for start in (1.0, 0.0))
    optimizer = torch.optim.LBFGS([scale, bias], max_iter=10, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimizer.zero_grad()
        value = objective.from_logits(logits * scale + bias, positives, weights=weights)
        value.backward()
        return value

    optimizer.step(step)
    return step().item()


def _positives(right: sparse.csr_array) -> Positives:
    rows, columns = right.nonzero()
    return Positives(torch.from_numpy(rows).long(), torch.from_numpy(columns).long(), right.shape)
