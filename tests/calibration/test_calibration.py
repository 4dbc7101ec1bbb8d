import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from sigmax.calibration import fits as module
from sigmax.calibration.curves import Beta, Isotonic, Platt, PlattCandidate, moved
from sigmax.calibration.fits import CALIBRATIONS, Method, calibration_from_dict, fit_calibration, fit_platt
from sigmax.calibration.pairs import Pairs
from sigmax.errors import DataError, UnknownNameError


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
    assert found.scale == 0, "nothing was learnt about other logits"


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


# -- every kind ----------------------------------------------------------------------------------

EXAMPLES = {
    "platt": Platt(2.0, -1.0),
    "beta": Beta(2.0, -1.0, 0.5, 3.0, 0.2),
    "isotonic": Isotonic((-1.0, 0.5, 0.5 + 1e-9, 2.0), (-4.0, -1.0, 0.0, 3.0)),
    "platt-candidate": PlattCandidate(2.0, -1.0, (1.0, 0.0, 5.0), (0.0, -2.0, 1.0)),
}
assert list(EXAMPLES) == list(CALIBRATIONS)
every_kind = pytest.mark.parametrize("kind", CALIBRATIONS)


def test_curves_by_hand():
    def softplus(x):
        return math.log1p(math.exp(x))

    for x in (-1.5, 0.0, 0.75):
        row = [x, x, x]
        assert EXAMPLES["platt"].log_odds(row) == pytest.approx([2 * x - 1] * 3)
        z = 2 * x - 1
        beta = -0.5 * softplus(-z) + 3 * softplus(z) + 0.2
        assert EXAMPLES["beta"].log_odds(row) == pytest.approx([beta] * 3)
        assert EXAMPLES["platt-candidate"].log_odds(row) == pytest.approx([x, -2, 5 * x + 1])
        assert EXAMPLES["platt-candidate"].log_odds(row, [2, -1, 0]) == pytest.approx([5 * x + 1, 2 * x - 1, x])
    steps = EXAMPLES["isotonic"].log_odds([-9, -1, -0.25, 0.5, 1.25, 2, 9])
    assert steps == pytest.approx([-4, -4, -2.5, -1, 1.5, 3, 3])
    assert Beta(2.0, -1.0, 1.0, 1.0, 0.0).log_odds(row) == pytest.approx(EXAMPLES["platt"].log_odds(row))


@st.composite
def curves(draw):
    """Any calibration over 3 candidates."""
    number, factor = st.floats(-1e3, 1e3), st.floats(0, 1e3)

    def three(of):
        return tuple(draw(st.lists(of, min_size=3, max_size=3)))

    kind = draw(st.sampled_from(list(CALIBRATIONS)))
    if kind == "platt":
        return Platt(draw(factor), draw(number))
    if kind == "beta":
        return Beta(draw(factor), draw(number), draw(factor), draw(factor), draw(number))
    if kind == "platt-candidate":
        return PlattCandidate(draw(factor), draw(number), three(factor), three(number))
    return Isotonic(tuple(sorted(three(number))), tuple(sorted(three(number))))


LOGITS = st.floats(width=32, allow_nan=False) | st.floats(-1e3, 1e3)


@given(curves(), st.lists(LOGITS, min_size=2, max_size=20), st.floats(0.01, 0.99))
def test_every_presence_is_a_rising_probability(curve, logits, share):
    x = np.sort(np.array([*logits, -math.inf, math.inf]))
    for one in (curve, moved(curve, 0.5, share)):
        for place in (-1, 0, 1, 2):
            presence = one.presence(x[:, None], [place])[:, 0]
            assert ((presence >= 0) & (presence <= 1)).all()
            assert (np.diff(presence) >= -1e-12).all()
            assert np.allclose(presence, one.presence(x, np.full(len(x), place)), rtol=0, atol=0)


