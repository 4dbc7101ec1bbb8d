import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logsumexp
from sklearn.linear_model import LogisticRegression

from sigmax.calibration import fits as module
from sigmax.calibration.curves import Calibration, Platt, share_odds
from sigmax.calibration.fits import CALIBRATIONS, Method, fit_calibration, fit_platt
from sigmax.calibration.pairs import Pairs
from sigmax.calibration.solvers import fit_candidates, fit_slopes
from sigmax.errors import DataError, UnknownNameError

every_kind = pytest.mark.parametrize("kind", CALIBRATIONS)


def odds_of(curve, pairs):
    return curve.curve(pairs.logits, pairs.share_odds, pairs.candidates)


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
    assert (found.scale, found.bias) == pytest.approx((repeated.scale, repeated.bias), rel=1e-6)
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


# -- both columns --------------------------------------------------------------------------------


def targets(right):
    positives, negatives = right.sum(), (~right).sum()
    return np.where(right, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def one_label(n=400, m=12, seed=0, weight=1.0):
    """One right answer each, drawn by the softmax of the logits, to which each query adds a level of its own."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(n, m))
    share = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    right = share.cumsum(1) > random.random((n, 1))
    right &= np.cumsum(right, 1) == 1
    return Pairs.of(logits + weight * 3 * random.normal(size=(n, 1)), right, most=10**9)


def test_weights_of_logit_and_share_against_scikit_learn():
    pairs, _ = world("platt", 400, 12)
    found = fit_platt(pairs.logits, pairs.right, share_odds=pairs.share_odds)
    features, t = np.stack([pairs.logits, pairs.share_odds], 1), targets(pairs.right)
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(
        np.tile(features, (2, 1)), np.repeat([1, 0], len(t)), np.concatenate([t, 1 - t])
    )
    assert min(fit.coef_[0]) > 0
    assert [found.scale, found.share] == pytest.approx(fit.coef_[0], rel=1e-3)
    assert found.bias == pytest.approx(fit.intercept_[0], abs=1e-3)


def test_where_the_level_says_nothing_the_share_is_all():
    """And where every pair stands on its own, the logit is: the data's own answer to "softmax or sigmoid?"."""
    of_one = fit_calibration(one_label(2000)).calibration
    assert of_one.competition > 0.95
    random = np.random.default_rng(0)
    logits = 2 * random.normal(size=(2000, 12))
    own = Pairs.of(logits, random.random(logits.shape) < expit(1.3 * logits - 3), most=10**9)
    assert fit_calibration(own).calibration.competition < 0.1


def test_shares_make_presences_better():
    """Log loss on new queries: less than of the logit alone, and that of the truth."""
    pairs, new = one_label(2000), one_label(4000, seed=1)
    alone = fit_platt(pairs.logits, pairs.right)

    def log_loss(z):
        return (np.logaddexp(0, z) - z * new.right).sum() / 4000

    both = log_loss(odds_of(fit_calibration(pairs).calibration, new))
    assert both < 0.75 * log_loss(odds_of(alone, new))
    assert both == pytest.approx(log_loss(new.share_odds), rel=0.01)


def test_one_candidate_has_no_share_to_look_at():
    random = np.random.default_rng(0)
    logits = random.normal(size=(500, 1))
    right = random.random((500, 1)) < expit(2 * logits - 1)
    fitted = fit_calibration(Pairs.of(logits, right, most=1000))
    assert fitted.calibration.competition == 0
    assert fitted.calibration.presence(logits).mean() == pytest.approx(right.mean(), abs=0.01)


# -- solvers -------------------------------------------------------------------------------------


def bce(z, target, weights):
    return (weights * (np.logaddexp(0, z) - target * z)).sum()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from([0.2, 1.0, 5.0]))
