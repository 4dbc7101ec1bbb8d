import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as drawn
from scipy.special import expit, logsumexp, softmax

from sigmax import arrays
from sigmax.calibration.curves import (
    SHARE_BOUND,
    Beta,
    Calibration,
    Isotonic,
    Platt,
    PlattCandidate,
    Quadratic,
    calibration_from_dict,
    share_odds,
)
from sigmax.calibration.worlds import moved

QUADRATIC = Quadratic((-1.0, -2.0), (1.0, 4.0), (0.5, 0.0), (2.0, 1.0), 0.25)
EXAMPLES = {
    "platt": Platt(2.0, -1.0, 0.5),
    "beta": Beta(2.0, -1.0, 0.5, 3.0, 0.2, 0.4, 0.7),
    "quadratic": QUADRATIC,
    "isotonic": Isotonic((-1.0, 0.5, 0.5 + 1e-9, 2.0), (-4.0, -1.0, 0.0, 3.0), 0.5, 0.5),
    "platt-candidate": PlattCandidate(1.0, 0.0, (1.0, 0.0, 5.0), (0.0, -2.0, 1.0), Platt(2.0, -1.0, 0.5)),
}
every_kind = pytest.mark.parametrize("kind", EXAMPLES)


def test_every_curve_has_an_example():
    assert set(EXAMPLES) <= set(Calibration.kinds)
    assert all(type(curve).kind == kind for kind, curve in EXAMPLES.items())


# -- scipy's functions, without its import ---------------------------------------------------------

numbers = st.floats(-800, 800) | st.sampled_from([-np.inf, 0.0, 1e-300])


@given(drawn(float, st.tuples(st.integers(0, 3), st.integers(1, 5)), elements=numbers))
def test_expit_and_logsumexp(z):
    """Each within the roundings of an exponential, a sum of at most five and a logarithm."""
    np.testing.assert_allclose(arrays.expit(z), expit(z), rtol=1e-15, atol=0)
    found, expected = arrays.logsumexp(z), logsumexp(z, axis=-1)
    np.testing.assert_allclose(found, expected, rtol=2e-15, atol=4e-15)
    assert arrays.logsumexp(z, keepdims=True).shape == (len(z), 1)
    weights = np.arange(z.shape[1]).astype(float)[::-1] + np.ones_like(z)
    np.testing.assert_allclose(arrays.logsumexp(z, weights), logsumexp(z, axis=-1, b=weights), rtol=2e-15, atol=4e-15)


def test_the_ends():
    z = np.array([[-np.inf, -np.inf], [np.inf, 0.0], [-1e308, 1e308]])
    np.testing.assert_array_equal(arrays.expit(z), [[0, 0], [1, 0.5], [0, 1]])
    np.testing.assert_array_equal(arrays.logsumexp(z), [-np.inf, np.inf, 1e308])
    assert arrays.expit(2.0) == pytest.approx(1 / (1 + math.exp(-2)), rel=1e-15)


# -- the share -----------------------------------------------------------------------------------


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=6))
def test_share_odds_by_a_loop(row):
    """The logit less log Σ exp of the others, or the bound."""
    total = math.log(math.fsum(map(math.exp, row)))
    for j, (s, found) in enumerate(zip(row, share_odds(row, total), strict=True)):
        rivals = math.log(math.fsum(math.exp(x) for i, x in enumerate(row) if i != j))
        expected = min(max(s - rivals, -SHARE_BOUND), SHARE_BOUND)
        # log(1 − share) keeps as many digits as the total does: its error is that of the total over 1 − share.
        assert found == pytest.approx(expected, abs=1e-13 * math.exp(max(s - rivals, 0)) * 40 + 1e-9)


def test_share_odds_at_the_ends():
    assert share_odds([3.0], 3.0).tolist() == [SHARE_BOUND], "offered alone"
    assert share_odds([-math.inf, 0.0], 0.0).tolist() == [-SHARE_BOUND, SHARE_BOUND]
    assert share_odds([math.inf, 0.0], math.inf).tolist() == [SHARE_BOUND, -SHARE_BOUND]
    assert share_odds([-1e300, 1e300], 1e300).tolist() == [-SHARE_BOUND, SHARE_BOUND]
    assert share_odds(np.float32([5, 5]), 5 + math.log(2)).tolist() == pytest.approx([0, 0])


def test_a_common_shift_leaves_shares_what_they_are():
    row = np.array([2.0, 0.5, -1.0])
    curve = Platt(0.6, -1.0, 0.4)
    change = curve.log_odds(row + 3) - curve.log_odds(row)
    assert change == pytest.approx([0.6 * 3] * 3)
    assert curve.competition == pytest.approx(0.4)


# -- curves --------------------------------------------------------------------------------------