def test_isotonic_never_falls_by_a_rounding():
    """Where the place before is so far off that a logit beside a knot is as far from it as the knot."""
    random = np.random.default_rng(0)
    for low, high in np.sort(random.normal(size=(100, 2)) * [[7, 1]]):
        curve = Isotonic((-1e16, 1.0, 2.0), (low, high, high))
        assert (np.diff(curve.log_odds([-1e17, 0.0, np.nextafter(1.0, 0.0), 1.0, 1.5, 3.0])) >= 0).all()


@given(curves())
def test_round_trip_through_json(curve):
    again = calibration_from_dict(json.loads(json.dumps(curve.as_dict())))
    assert again == curve
    assert type(again) is type(curve)
    assert curve.as_dict()["kind"] == curve.kind


@given(curves(), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_moved_adds_the_change_of_log_odds(curve, there, here):
    x = np.linspace(-3, 3, 12).reshape(3, 4)
    places = [0, 1, 2, -1]
    found = moved(curve, there, here)
    change = math.log(here / (1 - here)) - math.log(there / (1 - there))
    assert found.log_odds(x, places) == pytest.approx(curve.log_odds(x, places) + change, abs=1e-8, rel=1e-12)
    assert type(found) is type(curve)
    assert calibration_from_dict(found.as_dict()) == found
    back = moved(found, here, there)
    assert back.log_odds(x, places) == pytest.approx(curve.log_odds(x, places), abs=1e-8, rel=1e-12)


def test_moved_by_counting():
    """Bayes' rule by hand: of 10 pairs with a logit 4 are right; then every right pair comes 3 times."""
    curve = Isotonic((0.0,), (math.log(4 / 6),))
    share_from, share_to = 20 / 100, 60 / 140
    assert moved(curve, share_from, share_to).presence([0.0]) == pytest.approx(12 / 18)


@every_kind
def test_columns(kind):
    curve = EXAMPLES[kind]
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    whole = curve.presence(x)
    assert whole.shape == x.shape
    assert whole.dtype == np.float64
    assert np.array_equal(curve.presence(x, [0, 1, 2]), whole)
    assert np.array_equal(curve.presence(x[..., [2, 0]], [2, 0]), whole[..., [2, 0]])
    assert np.array_equal(curve.presence(x.astype(np.float32)), curve.presence(x.astype(np.float32).astype(float)))
    with pytest.raises(ValueError, match="Expected logits to be numbers, got 1 NaN"):
        curve.presence([0.0, math.nan, 1.0])


def test_columns_that_do_not_fit():
    curve = EXAMPLES["platt-candidate"]
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 3\), a column for each fitted candidate, got \(5, 2\)"):
        curve.presence(np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"got \(\)"):
        curve.presence(0.0)
    with pytest.raises(ValueError, match=r"`candidates` of shape \(2,\) for logits \(5, 2\), got \(3,\)"):
        curve.presence(np.zeros((5, 2)), [0, 1, 2])
    for bad in ([0, 3], [-2, 0]):
        with pytest.raises(ValueError, match="`candidates` from −1 to 2, got"):
            curve.presence(np.zeros((5, 2)), bad)


@pytest.mark.parametrize(
    "saved",
    [
        {"slope": 1.0},
        {"kind": "plat", "scale": 1.0, "bias": 0.0},
        {"kind": "platt", "scale": -1.0, "bias": 0.0},
        {"kind": "platt", "scale": 1.0, "bias": math.nan},
        {"kind": "platt", "scale": "x", "bias": 0.0},
        {"kind": "platt", "scale": 1.0},
        {"kind": "beta", "scale": 1.0, "bias": 0.0, "a": 1.0, "b": -1.0, "c": 0.0},
        {"kind": "isotonic", "places": [0.0, 1.0], "heights": [1.0, 0.0]},
        {"kind": "isotonic", "places": [1.0, 0.0], "heights": [0.0, 1.0]},
        {"kind": "isotonic", "places": [0.0, 1.0], "heights": [0.0]},
        {"kind": "isotonic", "places": [], "heights": []},
        {"kind": "platt-candidate", "scale": 1.0, "bias": 0.0, "scales": [1.0, -1.0], "biases": [0.0, 0.0]},
        {"kind": "platt-candidate", "scale": 1.0, "bias": 0.0, "scales": [1.0, 1.0], "biases": [0.0]},
    ],
)
def test_damaged(saved):
    with pytest.raises((TypeError, ValueError)):
        calibration_from_dict(saved)