def test_slopes_against_a_plain_minimiser(seed, size, strength):
    random = np.random.default_rng(seed)
    x = random.normal(size=(size, 60)) * np.exp(random.normal(size=(size, 1))) + random.normal(size=(size, 1))
    weights = random.integers(1, 4, size=60).astype(float)
    right = random.random(60) < expit(strength * random.normal(size=size) @ x)
    if right.all() or not right.any():
        return
    target = targets(right)
    slopes, bias = fit_slopes(x, target, weights)
    assert (slopes >= 0).all()
    best = minimize(
        lambda p: bce(p[:-1] @ x + p[-1], target, weights),
        np.append(slopes, bias) * 0.9 + 0.01,
        method="L-BFGS-B",
        bounds=[(0, None)] * size + [(None, None)],
        options={"ftol": 1e-13, "gtol": 1e-9, "maxiter": 5000},
    )
    assert bce(slopes @ x + bias, target, weights) <= best.fun + 1e-6 * abs(best.fun)


def candidates_world(n=300, m=8, scales=0.3, biases=1.0, seed=0):
    random = np.random.default_rng(seed)
    u, v = scales * random.normal(size=m), biases * random.normal(size=m)
    z = 2 * random.normal(size=(n, m)) - 1
    right = random.random((n, m)) < expit((1 + u) * z + v)
    return z.ravel(), right.ravel(), np.tile(np.arange(m), n), u, v


def test_candidates_against_a_plain_minimiser():
    """The formula of the docstring, minimised at the widths that were found."""
    z, right, j, _, _ = candidates_world(40, 2)
    target, weights = targets(right), np.ones(len(z))
    u, v, wide_u, wide_v = fit_candidates(z, target, weights, j, 2)

    def loss(p):
        prior = sum(p[:2] ** 2) / 2 / wide_u**2 + sum(p[2:] ** 2) / 2 / wide_v**2
        return bce((1 + p[j]) * z + p[2 + j], target, weights) + prior

    best = minimize(loss, np.zeros(4), method="Powell", options={"xtol": 1e-7, "ftol": 1e-13}).x
    assert np.append(u, v) == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize(("scales", "biases"), [(0.3, 1.0), (0.0, 0.0), (0.05, 2.0)])
def test_how_much_candidates_differ_is_found(scales, biases):
    z, right, j, u, v = candidates_world(2000, 60, scales, biases)
    found_u, found_v, wide_u, wide_v = fit_candidates(z, targets(right), np.ones(len(z)), j, 60)
    assert wide_u == pytest.approx(np.std(u), abs=0.04)
    assert wide_v == pytest.approx(np.std(v), rel=0.15, abs=0.1)
    assert np.abs(found_u - u).mean() < 0.06
    assert np.abs(found_v - v).mean() < 0.12


def test_a_rare_candidate_borrows():
    """Of one with few pairs, less is believed; of one with none, nothing."""
    z, right, j, _, _ = candidates_world(400, 10, seed=1)
    few = (j != 3) | (np.arange(len(j)) < 60)
    some = few & (j != 7)
    whole = fit_candidates(z, targets(right), np.ones(len(z)), j, 10)
    part = fit_candidates(z[some], targets(right[some]), np.ones(some.sum()), j[some], 10)
    assert part[0][7] == part[1][7] == 0
    assert abs(part[1][3]) < abs(whole[1][3]) or abs(part[1][3] - whole[1][3]) > 0.05
    alone = z[some & (j == 3)], targets(right[some & (j == 3)])
    free = minimize(lambda p: bce((1 + p[0]) * alone[0] + p[1], alone[1], 1.0), np.zeros(2)).x
    assert np.hypot(part[0][3], part[1][3]) < np.hypot(*free)


def test_a_candidate_whose_logits_mislead_never_falls():
    z, right, j, _, _ = candidates_world(2000, 6, 0.0, 0.0)
    z = np.where(j == 0, -z, z)
    u, _, _, _ = fit_candidates(z, targets(right), np.ones(len(z)), j, 6)
    assert u[0] >= -1
    assert u[0] < -0.7


# -- every kind ----------------------------------------------------------------------------------


