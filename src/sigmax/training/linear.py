r"""Linear models over fixed features, solved to the minimum instead of trained step by step.

For features xᵢ, logits s = x·W + b and a loss of `sigmax.families`, convex in the logits,

    f(W, b) = (1/n) Σᵢ wᵢ Lᵢ(s) + (λ/2) |W|²

is minimised by L-BFGS over all n queries at once, with weights wᵢ (1 each by default); the biases are free. λ is chosen
by cross-validation on the training queries, for n-grams on dev. With one right answer per query "softmax-average" is
multinomial logistic regression, and "sigmoid" is one-against-rest logistic regression, as in scikit-learn with
C = 1/(λn).

The minimum is that of any other solver, the way is ours: see `sigmax.training.problem` for the coordinates and
`sigmax.training.lbfgs` for the steps along a path of penalties.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn

from sigmax.data.batches import training_weights
from sigmax.encoders.labels import LabelTable
from sigmax.encoders.ngrams import NgramEmbedding
from sigmax.training.lbfgs import Lbfgs
from sigmax.training.problem import Coordinates, HeldOut, Problem, coordinates_of, counted_rows

if TYPE_CHECKING:
    from sigmax.data.dataset import Indices, MatchDataset
    from sigmax.losses import MatchLoss
    from sigmax.model.dual_encoder import DualEncoder

__all__ = ["LinearModel", "choose_penalty", "choose_penalty_on", "fit_linear", "right_of", "set_plain", "solve"]

log = logging.getLogger(__name__)

#: Called with the step and {"loss": f}.
Logged = Callable[[int, dict[str, float]], None]

#: Penalties tried: each is the one before divided by √10. The search starts at `FIRST`.
PENALTIES = tuple(10 ** (-k / 2) for k in range(0, 16))
FIRST = 4
FOLDS = 5
#: Cross-validation stops when this many queries have been held out: more would not change the choice. It fits so many
#: others at most, and more per label. C = 1/(λn) suits fewer queries too, but not as well: of 15,000 queries, 6,000
#: chose a penalty that is three times too weak for all.
ENOUGH_QUERIES, ENOUGH_FITTED, ENOUGH_PER_LABEL = 1000, 20_000, 100
#: Relative decrease of the loss at which the solver stops: of the result, and in cross-validation.
TOLERANCE, ROUGH = 1e-4, 1e-3
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
    right = right_of(model, data, queries)
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
        held_out = ngrams.matrix([str(data.queries[i]) for i in dev]), right_of(model, data, dev)
        found = choose_penalty_on(held_out, features, right, loss, weights=weights, logged=logged)
        _set_ngrams(model, ngrams, found)
    set_plain(model.loss)
    log.log(
        logging.INFO if tell else logging.DEBUG,
        "Solved in %d steps; penalty %.1e, chosen %s.",
        found.steps,
        found.penalty,
        "by cross-validation" if ngrams is None else "on dev",
    )
    return found.steps


def right_of(model: DualEncoder, data: MatchDataset, queries: Indices) -> sparse.csr_array:
    """Which pairs of some queries are right, with a column of *none of these* where the model has it."""
    right = data.graph[queries]
    if model.none_vector is None:
        return right
    return sparse.csr_array(sparse.hstack([right, (right.sum(1) == 0)[:, None]], format="csr", dtype=np.int8))


@torch.no_grad()
def set_plain(loss: MatchLoss) -> None:
    """Let logits be the products themselves: the scale 1, the bias 0."""
    loss.log_scale.zero_()
    if loss.logit_bias is not None:
        loss.logit_bias.zero_()


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
        steps: how often f is computed, at most.
        logged: called whenever f was computed.
    """
    problem, coordinates = _problem(features, right, loss, weights)
    theta = problem.start() if start is None else coordinates.weights(start.weights, start.biases)
    return _solved(problem, coordinates, theta, penalty, tolerance, steps, logged)


