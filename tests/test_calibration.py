import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from sigmax.calibration import Platt, fit_platt
from sigmax.errors import DataError


def sample(n: int, scale: float, bias: float, *, spread: float = 1.0, centre: float = 0.0, seed: int = 0):
    """n logits, right with probability σ(scale · logit + bias)."""
    random = np.random.default_rng(seed)
    logits = centre + spread * random.normal(size=n)
    return logits, random.random(n) < expit(scale * logits + bias)


def regression(logits: np.ndarray, right: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """scikit-learn's maximum likelihood with Platt's targets: each pair is right with weight t, wrong with 1 − t."""
    weights = np.ones(len(logits)) if weights is None else weights
    many, few = weights[right].sum(), weights[~right].sum()
    t = np.where(right, (many + 1) / (many + 2), 1 / (few + 2))
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(
        np.tile(logits, 2)[:, None], np.repeat([1, 0], len(logits)), np.concatenate([weights * t, weights * (1 - t)])
    )
    return float(fit.coef_[0, 0]), float(fit.intercept_[0])


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (0.3, -4.0), (6.0, 2.0)])
def test_scale_and_bias_are_found_again(scale, bias):
    """Within four standard errors, which follow from the Fisher information."""
    logits, right = sample(50_000, scale, bias)
    found = fit_platt(logits, right)
    presence = expit(scale * logits + bias)
    x = np.stack([logits, np.ones_like(logits)])
    errors = np.sqrt(np.diag(np.linalg.inv((x * presence * (1 - presence)) @ x.T)))
    assert errors.max() < 0.07
    assert abs(found.scale - scale) < 4 * errors[0]
    assert abs(found.bias - bias) < 4 * errors[1]


@pytest.mark.parametrize(("scale", "bias"), [(1.0, 0.0), (0.3, -4.0), (6.0, 2.0)])
def test_much_data_against_plain_logistic_regression(scale, bias):
    logits, right = sample(50_000, scale, bias, seed=1)
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(logits[:, None], right)
    found = fit_platt(logits, right)
    assert found.scale == pytest.approx(float(fit.coef_[0, 0]), rel=0.01)
    assert found.bias == pytest.approx(float(fit.intercept_[0]), abs=0.01)


@pytest.mark.parametrize(
    ("n", "scale", "bias", "spread", "centre"),
    [
        (30, 1, 0, 1, 0),
        (500, 0.01, 3, 100, -300),
        (500, 50, -500, 0.02, 10),
        (5000, 1, -6, 1, 0),
        (5000, 0.5, -10, 5, 0),
    ],
)
def test_against_logistic_regression_with_the_same_targets(n, scale, bias, spread, centre):
    logits, right = sample(n, scale, bias, spread=spread, centre=centre)
    assert 0 < right.sum() < n
    found = fit_platt(logits, right)
    # scikit-learn is given numbers of an ordinary size.
    slope, offset = regression((logits - centre) / spread, right)
    assert found.scale == pytest.approx(slope / spread, rel=2e-3)
    assert found.bias == pytest.approx(offset - slope / spread * centre, rel=2e-3, abs=2e-3)


def test_weights_are_repetitions():
    logits, right = sample(400, 1.5, -1.0)
    weights = np.random.default_rng(1).integers(1, 6, size=400)
    found = fit_platt(logits, right, weights.astype(float))
    repeated = fit_platt(np.repeat(logits, weights), np.repeat(right, weights))
    assert (found.scale, found.bias) == pytest.approx((repeated.scale, repeated.bias), rel=1e-3)
    assert (found.scale, found.bias) == pytest.approx(regression(logits, right, weights.astype(float)), rel=1e-3)
    plain = fit_platt(logits, right)
    assert fit_platt(logits, right, np.ones(400)) == plain
    assert abs(found.bias - plain.bias) > 0.01


