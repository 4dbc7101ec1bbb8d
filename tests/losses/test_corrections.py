"""Sampling corrections, end to end: a world whose probabilities are known, a model trained on a sample of its pairs.

The model is well specified, so that maximum likelihood must find the truth within its own intervals, which follow from
the Fisher information of the sample (no bootstrap needed, and no choice of bins can hide a gap).
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import expit, softmax

import sigmax
from sigmax.calibration.worlds import sampling_shift

SLOPES = np.array([1.0, -0.7])
SURE = 1e-4  #: chance that a right correction is rejected


def features(n: int, m: int, *, seed: int) -> np.ndarray:
    """(n, m, 2 + m): two numbers of the pair, and which candidate it is."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.normal(size=(n, m, 2)), np.broadcast_to(np.eye(m), (n, m, m))], axis=2)


def train(loss, design: np.ndarray, right: np.ndarray, kept: np.ndarray, log_q: np.ndarray | None = None) -> np.ndarray:
    """Parameters (d,) that minimise the loss of logits design @ parameters, where pairs not kept are ignored."""
    positives = sigmax.Positives.from_dense(torch.tensor(right & kept), torch.tensor(~kept))
    x = torch.tensor(design)
    shift = None if log_q is None else torch.tensor(log_q)
    parameters = torch.zeros(x.shape[-1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [parameters], max_iter=200, tolerance_grad=1e-9, tolerance_change=1e-13, line_search_fn="strong_wolfe"
    )

    def step():
        solver.zero_grad()
        value = loss.from_logits(x @ parameters, positives, candidate_log_q=shift)
        value.backward()
        return value

    solver.step(step)
    assert parameters.grad.abs().max() < 1e-5
    return parameters.detach().numpy()


def distance(gap: np.ndarray, information: np.ndarray) -> float:
    """p-value of a gap (d,) between estimate and truth: gapᵀ I gap ~ χ²_d."""
    return float(stats.chi2.sf(gap @ information @ gap, len(gap)))


# -- sigmoid -------------------------------------------------------------------------------------

M = 6
TRUTH = np.concatenate([SLOPES, np.linspace(-2.5, -0.5, M)])
SIGMOID = sigmax.SigmoidLoss()


def sigmoid_world(seed: int, n: int = 6000):
    design = features(n, M, seed=seed)
    presence = expit(design @ TRUTH)
    return design, presence, np.random.default_rng([seed, 1]).random(presence.shape) < presence


def fisher(design: np.ndarray, kept: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Σ over kept pairs p (1 − p) f fᵀ, p being the probability to be right among the kept."""
    p = expit(logits[kept])
    f = design[kept]
    return (f * (p * (1 - p))[:, None]).T @ f


@pytest.mark.parametrize(
    ("negative_rate", "positive_rate"), [(1.0, 1.0), (0.1, 1.0), (0.01, 1.0), (0.1, 0.4), (1.0, 0.3)]
)
def test_sigmoid_trained_on_a_sample(negative_rate, positive_rate):
    """Logit + log(rate of negatives) − log(rate of positives) is right; nothing, or the other sign, is not."""
    design, presence, right = sigmoid_world(seed=3)
    rate = np.where(right, positive_rate, negative_rate)
    kept = np.random.default_rng(4).random(right.shape) < rate
    found = train(SIGMOID, design, right, kept)
    shift = sampling_shift(negative_rate, positive_rate)
    information = fisher(design, kept, design @ found)
    errors = np.linalg.inv(information)
    bias = np.r_[np.zeros(2), np.ones(M)]  # a shift of all logits, in parameters

    def rejected(added):
        return distance(found + added * bias - TRUTH, information) < SURE

    assert not rejected(shift)
    if shift:
        assert rejected(0.0)
        assert rejected(-shift)
    # In bins of presence, the mean presence with its standard error by the delta method.
    corrected = expit(design @ found + shift)
    edges = np.quantile(corrected, np.linspace(0, 1, 11)[1:-1])
    bins = np.searchsorted(edges, corrected)
    for number in range(10):
        these = bins == number
        slope = (design[these] * (corrected * (1 - corrected))[these][:, None]).mean(0)
        error = math.sqrt(slope @ errors @ slope)
        truth = presence[these].mean()
        assert abs(corrected[these].mean() - truth) < 4 * error
        if abs(shift) > 1:
            for wrong in (0.0, -shift):
                assert abs(expit(design @ found + wrong)[these].mean() - truth) > 4 * error


@pytest.mark.parametrize("strongest", [0.01, 0.1])
def test_sigmoid_with_candidate_log_q(strongest):
    """Each candidate sampled at a rate of its own: inside the loss, s − log q leaves s without sampling."""
    design, _, right = sigmoid_world(seed=5)
    rates = np.geomspace(strongest, 1.0, M)
    kept = right | (np.random.default_rng(6).random(right.shape) < rates)
    log_q = np.log(rates)

    def rejected(shift):
        found = train(SIGMOID, design, right, kept, shift)
        as_trained = design @ found - (0 if shift is None else shift)
        return distance(found - TRUTH, fisher(design, kept, as_trained)) < SURE

    assert not rejected(log_q)
    assert rejected(None)
    assert rejected(-log_q)


def test_inside_the_loss_and_after_it_agree():
    design, _, right = sigmoid_world(seed=7, n=2000)
    kept = right | (np.random.default_rng(8).random(right.shape) < 0.05)
    inside = train(SIGMOID, design, right, kept, np.full(M, math.log(0.05)))
    after = train(SIGMOID, design, right, kept)
    after[2:] += sampling_shift(0.05)
    assert inside == pytest.approx(after, abs=1e-4)


# -- softmax -------------------------------------------------------------------------------------

MANY = 12


@pytest.mark.parametrize(
    ("kind", "lowest"),
    [("average", 1.0), ("average", 0.1), ("average", 0.01), ("decoupled", 0.01), ("any", 0.01), ("pairs", 0.01)],
)
def test_softmax_over_drawn_candidates(kind, lowest):
    """Candidates offered as wrong ones at rate q beside the right one: s − log q leaves the s of all candidates.

    P(j right | offered) ∝ exp(sⱼ) · Π_{k≠j offered} q_k ∝ exp(sⱼ) / qⱼ.
    """
    n, random = 5000, np.random.default_rng(9)
    truth = np.concatenate([SLOPES, np.linspace(0, 1, MANY)])
    truth[2:] -= truth[2:].mean()  # a common shift is nothing the softmax could see
    design = features(n, MANY, seed=10)
    share = softmax(design @ truth, axis=1)
    right = np.arange(MANY) == (share.cumsum(1) > random.random((n, 1))).argmax(1)[:, None]
    rates = np.geomspace(1.0, lowest, MANY)
    kept = right | (random.random(right.shape) < rates)
    loss = sigmax.SoftmaxLoss(positives=kind)
    free = np.linalg.svd(np.r_[np.zeros(2), np.ones(MANY)][None])[2][1:]  # directions that change shares

    def look(shift):
        found = train(loss, design @ free.T, right, kept, shift) @ free
        z = design @ found - (0 if shift is None else shift)
        p = softmax(np.where(kept, z, -np.inf), axis=1)
        mean = np.einsum("nm,nmd->nd", p, design)
        information = np.einsum("nm,nmd,nme->de", p, design, design) - mean.T @ mean
        gap = free @ (found - truth)
        gaps = np.abs(softmax(design @ found, axis=1).mean(0) - share.mean(0))
        return distance(gap, free @ information @ free.T), gaps.max()

    chance, gap = look(np.log(rates))
    assert chance > SURE
    assert gap < 0.03
    for wrong in (None, -np.log(rates)) if lowest < 1 else ():
        chance, gap = look(wrong)
        assert chance < SURE
        assert gap > 0.06


# -- the shift itself ----------------------------------------------------------------------------


def test_shift_by_counting():
    """1000 right and 9000 wrong pairs; of these 1 in 9 is kept, of those 1 in 2: 500 to 1000."""
    sampled = math.log(500 / 1000)
    assert sampled + sampling_shift(1 / 9, 1 / 2) == pytest.approx(math.log(1000 / 9000))
    assert sampling_shift(1.0) == 0


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.1, math.nan, math.inf])
def test_rates_are_shares(rate):
    with pytest.raises(ValueError, match=r"`negative_rate` above 0 and at most 1, got"):
        sampling_shift(rate)
    with pytest.raises(ValueError, match=r"`positive_rate` above 0 and at most 1, got"):
        sampling_shift(1.0, rate)