def test_what_older_versions_saved():
    assert calibration_from_dict({"scale": 2.0, "bias": -1.0}) == Platt(2.0, -1.0)


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, math.nan])
def test_shares_are_shares(share):
    with pytest.raises(ValueError, match="`share_from` between 0 and 1"):
        moved(Platt(1, 0), share, 0.5)
    with pytest.raises(ValueError, match="`share_to` between 0 and 1"):
        moved(Platt(1, 0), 0.5, share)


# -- fits ----------------------------------------------------------------------------------------


def world(kind: str, n: int = 500, m: int = 20, seed: int = 0, rate: float = 0.0):
    """Pairs and their true log odds, in a world that the calibration of that name is made for."""
    random = np.random.default_rng(seed)
    x = 2 * random.normal(size=(n, m))
    if kind == "platt":
        z = 1.1 * x - 2
    elif kind == "beta":  # steep below 0, flat above
        z = 0.4 * np.logaddexp(0, x) - 2.5 * np.logaddexp(0, -x)
    elif kind == "isotonic":  # steps
        z = np.select([x < -1, x < 1, x < 3], [-5, -1.5, -1.4], 2.5)
    else:
        z = 1.1 * x * np.exp(0.2 * random.normal(size=m)) - 2 + 1.2 * random.normal(size=m)
    z = z + rate
    return Pairs.of(x, random.random((n, m)) < expit(z), most=n * m), z.ravel()


@every_kind
def test_the_curve_is_found_again(kind):
    """Presences near the truth, and nearer with four times the queries."""
    method = CALIBRATIONS[kind]
    gaps = []
    for n in (500, 8000):
        pairs, z = world(kind, n, seed=4)
        shared = Platt(1.0, 0.0) if kind == "beta" else fit_platt(pairs.logits, pairs.right)
        found = method.fit(pairs, shared, *method.settings[-1])
        gaps.append(np.abs(found.presence(pairs.logits, pairs.candidates) - expit(z)).mean())
    assert gaps[1] < 0.012
    assert gaps[1] < 0.6 * gaps[0]


def test_scales_and_biases_of_candidates_are_found_again():
    random = np.random.default_rng(1)
    scales, biases = np.exp(0.3 * random.normal(size=8)), random.normal(size=8)
    x = 2 * random.normal(size=(8000, 8))
    pairs = Pairs.of(x, random.random(x.shape) < expit(scales * x + biases), most=x.size)
    found = CALIBRATIONS["platt-candidate"].fit(pairs, fit_platt(pairs.logits, pairs.right), 3.0, 3.0)
    assert found.scales == pytest.approx(scales, rel=0.1)
    assert found.biases == pytest.approx(biases, abs=0.15)