def softplus(x):
    return math.log1p(math.exp(x))


def slope(x, low, high, first, last):
    return first + (last - first) * min(max((x - low) / (high - low), 0), 1)


def test_curves_by_hand():
    for row in ([-1.5, 0.2, 0.4], [0.0, 0.0, 5.0], [0.75, -2.0, -2.5]):
        shares = softmax(row)
        for j, s in enumerate(row):
            r = math.log(shares[j] / (1 - shares[j]))
            expected = {
                "platt": 2 * s - 1 + 0.5 * r,
                "beta": -0.5 * softplus(1 - 2 * s)
                + 3 * softplus(2 * s - 1)
                - 0.4 * softplus(-r)
                + 0.7 * softplus(r)
                + 0.2,
                "platt-candidate": (1, 0, 5)[j] * (2 * s - 1 + 0.5 * r) + (0, -2, 1)[j],
                "isotonic": np.interp(0.5 * s + 0.5 * r, EXAMPLES["isotonic"].places, EXAMPLES["isotonic"].heights),
            }
            # The integral of the slopes, by Simpson's rule, which is exact where a slope is linear.
            expected["quadratic"] = 0.25
            for x, low, high, first, last in ((s, -1.0, 1.0, 0.5, 2.0), (r, -2.0, 4.0, 0.0, 1.0)):
                for a, b in ((low, min(max(x, low), high)), (min(max(x, low), high), x)):
                    middle = slope((a + b) / 2, low, high, first, last)
                    ends = slope(a, low, high, first, last) + slope(b, low, high, first, last)
                    expected["quadratic"] += (b - a) * (ends + 4 * middle) / 6
            for kind, curve in EXAMPLES.items():
                assert curve.log_odds(row)[j] == pytest.approx(expected[kind], abs=1e-9), kind


def test_curves_of_the_logit_alone():
    for x in (-1.5, 0.0, 0.75):
        row = [x, x, x]
        assert Platt(2.0, -1.0).log_odds(row) == pytest.approx([2 * x - 1] * 3)
        assert Beta(2.0, -1.0, 1.0, 1.0, 0.0).log_odds(row) == pytest.approx([2 * x - 1] * 3)
        old = PlattCandidate(2.0, -1.0, (1.0, 0.0, 5.0), (0.0, -2.0, 1.0))
        assert old.log_odds(row).tolist() == [x, -2, 5 * x + 1]
        assert old.log_odds(row, [2, -1, 0]).tolist() == [5 * x + 1, 2 * x - 1, x]
    steps = Isotonic((-1.0, 0.5, 0.5 + 1e-9, 2.0), (-4.0, -1.0, 0.0, 3.0))
    assert steps.log_odds([-9, -1, -0.25, 0.5, 1.25, 2, 9]) == pytest.approx([-4, -4, -2.5, -1, 1.5, 3, 3])


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        (Platt(2.0, 0.0), 0.0),
        (Platt(0.0, 0.0, 3.0), 1.0),
        (Platt(0.0, 0.0, 0.0), 0.0),
        (Platt(1.0, 0.0, 3.0), 0.75),
        (Beta(2.0, 0.0, 1.0, 2.0, 0.0, 1.0, 1.0), 0.25),
        (QUADRATIC, 1 / 3.5),
        (EXAMPLES["isotonic"], 0.5),
        (EXAMPLES["platt-candidate"], 0.2),
    ],
)
def test_how_much_competition_counts(curve, expected):
    """The share's part of the slope, half-way between the ends of a curve that has several."""
    assert curve.competition == pytest.approx(expected)


@st.composite
def curves(draw):
    """Any calibration over 3 candidates."""
    number, factor = st.floats(-1e3, 1e3), st.floats(0, 1e3)

    def some(of, size):
        return tuple(draw(st.lists(of, min_size=size, max_size=size)))

    kind = draw(st.sampled_from(list(EXAMPLES)))
    if kind == "beta":
        return Beta(draw(factor), draw(number), *some(factor, 2), draw(number), *some(factor, 2))
    if kind == "quadratic":
        low = some(number, 2)
        return Quadratic(low, (low[0] + 1, low[1] + 0.1), some(factor, 2), some(factor, 2), draw(number))
    if kind == "isotonic":
        return Isotonic(tuple(sorted(some(number, 3))), tuple(sorted(some(number, 3))), draw(factor), draw(factor))
    platt = Platt(draw(factor), draw(number), draw(factor))
    if kind == "platt-candidate":
        return PlattCandidate(draw(factor), draw(number), some(factor, 3), some(number, 3), platt)
    return platt


LOGITS = st.floats(width=32, allow_nan=False) | st.floats(-1e3, 1e3)