def world(kind: str, n: int = 500, m: int = 20, seed: int = 0):
    """Pairs and their true log odds, in a world that the calibration of that name is made for."""
    random = np.random.default_rng(seed)
    x = 2 * random.normal(size=(n, m))
    r = share_odds(x, logsumexp(x, axis=1, keepdims=True))
    shape, _, own = kind.partition("-")
    z = {
        "platt": 0.7 * x + 0.5 * r - 0.5,
        "beta": 0.2 * np.logaddexp(0, x) - 1.8 * np.logaddexp(0, -x) + 0.3 * np.logaddexp(0, r) - 1.0,
        "quadratic": 0.5 * x + 0.09 * np.clip(x, -3, 6) ** 2 + 0.5 * x * (x < 0) + 0.2 * r - 2.5,
        "isotonic": np.select([x < -1, x < 1, x < 3], [-5, -1.5, -1.4], 2.5),
    }[shape]
    if own == "candidate":
        z = z * np.exp(0.2 * random.normal(size=m)) + 1.2 * random.normal(size=m)
    return Pairs.of(x, random.random((n, m)) < expit(z), most=n * m), z.ravel()


@every_kind
def test_the_curve_is_found_again(kind):
    """Presences near the truth, and nearer with more queries."""
    gaps = []
    for n in (300, 6000):
        pairs, z = world(kind, n, seed=4)
        found = CALIBRATIONS[kind].fit(pairs)
        gaps.append(np.abs(expit(odds_of(found, pairs)) - expit(z)).mean())
    assert gaps[1] < 0.02
    assert gaps[1] < gaps[0]


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


def plain(x, y, w=None, size=1):
    """Pairs, each of a query of its own, that is offered one candidate."""
    return Pairs(
        x, np.full(len(x), 30.0), y, np.arange(len(x)), np.zeros(len(x), int), np.ones(len(x)) if w is None else w, size
    )


@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans(), st.integers(1, 3)), min_size=2, max_size=25))
def test_isotonic_by_a_loop(rows):
    x, y, w = (np.array(column) for column in zip(*rows, strict=True))
    if y.all() or not y.any():
        return
    pairs = plain(x, y, w)
    found = fit_calibration(pairs, "isotonic").calibration
    means = pool([*x, x.min(), x.max()], [*y, 1, 0], [*w, 1, 1])
    presence = found.presence(pairs.logits, None, pairs.logits)
    assert presence == pytest.approx([means[place] for place in x], abs=1e-9)
    assert presence.min() >= 1 / (w.sum() + 2) - 1e-12
    assert presence.max() <= 1 - 1 / (w.sum() + 2) + 1e-12


def test_isotonic_ends():
    """4 wrong pairs, then 2 right ones: 1 of 5 below, 2 of 3 above."""
    found = fit_calibration(plain(np.arange(6.0), np.arange(6) > 3), "isotonic").calibration
    assert found.presence([-math.inf, 3, 4, math.inf]) == pytest.approx([1 / 5, 1 / 5, 2 / 3, 2 / 3])


@every_kind
def test_weights_are_repetitions_for_every_kind(kind):
    pairs, _ = world(kind, 60, 3)
    weights = np.random.default_rng(1).integers(1, 4, size=len(pairs))
    fit = CALIBRATIONS[kind].fit
    found = fit(replace(pairs, weights=weights))
    repeated = fit(pairs.take(np.repeat(np.arange(len(pairs)), weights)))
    assert odds_of(found, pairs) == pytest.approx(odds_of(repeated, pairs), abs=2e-2)
    assert np.abs(odds_of(found, pairs) - odds_of(fit(pairs), pairs)).max() > 0.02


@every_kind
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 1000))
def test_the_order_of_pairs_does_not_matter(kind, seed):
    pairs, _ = world(kind, 60, 3)
    mixed = pairs.take(np.random.default_rng(seed).permutation(len(pairs)))
    first, second = (CALIBRATIONS[kind].fit(one) for one in (pairs, mixed))
    assert odds_of(first, pairs) == pytest.approx(odds_of(second, pairs), abs=1e-3)


@every_kind
def test_any_unit_of_the_logits(kind):
    pairs, _ = world(kind, 200, 4)
    larger = replace(pairs, logits=1e3 * pairs.logits + 5e4)
    first, second = (CALIBRATIONS[kind].fit(one) for one in (pairs, larger))
    assert expit(odds_of(first, pairs)) == pytest.approx(expit(odds_of(second, larger)), abs=2e-3)