def test_beta_is_a_logistic_regression():
    """Three numbers: log σ(z), −log σ(−z) and 1."""
    pairs, _ = world("beta", 300)
    shared = Platt(0.8, -0.3)
    found = CALIBRATIONS["beta"].fit(pairs, shared)
    z = shared.log_odds(pairs.logits)
    positives, negatives = pairs.right.sum(), (~pairs.right).sum()
    target = np.where(pairs.right, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    features = np.tile(np.stack([-np.log1p(np.exp(-z)), np.log1p(np.exp(z))], axis=1), (2, 1))
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(
        features, np.repeat([1, 0], len(z)), np.concatenate([target, 1 - target])
    )
    assert [found.a, found.b] == pytest.approx(fit.coef_[0], rel=1e-3)
    assert found.c == pytest.approx(fit.intercept_[0], abs=1e-3)


def pool(x, y, w):
    """Pool adjacent violators, as a loop: the mean of every block at each of its logits."""
    blocks = []
    for place in sorted(set(x)):
        here = [i for i in range(len(x)) if x[i] == place]
        blocks.append([sum(w[i] for i in here), sum(w[i] * y[i] for i in here), [place]])
        while len(blocks) > 1 and blocks[-2][1] / blocks[-2][0] >= blocks[-1][1] / blocks[-1][0]:
            weight, hits, places = blocks.pop()
            blocks[-1] = [blocks[-1][0] + weight, blocks[-1][1] + hits, blocks[-1][2] + places]
    return {place: hits / weight for weight, hits, places in blocks for place in places}


@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans(), st.integers(1, 3)), min_size=2, max_size=25))
def test_isotonic_by_a_loop(rows):
    x, y, w = (np.array(column) for column in zip(*rows, strict=True))
    if y.all() or not y.any():
        return
    pairs = Pairs(x, y, np.arange(len(x)), np.zeros(len(x), int), w, 1)
    found = fit_calibration(pairs, "isotonic").calibration
    means = pool([*x, x.min(), x.max()], [*y, 1, 0], [*w, 1, 1])
    presence = found.presence(pairs.logits)
    assert presence == pytest.approx([means[place] for place in x], abs=1e-9)
    assert (w * presence).sum() == pytest.approx(
        (w * y).sum() + 1 - found.presence([x.min()])[0] - found.presence([x.max()])[0]
    )
    assert presence.min() >= 1 / (w.sum() + 2) - 1e-12
    assert presence.max() <= 1 - 1 / (w.sum() + 2) + 1e-12


def test_isotonic_ends():
    """4 wrong pairs, then 2 right ones: 1 of 5 below, 2 of 3 above."""
    pairs = Pairs(np.arange(6.0), np.arange(6) > 3, np.arange(6), np.zeros(6), np.ones(6), 1)
    found = fit_calibration(pairs, "isotonic").calibration
    assert found.presence([-math.inf, 3, 4, math.inf]) == pytest.approx([1 / 5, 1 / 5, 2 / 3, 2 / 3])


def test_candidates_against_a_plain_minimiser():
    """The formula of the docstring as a loop over pairs, minimised without a gradient."""
    from scipy.optimize import minimize

    pairs, _ = world("platt-candidate", 40, 2)
    shared = fit_platt(pairs.logits, pairs.right)
    positives, negatives = int(pairs.right.sum()), int((~pairs.right).sum())

    def loss(p):
        value = 0.0
        for x, y, j in zip(pairs.logits, pairs.right, pairs.candidates, strict=True):
            z = (1 + p[j]) * (shared.scale * x + shared.bias) + p[2 + j]
            value += np.logaddexp(0, z) - z * ((positives + 1) / (positives + 2) if y else 1 / (negatives + 2))
        return value + sum(p[:2] ** 2) / 2 / 0.3**2 + sum(p[2:] ** 2) / 2 / 0.5**2

    best = minimize(loss, np.zeros(4), method="Powell", options={"xtol": 1e-6, "ftol": 1e-12}).x
    found = CALIBRATIONS["platt-candidate"].fit(pairs, shared, 0.3, 0.5)
    assert found.scales == pytest.approx((1 + best[:2]) * shared.scale, rel=1e-3)
    assert found.biases == pytest.approx((1 + best[:2]) * shared.bias + best[2:], abs=2e-3)
    assert (found.scale, found.bias) == (shared.scale, shared.bias)


def test_a_candidate_whose_logits_mislead_gets_its_rate():
    pairs, _ = world("platt", 3000, 3)
    first = pairs.candidates == 0
    pairs = replace(pairs, logits=np.where(first, -pairs.logits, pairs.logits))
    found = CALIBRATIONS["platt-candidate"].fit(pairs, fit_platt(pairs.logits, pairs.right), 3.0, 3.0)
    assert found.scales[0] == pytest.approx(0, abs=1e-12)
    assert found.presence([0.0], [0]) == pytest.approx(pairs.right[first].mean(), abs=0.01)
    assert min(found.scales[1:]) > 0.5