def test_sampled_wrong_pairs_give_the_fit_of_all():
    logits, right = sample(200_000, 1.2, -4.0)
    kept = right | (np.random.default_rng(2).random(len(right)) < 0.2)
    weights = np.where(right[kept], 1.0, (~right).sum() / (kept & ~right).sum())
    everything, few = fit_platt(logits, right), fit_platt(logits[kept], right[kept], weights)
    assert few.scale == pytest.approx(everything.scale, rel=0.03)
    assert few.bias == pytest.approx(everything.bias, abs=0.05)


def test_presences_add_up_to_the_right_pairs():
    """What maximum likelihood with a free bias promises, but for the targets' one observation."""
    logits, right = sample(5000, 0.7, -3.0, spread=4.0)
    assert fit_platt(logits, right).presence(logits).sum() == pytest.approx(right.sum(), abs=1.5)


@pytest.mark.parametrize("gap", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("n", [2, 10, 1000])
def test_logits_that_can_be_parted_keep_a_finite_scale(n, gap):
    logits = np.linspace(-1, 1, n) + np.where(np.arange(n) < n // 2, -gap, gap)
    right = logits > 0
    found = fit_platt(logits, right)
    assert math.isfinite(found.scale)
    assert math.isfinite(found.bias)
    assert found.scale > 0
    presence = found.presence(logits)
    assert (presence[right] > 0.5).all()
    assert (presence[~right] < 0.5).all()


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e6, 1e-9])
@pytest.mark.parametrize("n", [3, 6, 7, 100])
def test_equal_logits(n, value):
    right = np.arange(n) < n // 2
    found = fit_platt(np.full(n, value), right)
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2)).mean()
    assert found.presence(np.array(value)) == pytest.approx(target, abs=1e-3)
    assert 0 <= found.scale <= 10, "nothing was learnt about other logits"


def test_logits_that_mislead_say_nothing():
    logits, right = sample(2000, 1.0, 0.0)
    found = fit_platt(-logits, right)
    assert found.scale == 0
    assert found.presence(logits) == pytest.approx(right.mean(), abs=0.01)


def test_a_rare_answer():
    logits = np.random.default_rng(0).normal(size=100_000)
    right = np.zeros(100_000, bool)
    right[logits.argmax()] = True
    found = fit_platt(logits, right)
    assert math.isfinite(found.scale)
    assert found.presence(logits).sum() == pytest.approx(1, abs=1)


def test_the_type_of_the_logits_does_not_matter():
    logits, right = sample(300, 1.0, 0.0)
    low = logits.astype(np.float32)
    assert fit_platt(low, right) == fit_platt(low.astype(np.float64), right)
    assert Platt(1, 0).presence(np.array([[1, 0]])).dtype == np.float64


# -- presence ------------------------------------------------------------------------------------


def test_presence_by_hand():
    found = Platt(2.0, -1.0).presence(np.array([[0.5, 1.0], [-1.0, 0.0]]))
    assert found == pytest.approx(np.array([[0.5, 1 / (1 + math.e**-1)], [1 / (1 + math.e**3), 1 / (1 + math.e)]]))


@given(
    st.floats(0, 1e3),
    st.floats(-1e3, 1e3),
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=20),
)
def test_presence_is_a_rising_probability(scale, bias, logits):
    presence = Platt(scale, bias).presence(np.sort(np.array(logits, np.float32)))
    assert ((presence >= 0) & (presence <= 1)).all()
    assert (np.diff(presence) >= 0).all()


def test_as_dict():
    assert Platt(2.0, -1.0).as_dict() == {"kind": "platt", "scale": 2.0, "bias": -1.0}


# -- what cannot be fitted -----------------------------------------------------------------------


def test_one_kind_alone():
    with pytest.raises(DataError, match=r"needs right and wrong pairs in the dev split, got 3 and 0\."):
        fit_platt(np.arange(3.0), np.ones(3, bool))
    with pytest.raises(DataError, match=r"got 0 and 12\."):
        fit_platt(np.arange(3.0), np.zeros(3, bool), np.full(3, 4.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_are_finite(bad):
    with pytest.raises(ValueError, match="Expected finite logits to calibrate on, got 2 that are not"):
        fit_platt(np.array([1.0, bad, 2.0, bad]), np.array([True, False, True, False]))