@every_kind
@pytest.mark.parametrize("value", [0.1, -1e6])
def test_equal_logits_give_the_rate(kind, value):
    n, m = 40, 2
    right = np.zeros((n, m), bool)
    right[:20] = [True, False]
    right[:5] = [False, True]
    pairs = Pairs.of(np.full((n, m), value), right, most=n * m)
    found = CALIBRATIONS[kind].fit(pairs)
    assert found.presence([value, value]).mean() == pytest.approx(0.25, abs=0.02)
    assert found.presence([-math.inf, 1.0]) == pytest.approx(found.presence([value, value]), abs=1e-6)


def test_equal_logits_of_a_sample():
    """5 right pairs, and 5 wrong ones that stand for 20."""
    right = np.arange(10) < 5
    found = fit_platt(np.ones(10), right, np.where(right, 1.0, 4.0))
    assert found.presence([1.0]) == pytest.approx((5 * 6 / 7 + 20 / 22) / 25)


@every_kind
def test_logits_that_mislead_give_the_rate(kind):
    pairs, _ = world("platt", 400, 3)
    back = replace(pairs, logits=-pairs.logits, share_odds=-pairs.share_odds)
    found = CALIBRATIONS[kind].fit(back)
    assert np.ptp(found.presence([[-2.0] * 3, [2.0] * 3])) < 0.1
    assert found.presence([0.0] * 3) == pytest.approx([pairs.right.mean()] * 3, abs=0.06)


# -- choice --------------------------------------------------------------------------------------


@pytest.mark.slow
@every_kind
def test_auto_is_hardly_worse_than_what_the_world_is_made_for(kind):
    pairs, _ = world(kind, 1000)
    new, z = world(kind, 1000, seed=0)
    found = fit_calibration(pairs)
    best = min(found.log_loss, key=found.log_loss.get)
    assert found.method == best or found.reason.endswith("within half a standard error")
    assert found.reason.startswith("the lowest cross-validated log loss")
    own = CALIBRATIONS[kind].fit(pairs)
    truth, chosen, asked = (
        (np.logaddexp(0, x) - x * new.right).sum() / 1000
        for x in (z, odds_of(found.calibration, new), odds_of(own, new))
    )
    assert chosen < asked + 0.02
    assert chosen < truth + 0.05
    assert "candidate" in found.method or "candidate" not in kind


def test_log_loss_by_a_loop():
    """Fit on four fifths of the queries, look at the rest; nats per query."""
    pairs, _ = world("beta", 30, 3)
    pairs = replace(pairs, weights=np.where(pairs.right, 1.0, 2.5))
    found = fit_calibration(pairs)
    query, fold = module._folds(pairs, 5, 0)
    total = 0.0
    for held in range(5):
        out = np.isin(pairs.queries, [q for q in range(30) if fold[q] == held])
        assert np.array_equal(out, fold[query] == held)
        rest, test = pairs.take(~out), pairs.take(out)
        p = expit(odds_of(fit_platt(rest.logits, rest.right, rest.weights, rest.share_odds), test))
        total -= (test.weights * np.log(np.where(test.right, p, 1 - p))).sum()
    assert found.log_loss["platt"] == pytest.approx(total / 30)


def test_each_candidate_its_own_is_tried_on_the_best_that_all_share():
    pairs, _ = world("beta", 400)
    tried = fit_calibration(pairs).log_loss
    shared = [name for name in tried if "candidate" not in name]
    assert shared == ["platt", "beta", "quadratic", "isotonic-logit", "isotonic"]
    assert set(tried) - set(shared) <= {"beta-candidate", "quadratic-candidate"}
    assert len(tried) == 6