def test_priors_shrink_towards_the_shared_fit():
    pairs, _ = world("platt-candidate", 300, 5)
    fit, shared = CALIBRATIONS["platt-candidate"].fit, fit_platt(pairs.logits, pairs.right)
    apart = [np.std(fit(pairs, shared, spread, spread).biases) for spread in (1e-4, 0.1, 0.3, 3.0)]
    assert (np.diff(apart) > 0).all()
    assert apart[0] < 1e-4
    some = pairs.candidates != 3
    without = fit(pairs.take(some), shared, 0.3, 1.0)
    assert (without.scales[3], without.biases[3]) == (shared.scale, shared.bias), "no pairs, no opinion"


@pytest.mark.parametrize("kind", ["beta", "isotonic", "platt-candidate"])
def test_weights_are_repetitions_for_every_kind(kind):
    pairs, _ = world(kind, 60, 3)
    weights = np.random.default_rng(1).integers(1, 4, size=len(pairs))
    method = CALIBRATIONS[kind]
    shared = Platt(1.0, -1.0)
    found = method.fit(replace(pairs, weights=weights), shared, *method.settings[-1])
    repeated = method.fit(pairs.take(np.repeat(np.arange(len(pairs)), weights)), shared, *method.settings[-1])
    x, j = pairs.logits, pairs.candidates
    assert found.log_odds(x, j) == pytest.approx(repeated.log_odds(x, j), abs=5e-3)
    plain = method.fit(pairs, shared, *method.settings[-1])
    assert np.abs(found.log_odds(x, j) - plain.log_odds(x, j)).max() > 0.02


@every_kind
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 1000))
def test_the_order_of_pairs_does_not_matter(kind, seed):
    pairs, _ = world(kind, 60, 3)
    mixed = pairs.take(np.random.default_rng(seed).permutation(len(pairs)))
    first, second = fit_calibration(pairs, kind), fit_calibration(mixed, kind)
    x, j = pairs.logits, pairs.candidates
    assert first.calibration.presence(x, j) == pytest.approx(second.calibration.presence(x, j), abs=1e-4)
    assert first.log_loss == pytest.approx(second.log_loss, rel=1e-4)


@every_kind
def test_any_unit_of_the_logits(kind):
    pairs, _ = world(kind, 200, 4)
    larger = replace(pairs, logits=1e3 * pairs.logits + 5e4)
    first, second = (fit_calibration(one, kind).calibration for one in (pairs, larger))
    presences = [curve.presence(one.logits, one.candidates) for curve, one in ((first, pairs), (second, larger))]
    assert presences[0] == pytest.approx(presences[1], abs=2e-3)


@every_kind
@pytest.mark.parametrize("value", [0.1, -1e6])
def test_equal_logits_give_the_rate(kind, value):
    n, m = 40, 2
    right = np.zeros((n, m), bool)
    right[:20, 0] = True
    pairs = Pairs.of(np.full((n, m), value), right, most=n * m)
    method = CALIBRATIONS[kind]
    found = method.fit(pairs, fit_platt(pairs.logits, pairs.right), *((1e-3, 1e-3) if method.settings[0] else ()))
    assert found.presence([value, value]) == pytest.approx([0.25, 0.25], abs=0.02)
    assert found.presence([-math.inf, 1.0]) == pytest.approx(found.presence([value, value]), abs=1e-6)


def test_equal_logits_of_a_sample():
    """5 right pairs, and 5 wrong ones that stand for 20."""
    right = np.arange(10) < 5
    found = fit_platt(np.ones(10), right, np.where(right, 1.0, 4.0))
    assert found.presence([1.0]) == pytest.approx((5 * 6 / 7 + 20 / 22) / 25)