@given(curves(), st.lists(LOGITS, min_size=2, max_size=20), st.floats(0.01, 0.99), LOGITS)
def test_every_presence_is_a_rising_probability(curve, logits, share, rival):
    """It rises with a candidate's own logit, whatever rival it has."""
    x = np.sort(np.array([*logits, -math.inf, math.inf]))
    totals = np.logaddexp(x, rival)
    for one in (curve, moved(curve, 0.5, share)):
        for place in (-1, 0, 1, 2):
            presence = one.presence(x[:, None], [place], totals)[:, 0]
            assert ((presence >= 0) & (presence <= 1)).all()
            assert (np.diff(presence) >= -1e-12).all()
            assert np.allclose(presence, one.presence(x, np.full(len(x), place), totals), rtol=0, atol=0)


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
    assert found.competition == curve.competition
    assert calibration_from_dict(found.as_dict()) == found
    back = moved(found, here, there)
    assert back.log_odds(x, places) == pytest.approx(curve.log_odds(x, places), abs=1e-8, rel=1e-12)


def test_moved_by_counting():
    """Bayes' rule by hand: of 10 pairs with a logit 4 are right; then every right pair comes 3 times."""
    curve = Isotonic((0.0,), (math.log(4 / 6),))
    share_from, share_to = 20 / 100, 60 / 140
    assert moved(curve, share_from, share_to).presence([0.0]) == pytest.approx(12 / 18)


# -- rows and columns ----------------------------------------------------------------------------


@every_kind
def test_columns(kind):
    """Some columns of a row have the presences that they have in the whole row, if its total is given."""
    curve = EXAMPLES[kind]
    x = np.random.default_rng(0).normal(size=(2, 4, 3))
    totals = np.log(np.exp(x).sum(-1))
    whole = curve.presence(x)
    assert whole.shape == x.shape
    assert whole.dtype == np.float64
    assert np.array_equal(curve.presence(x, [0, 1, 2]), whole)
    assert curve.presence(x, None, totals) == pytest.approx(whole, abs=1e-12)
    for given_totals in (totals, totals[..., None]):
        assert curve.presence(x[..., [2, 0]], [2, 0], given_totals) == pytest.approx(whole[..., [2, 0]], abs=1e-12)
    pairs = curve.presence(x.ravel(), np.tile([0, 1, 2], 8), np.repeat(totals.ravel(), 3))
    assert pairs == pytest.approx(whole.ravel(), abs=1e-12)
    assert np.array_equal(curve.presence(x.astype(np.float32)), curve.presence(x.astype(np.float32).astype(float)))
    with pytest.raises(ValueError, match="Expected logits to be numbers, got 1 NaN"):
        curve.presence([0.0, math.nan, 1.0])


@every_kind
def test_what_is_offered_beside_counts(kind):
    """More candidates leave less of the share: presences fall, or stay where the curve does not look at it."""
    curve = EXAMPLES[kind]
    x = np.array([[1.0, 0.5, -0.5]])
    more = np.c_[x, [[2.0]]]
    beside = curve.presence(more, [0, 1, 2, -1])[:, :3]
    alone = curve.presence(x)
    assert (beside <= alone).all()
    assert (beside < alone - 1e-3).any()


def test_a_new_candidate_has_what_all_share():
    x = np.array([[1.0, 0.5, -0.5]])
    curve = EXAMPLES["platt-candidate"]
    assert np.array_equal(curve.log_odds(x, [-1, -1, -1]), curve.base.log_odds(x))


@every_kind
def test_one_candidate_and_nothing(kind):
    curve = EXAMPLES[kind]
    one = curve.presence(np.array([[1.5], [-math.inf], [math.inf]]), [0])
    assert ((one >= 0) & (one <= 1)).all()
    assert curve.presence(np.zeros((2, 0)), np.zeros(0, int)).shape == (2, 0)


def test_columns_that_do_not_fit():
    curve = EXAMPLES["platt-candidate"]
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 3\), a column for each fitted candidate, got \(5, 2\)"):
        curve.presence(np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"`candidates` of shape \(2,\) for logits \(5, 2\), got \(3,\)"):
        curve.presence(np.zeros((5, 2)), [0, 1, 2])
    for bad in ([0, 3], [-2, 0]):
        with pytest.raises(ValueError, match="`candidates` from −1 to 2, got"):
            curve.presence(np.zeros((5, 2)), bad)