@torch.no_grad()
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

    The first fold goes from a strong penalty to weaker ones, ten times each, until one is worse, then looks beside the
    best; the next folds look there alone. Each penalty begins where the one before ended, and the fit of all queries
    where the last fold ended.
    """
    problem, coordinates = _problem(features, right, loss, weights)
    folds = np.array_split(np.random.default_rng(seed).permutation(problem.n), max(1, min(FOLDS, problem.n)))
    losses: dict[int, list[float]] = {}
    theta, held_out, chosen = problem.start(), 0, FIRST
    most = max(ENOUGH_FITTED, ENOUGH_PER_LABEL * problem.m)
    for fold in folds if problem.n > 1 else []:
        rest = np.setdiff1d(np.arange(problem.n), fold)
        rest = rest if len(rest) <= most else np.random.default_rng(seed).choice(rest, most, replace=False)
        others = problem.held_out(fold[:ENOUGH_QUERIES])
        tried = _Tried(problem.part(rest), others, problem.n / len(rest))
        if not losses:
            _search(tried)
        else:
            for place in sorted(losses):
                tried.loss(place)
        losses = {place: [*losses.get(place, []), value] for place, (value, _) in tried.found.items()}
        chosen = min(losses, key=lambda place: sum(losses[place]))
        if held_out == 0:
            losses = {place: values for place, values in losses.items() if abs(place - chosen) <= 1}
        theta = tried.found[chosen][1]
        held_out += len(fold)
        if held_out >= ENOUGH_QUERIES:
            break
    return _solved(problem, coordinates, theta, PENALTIES[chosen], TOLERANCE, 500, logged)


@torch.no_grad()
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
    problem, coordinates = _problem(features, right, loss, weights)
    others = HeldOut(coordinates.inward(held_out[0]), held_out[1], loss)
    solver = Lbfgs(problem.slope, problem.start(), memory=6)
    best: tuple[float, Tensor, float] | None = None
    least = np.inf
    for strength in STRENGTHS:
        penalty = 1 / (strength * max(1, problem.n))
        _go(solver, problem, penalty, PATH, 100, logged)
        value = others.loss(solver.at)
        if best is not None and value >= least:
            break
        best, least = (penalty, solver.at.clone(), solver.value), value
    assert best is not None
    return LinearModel(*coordinates.outward(best[1]), best[0], best[2], solver.steps)


class _Tried:
    """Penalties tried on some queries, and what the loss of others was.

    Args:
        fitted: the queries to fit.
        others: queries held out.
        more: how many times as many queries as `fitted` the penalty is meant for.
    """

    def __init__(self, fitted: Problem, others: HeldOut, more: float) -> None:
        self.fitted, self.others, self.more = fitted, others, more
        self.solver = Lbfgs(fitted.slope, fitted.start())
        self.found: dict[int, tuple[float, Tensor]] = {}  #: by place in `PENALTIES`: the loss, and the weights

    def loss(self, place: int) -> float:
        """Fit with a penalty, beginning where the last one ended; the loss of the others, see `HeldOut`."""
        if place not in self.found:
            _go(self.solver, self.fitted, PENALTIES[place] * self.more, ROUGH, 100, None)
            self.found[place] = self.others.loss(self.solver.at), self.solver.at.clone()
        return self.found[place][0]


def _search(tried: _Tried) -> None:
    """Try penalties from `FIRST` on, ten times weaker each, or stronger, until one is worse, then beside the best."""
    last = len(PENALTIES) - 1
    best = FIRST
    for place in range(FIRST + 2, last + 1, 2):
        if tried.loss(place) >= tried.loss(place - 2):
            break
        best = place
    while best <= FIRST and best >= 2 and tried.loss(best - 2) < tried.loss(best):
        best -= 2
    for place in (best + 1, best - 1):
        if 0 <= place <= last and tried.loss(place) < tried.loss(best):
            break


def _problem(features: Any, right: sparse.csr_array, loss: str, weights: Tensor | None) -> tuple[Problem, Coordinates]:
    counted = counted_rows(right, loss)
    if not counted.all():
        places = torch.from_numpy(counted)
        features, right = features[counted if isinstance(features, sparse.csr_array) else places], right[counted]
        weights = None if weights is None else weights[places]
    coordinates = coordinates_of(features)
    return Problem(coordinates.inward(features), right, loss, coordinates, weights), coordinates


@torch.no_grad()
def _solved(
    problem: Problem,
    coordinates: Coordinates,
    theta: Tensor,
    penalty: float,
    tolerance: float,
    steps: int,
    logged: Logged | None,
) -> LinearModel:
    solver = Lbfgs(problem.slope, theta)
    _go(solver, problem, penalty, tolerance, steps, logged)
    return LinearModel(*coordinates.outward(solver.at), penalty, solver.value, solver.steps)


def _go(solver: Lbfgs, problem: Problem, penalty: float, tolerance: float, steps: int, logged: Logged | None) -> None:
    solver.go(
        problem.penalties(penalty),
        lambda: problem.scale(penalty),
        tolerance=tolerance,
        steps=steps,
        told=lambda step, value: None if logged is None else logged(step, {"loss": value}),
    )