@every_kind
def test_logits_that_mislead_give_the_rate(kind):
    pairs, _ = world("platt", 400, 3)
    back = replace(pairs, logits=-pairs.logits)
    found = fit_calibration(back, kind).calibration
    assert np.ptp(found.presence([[-2.0] * 3, [2.0] * 3])) < 0.1
    assert found.presence([0.0] * 3) == pytest.approx([pairs.right.mean()] * 3, abs=0.05)


# -- choice --------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("seed", [0, 1])
def test_auto_takes_what_the_world_is_made_for(kind, seed):
    found = fit_calibration(world(kind, seed=seed)[0])
    assert found.method == found.calibration.kind == kind, found
    assert list(found.log_loss) == list(CALIBRATIONS)
    best = min(found.log_loss, key=found.log_loss.get)
    assert "cross-validated log loss" in found.reason
    if best != kind:
        assert found.reason.startswith(f"simpler than {best}, ")


def test_log_loss_by_a_loop():
    """Fit on four fifths of the queries, look at the rest; nats a query."""
    pairs, _ = world("beta", 30, 3)
    pairs = replace(pairs, weights=np.where(pairs.right, 1.0, 2.5))
    found = fit_calibration(pairs)
    query, fold = module._folds(pairs, 5, 0)
    total = 0.0
    for held in range(5):
        out = np.isin(pairs.queries, [q for q in range(30) if fold[q] == held])
        assert np.array_equal(out, fold[query] == held)
        platt = fit_platt(pairs.logits[~out], pairs.right[~out], pairs.weights[~out])
        p = platt.presence(pairs.logits[out])
        y = pairs.right[out]
        total -= (pairs.weights[out] * np.log(np.where(y, p, 1 - p))).sum()
    assert found.log_loss["platt"] == pytest.approx(total / 30)


def test_the_best_setting_is_taken(monkeypatch):
    pairs, _ = world("platt-candidate", 200, 10, seed=1)
    method = CALIBRATIONS["platt-candidate"]
    found = fit_calibration(pairs, "platt-candidate")
    alone = {}
    for setting in method.settings:  # beside one that is worse: all is given to the shared fit
        monkeypatch.setitem(CALIBRATIONS, "platt-candidate", replace(method, settings=(setting, (1e-6, 1e-6))))
        alone[setting] = fit_calibration(pairs, "platt-candidate").log_loss["platt-candidate"]
    best = min(alone, key=alone.get)
    assert found.log_loss == {"platt-candidate": pytest.approx(alone[best])}
    assert found.calibration == method.fit(pairs, fit_platt(pairs.logits, pairs.right), *best)


def test_the_simplest_within_one_standard_error(monkeypatch):
    """Log losses that are known query by query: one of 0 for the first method, −gain for the second."""
    pairs, _ = world("platt", 60, 1)

    def choose(gain):
        losses = {"first": np.zeros(60), "second": -gain}

        class Curve:
            def __init__(self, name):
                self.name = name

            def log_odds(self, logits, candidates):
                return losses[self.name][[place[x] for x in logits]]

        methods = {name: Method(Platt, lambda pairs, shared, name=name: Curve(name)) for name in losses}
        with monkeypatch.context() as patch:
            patch.setattr(module, "CALIBRATIONS", methods)
            patch.setattr(module, "_log_loss", lambda z, right, weights: (z, None))
            patch.setattr(module, "fit_platt", lambda *_: None)
            return module._choose([(name, ()) for name in losses], pairs, 5, 0)

    place = {x: i for i, x in enumerate(pairs.logits)}
    noise = np.tile([-1.0, 1.0], 30)  # its mean has a standard error of 1/√59 = 0.13
    assert choose(noise + 0.14)[0] == ("second", ())
    chosen, log_loss, reason = choose(noise + 0.12)
    assert chosen == ("first", ())
    assert log_loss == pytest.approx({"first": 0.0, "second": -0.12})
    assert reason.startswith("simpler than second, within one standard error")