# -- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "saved",
    [
        {"slope": 1.0},
        {"kind": "plat", "scale": 1.0, "bias": 0.0},
        {"kind": "platt", "scale": -1.0, "bias": 0.0},
        {"kind": "platt", "scale": 1.0, "bias": 0.0, "share": -1.0},
        {"kind": "platt", "scale": 1.0, "bias": math.nan},
        {"kind": "platt", "scale": "x", "bias": 0.0},
        {"kind": "platt", "scale": 1.0},
        {"kind": "beta", "scale": 1.0, "bias": 0.0, "a": 1.0, "b": -1.0, "c": 0.0},
        {**QUADRATIC.as_dict(), "high": [-1.0, 4.0]},
        {**QUADRATIC.as_dict(), "last": [-1.0, 4.0]},
        {"kind": "isotonic", "places": [0.0, 1.0], "heights": [1.0, 0.0]},
        {"kind": "isotonic", "places": [1.0, 0.0], "heights": [0.0, 1.0]},
        {"kind": "isotonic", "places": [0.0, 1.0], "heights": [0.0]},
        {"kind": "isotonic", "places": [], "heights": []},
        {"kind": "platt-candidate", "scale": 1.0, "bias": 0.0, "scales": [1.0, -1.0], "biases": [0.0, 0.0]},
        {"kind": "platt-candidate", "scale": 1.0, "bias": 0.0, "scales": [1.0, 1.0], "biases": [0.0]},
        {"kind": "platt", "scale": [], "bias": 0.0},
        {"kind": "platt", "scale": 1.0, "bias": [1.0]},
        {"kind": "platt", "scale": "1.0", "bias": 0.0},
        {"kind": "platt", "scale": 10**400, "bias": 0.0},
        {"kind": "isotonic", "places": [0.0, "1.0"], "heights": [0.0, 1.0]},
    ],
)
def test_damaged(saved):
    with pytest.raises((TypeError, ValueError)):
        calibration_from_dict(saved)


OLD = [
    ({"scale": 2.0, "bias": -1.0}, lambda x, j: 2 * x - 1),
    ({"kind": "platt", "scale": 2.0, "bias": -1.0}, lambda x, j: 2 * x - 1),
    (
        {"kind": "beta", "scale": 2.0, "bias": -1.0, "a": 0.5, "b": 3.0, "c": 0.2},
        lambda x, j: -0.5 * softplus(1 - 2 * x) + 3 * softplus(2 * x - 1) + 0.2,
    ),
    ({"kind": "isotonic", "places": [0.0, 1.0], "heights": [-1.0, 3.0]}, lambda x, j: np.interp(x, [0, 1], [-1, 3])),
    (
        {"kind": "platt-candidate", "scale": 1.0, "bias": 0.0, "scales": [1.0, 2.0], "biases": [0.5, -1.0]},
        lambda x, j: (1.0, 2.0)[j] * x + (0.5, -1.0)[j],
    ),
]


@pytest.mark.parametrize(
    ("saved", "formula"), OLD, ids=lambda value: value.get("kind", "") if isinstance(value, dict) else ""
)
def test_what_older_versions_saved(saved, formula):
    """They looked at the logit alone, and give the same numbers."""
    curve = calibration_from_dict(saved)
    x = np.random.default_rng(0).normal(size=(6, 2))
    expected = [[formula(float(x[i, j]), j) for j in range(2)] for i in range(6)]
    assert curve.log_odds(x) == pytest.approx(np.array(expected), rel=1e-14)
    assert curve.competition == 0


def test_a_curve_from_elsewhere_can_be_read():
    """Defining a curve is all that it takes."""
    from dataclasses import dataclass, replace

    @dataclass(frozen=True)
    class Constant(Calibration):
        kind = "constant-for-this-test"
        height: float

        @property
        def competition(self):
            return 0.0

        def shifted(self, shift):
            return replace(self, height=self.height + shift)

        def curve(self, s, r, candidates):
            return np.full(s.shape, self.height)

    try:
        assert calibration_from_dict(Constant(0.5).as_dict()) == Constant(0.5)
        assert Constant(0.0).presence([1.0, 2.0]).tolist() == [0.5, 0.5]
    finally:
        del Calibration.kinds["constant-for-this-test"]


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, math.nan])
def test_shares_are_shares(share):
    with pytest.raises(ValueError, match="`share_from` between 0 and 1"):
        moved(Platt(1, 0), share, 0.5)
    with pytest.raises(ValueError, match="`share_to` between 0 and 1"):
        moved(Platt(1, 0), 0.5, share)


def test_presence_by_hand():
    found = Platt(2.0, -1.0).presence(np.array([[0.5, 1.0], [-1.0, 0.0]]))
    assert found == pytest.approx(np.array([[0.5, 1 / (1 + math.e**-1)], [1 / (1 + math.e**3), 1 / (1 + math.e)]]))
    assert expit(Platt(0.0, 0.0, 1.0).log_odds([1.0, 2.0])) == pytest.approx(softmax([1.0, 2.0])), "the share itself"