def test_a_calibration_from_elsewhere_is_one_entry(monkeypatch):
    class Half(Calibration):
        kind = "half-for-this-test"
        competition = 0.0

        def shifted(self, shift):
            return self

        def curve(self, s, r, candidates):
            return np.zeros(s.shape)

    try:
        monkeypatch.setitem(CALIBRATIONS, "half", Method(name="half", fit=lambda pairs: Half()))
        pairs, _ = world("platt", 100)
        assert isinstance(fit_calibration(pairs, "half").calibration, Half)
        assert fit_calibration(pairs).log_loss["half"] == pytest.approx(20 * math.log(2))
        with pytest.raises(UnknownNameError, match="half"):
            fit_calibration(pairs, "halv")
    finally:
        del Calibration.kinds["half-for-this-test"]


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
    logits = random.normal(size=(200, 1)) * np.ones((1, 8))
    right = np.repeat(random.random((200, 1)) < 0.5, 8, axis=1)
    pairs = Pairs.of(logits, right, most=1600)
    honest, by_pair = (fit_calibration(one).log_loss for one in (pairs, replace(pairs, queries=np.arange(1600))))
    assert min(honest.values()) > 0.98 * 8 * math.log(2)
    assert by_pair["isotonic"] * 8 < honest["isotonic"] - 0.1


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
        assert (found.method, found.log_loss, found.reason) == (name, {}, "asked for")
        assert found.calibration == CALIBRATIONS[name].fit(pairs)


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
        (
            replace(few(40, 2, [(i, 0) for i in range(20)]), logits=np.ones(80), share_odds=np.zeros(80)),
            "all logits are equal",
        ),
    ],
)
def test_too_little_to_choose_by(pairs, reason):
    found = fit_calibration(pairs)
    assert found.method == "platt"
    assert found.calibration == fit_platt(pairs.logits, pairs.right, share_odds=pairs.share_odds)
    assert found.log_loss == {}
    assert found.reason == f"{reason}: too little to choose by"


def test_enough_to_choose_by():
    assert fit_calibration(few(40, 2, [(i, 0) for i in range(10)])).log_loss


def test_candidates_that_the_pairs_cannot_carry():
    one = few(40, 1, [(i, 0) for i in range(11)])
    assert not [name for name in fit_calibration(one).log_loss if "candidate" in name]
    with pytest.raises(DataError, match="takes 2 to 10000 candidates, there are 1"):
        fit_calibration(one, "platt-candidate")
    assert fit_calibration(few(40, 4, [(i, 0) for i in range(2)]), "platt-candidate").method == "platt-candidate"


def test_what_cannot_be_asked_for():
    pairs, _ = world("platt", 20, 3)
    with pytest.raises(UnknownNameError, match=r"`method` to be one of auto, beta.*Did you mean 'isotonic'"):
        fit_calibration(pairs, "isotonik")
    with pytest.raises(ValueError, match="`folds` of at least 2, got 1"):
        fit_calibration(pairs, folds=1)
    for method in ("auto", *CALIBRATIONS):
        with pytest.raises(DataError, match="needs right and wrong pairs in the dev split, got 60 and 0"):
            fit_calibration(replace(pairs, right=np.ones(60, bool)), method)


def test_steps_have_to_be_better_by_half_a_standard_error(monkeypatch):
    """Log losses that are known query by query: one of 0 for a curve, −gain for steps."""
    pairs, _ = world("platt", 60, 2)
    noise = np.tile([-1.0, 1.0], 30)  # its mean has a standard error of 1/√59 = 0.13
    methods = {
        name: Method(name=name, fit=lambda pairs: Platt(1.0, 0.0), steps=name == "steps") for name in ["a", "steps"]
    }
    monkeypatch.setattr(module, "CALIBRATIONS", methods)
    for gain, chosen in ((0.07, "steps"), (0.06, "a")):
        losses = {"a": np.zeros(60), "steps": -(noise + gain)}
        monkeypatch.setattr(module, "_cross_validated", lambda *_, losses=losses: losses)
        found = fit_calibration(pairs)
        assert found.method == chosen
        assert found.log_loss == pytest.approx({"a": 0.0, "steps": -gain})
        assert ("within half a standard error" in found.reason) == (chosen == "a")
        groups = np.arange(60) // 2  # two by two, the noise cancels out
        assert fit_calibration(replace(pairs, groups=groups)).method == "steps"