def test_pairs_of_a_query_stay_together():
    """Queries with a mood of their own: pairs of one query in two folds would tell on each other."""
    pairs, _ = world("platt", 47, 6)
    query, fold = module._folds(pairs, 5, 3)
    assert len(fold) == 47
    assert np.bincount(fold).min() >= 9
    assert {len(set(fold[query][pairs.queries == q])) for q in range(47)} == {1}
    assert not np.array_equal(module._folds(pairs, 5, 4)[1], fold)


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 6), st.lists(st.sampled_from(["right", "wrong", "both"]), min_size=1, max_size=30), st.data())
def test_every_fold_leaves_right_and_wrong_pairs(folds, kinds, data):
    right = np.array([[kind != "wrong", kind == "right"] for kind in kinds])
    pairs = Pairs.of(np.zeros(right.shape), right, most=100)
    query, fold = module._folds(pairs, folds, data.draw(st.integers(0, 9)))
    for which in (pairs.right, ~pairs.right):
        held = {int(fold[q]) for q in query[which]}
        assert len(held) == min(folds, len(set(query[which])))


def test_cross_validation_is_by_query():
    """Logits of a query are all equal, and right by a coin that all its pairs share: nothing can be learnt.

    Folds by pair would let isotonic look up each query's coin.
    """
    random = np.random.default_rng(5)
    logits = np.sort(random.normal(size=(100, 1))) * np.ones((1, 8))
    logits[:, 0] += 1e-3
    right = np.repeat(random.random((100, 1)) < 0.5, 8, axis=1)
    pairs = Pairs.of(logits, right, most=800)
    honest = fit_calibration(pairs)
    assert honest.method == "platt"
    by_pair = fit_calibration(replace(pairs, queries=np.arange(800)))
    assert by_pair.method != "platt"


def test_a_sample_of_the_wrong_pairs_chooses(monkeypatch):
    pairs, _ = world("isotonic", 800)
    whole = fit_calibration(pairs)
    monkeypatch.setattr(module, "COMPARED_PAIRS", int(pairs.right.sum()) + 3000)
    part = fit_calibration(pairs)
    assert part.calibration == whole.calibration, "the last fit sees all pairs"
    assert part.log_loss != whole.log_loss
    assert part.log_loss == pytest.approx(whole.log_loss, rel=0.05)


def test_a_method_asked_for():
    pairs, _ = world("isotonic", 100, 3)
    for name in CALIBRATIONS:
        found = fit_calibration(pairs, name)
        assert (found.method, found.calibration.kind) == (name, name)
        assert set(found.log_loss) <= {name}
    assert fit_calibration(pairs, "platt").calibration == fit_platt(pairs.logits, pairs.right)
    assert fit_calibration(pairs, "platt").reason == "asked for"


def test_the_same_seed_gives_the_same():
    pairs, _ = world("platt-candidate", 200)
    assert fit_calibration(pairs) == fit_calibration(pairs)
    assert fit_calibration(pairs).log_loss != fit_calibration(pairs, seed=1).log_loss


def few(rows: int, columns: int, right: list[tuple[int, int]]) -> Pairs:
    truth = np.zeros((rows, columns), bool)
    truth[tuple(np.transpose(right))] = True
    return Pairs.of(np.random.default_rng(0).normal(size=truth.shape) + truth, truth, most=10**6)


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (few(40, 2, [(i, 0) for i in range(9)]), "9 right pairs, of at least 10"),
        (few(40, 3, [(i, j) for i in range(4) for j in range(3)]), "4 queries with a right pair for 5 folds"),
        (few(12, 1, [(i, 0) for i in range(10)]), "2 queries with a wrong pair for 5 folds"),
        (replace(few(40, 2, [(i, 0) for i in range(20)]), logits=np.ones(80)), "all logits are equal"),
    ],
)
def test_too_little_to_choose_by(pairs, reason):
    found = fit_calibration(pairs)
    assert found.method == "platt"
    assert found.calibration == fit_platt(pairs.logits, pairs.right)
    assert found.log_loss == {}
    assert found.reason == f"{reason}: too little to choose by"


def test_enough_to_choose_by():
    assert fit_calibration(few(40, 2, [(i, 0) for i in range(10)])).log_loss


def test_candidates_that_the_pairs_cannot_carry():
    pairs = few(40, 4, [(i, 0) for i in range(11)])
    assert "platt-candidate" not in fit_calibration(pairs).log_loss
    assert "platt-candidate" in fit_calibration(few(40, 4, [(i, 0) for i in range(12)])).log_loss
    with pytest.raises(DataError, match=r"'platt-candidate' does not fit.*3 right pairs a candidate.*11 for 4"):
        fit_calibration(pairs, "platt-candidate")
    with pytest.raises(DataError, match="takes 2 to 10000 candidates, there are 1"):
        fit_calibration(few(40, 1, [(i, 0) for i in range(11)]), "platt-candidate")
    with pytest.raises(DataError, match="needs cross-validation, but 9 right pairs"):
        fit_calibration(few(40, 2, [(i, 0) for i in range(9)]), "platt-candidate")


def test_what_cannot_be_asked_for():
    pairs, _ = world("platt", 20, 3)
    with pytest.raises(UnknownNameError, match=r"`method` to be one of auto, beta.*Did you mean 'isotonic'"):
        fit_calibration(pairs, "isotonik")
    with pytest.raises(ValueError, match="`folds` of at least 2, got 1"):
        fit_calibration(pairs, folds=1)
    for method in ("auto", *CALIBRATIONS):
        with pytest.raises(DataError, match="needs right and wrong pairs in the dev split, got 60 and 0"):
            fit_calibration(replace(pairs, right=np.ones(60, bool)), method)


# -- pairs ---------------------------------------------------------------------------------------


def test_pairs_of_a_matrix():
    logits = np.arange(6.0).reshape(2, 3)
    pairs = Pairs.of(logits, logits > 3, most=6)
    assert [pairs.queries.tolist(), pairs.candidates.tolist()] == [[0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]]
    assert pairs.size == 3
    assert len(pairs) == 6
    assert np.array_equal(logits[pairs.queries, pairs.candidates], pairs.logits)
    assert pairs.weights.tolist() == [1] * 6


@given(st.integers(1, 90), st.integers(0, 3))
def test_a_sample_stands_for_all(most, seed):
    random = np.random.default_rng(7)
    right = random.random((9, 10)) < 0.2
    logits = random.normal(size=right.shape)
    pairs = Pairs.of(logits, right, most=most, seed=seed)
    assert pairs.right.sum() == right.sum()
    assert pairs.weights.sum() == pytest.approx((~right).sum() + right.sum() if (~pairs.right).any() else right.sum())
    assert (pairs.weights[pairs.right] == 1).all()
    assert np.array_equal(logits[pairs.queries, pairs.candidates], pairs.logits)
    assert np.array_equal(right[pairs.queries, pairs.candidates], pairs.right)
    again = replace(pairs, weights=2 * pairs.weights).thinned(most=max(1, len(pairs) // 2), seed=seed)
    if (~again.right).any():
        assert again.weights.sum() == pytest.approx(2 * pairs.weights.sum())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("right", [True], r"`right` to be of shape \(k,\) like `logits` \(2,\), got \(1,\)"),
        ("weights", [1.0, 0.0], "`weights` to be finite and above 0"),
        ("weights", [1.0, math.inf], "`weights` to be finite and above 0"),
        ("candidates", [0, 2], r"`candidates` in \[0, 2\), got 0 to 2"),
        ("candidates", [-1, 0], r"got -1 to 0"),
        ("logits", [1.0, math.nan], "Expected finite logits to calibrate on, got 1 that are not"),
    ],
)
def test_pairs_that_do_not_fit(name, value, message):
    fine = {"logits": [0.0, 1.0], "right": [True, False], "queries": [0, 0], "candidates": [0, 1], "weights": [1, 1]}
    Pairs(**fine, size=2)
    with pytest.raises(ValueError, match=message):
        Pairs(**{**fine, name: value}, size=2)
