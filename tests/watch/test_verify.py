"""Promises on fresh queries: what is decided, how often by chance, and what the command line says."""

import json
import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from helpers.commands import refused
from helpers.scored import lists, write_table
from sigmax.errors import DataError, UnknownNameError
from sigmax.scores import calibrate_scores
from sigmax.watch import verify
from sigmax.watch.checks import BROKEN, POWER, UNSHOWN, UNTOLD, check_bound, check_loss, parse_bound


def loss(total, n, allowed=0.1, exact=True, alpha=0.05):
    return check_loss("promise", total, n, allowed, exact=exact, alpha=alpha, words="words")


# -- one check -----------------------------------------------------------------------------------


@given(st.integers(1, 400), st.floats(0.01, 0.6), st.data())
def test_exact_against_the_binomial(n, allowed, data):
    total = data.draw(st.integers(0, n))
    check = loss(total, n, allowed)
    assert check.p == pytest.approx(binom.sf(total - 1, n, allowed), abs=1e-9)
    assert (check.verdict == BROKEN) == (check.p <= 0.05)
    assert check.low <= check.value + 1e-6
    assert check.high >= check.value - 1e-6


@pytest.mark.parametrize("exact", [True, False])
def test_false_alarms_are_as_rare_as_said_and_power_is_as_computed(exact):
    """Every total of n losses of 0 and 1, weighted by how often it comes."""
    for n, allowed in ((60, 0.1), (150, 0.2)):
        verdicts = np.array([loss(total, n, allowed, exact).verdict == BROKEN for total in range(n + 1)])
        chance = binom.pmf(np.arange(n + 1), n, allowed) @ verdicts
        assert chance <= 0.05
        if exact:
            step = binom.pmf(np.argmax(verdicts) - 1, n, allowed)  # as near as whole numbers come
            assert chance + step > 0.05
        found = loss(0, n, allowed, exact)
        power = binom.pmf(np.arange(n + 1), n, 2 * allowed) @ verdicts
        assert (found.verdict == UNTOLD) == (power < POWER)
        needed = np.array(
            [loss(total, found.needed, allowed, exact).verdict == BROKEN for total in range(found.needed + 1)]
        )
        assert binom.pmf(np.arange(found.needed + 1), found.needed, 2 * allowed) @ needed >= POWER


def test_other_losses_raise_few_false_alarms():
    """Shares of wrong ones, whose mean is what is allowed."""
    random = np.random.default_rng(0)
    alarms = sum(loss(random.beta(0.3, 2.7, 300).sum(), 300, 0.1, exact=False).verdict == BROKEN for _ in range(400))
    assert alarms <= binom.ppf(0.9999, 400, 0.05)


def test_verdicts():
    assert loss(30, 100).verdict == BROKEN
    assert loss(0, 5).verdict == UNTOLD
    assert loss(9, 400).verdict == UNSHOWN
    nothing = loss(0, 0)
    assert (nothing.verdict, nothing.value) == (UNTOLD, None)
    assert nothing.needed > 50
    turned = check_loss("precision=0.9", 5, 50, 0.1, exact=True, alpha=0.05, words="", level=0.9)
    assert turned.value == pytest.approx(0.9)
    assert turned.bound == 0.9
    assert turned.low < 0.9 < turned.high


def test_bounds_of_metrics():
    random = np.random.default_rng(0)
    draws = np.concatenate([[0.8], 0.8 + 0.02 * random.normal(size=1000)])
    for text, verdict in (("map>=0.7", UNSHOWN), ("map>=0.9", BROKEN), ("map >= 0.81", UNSHOWN), ("map<=0.7", BROKEN)):
        assert check_bound(parse_bound(text), draws, 400, alpha=0.05).verdict == verdict
    wide = np.concatenate([[0.8], 0.8 + 0.2 * random.normal(size=1000)])
    found = check_bound(parse_bound("map>=0.8"), wide, 20, alpha=0.05)
    assert found.verdict == UNTOLD
    assert found.needed == pytest.approx(20 * ((1.645 + 0.842) * 0.2 / 0.08) ** 2, rel=0.1)
    assert check_bound(parse_bound("map>=0.8"), np.array([math.nan]), 20, alpha=0.05).verdict == UNTOLD
    for wrong in ("map", "map>=", "map>=x", "map=0.8"):
        with pytest.raises(ValueError, match="a metric and a bound such as"):
            parse_bound(wrong)
    with pytest.raises(UnknownNameError, match="Did you mean 'map'"):
        parse_bound("mapp>=0.8")


@pytest.mark.parametrize("text", ["expected_ratio>=0.8", "expected_ratio<=1.25"])
def test_a_ratio_at_its_bound_is_broken_at_the_stated_rate(text):
    """200 queries with few right pairs: the deviation of the quotient rises with it."""
    random, bound, alpha = np.random.default_rng(0), parse_bound(text), 0.05
    worlds, n, draws = 1500, 200, 200
    broken = 0
    for _ in range(worlds):
        expected = random.gamma(0.6, 0.5, size=n)  # per query, as presences promise
        there = random.poisson(expected / bound.level)
        rows = random.integers(n, size=(draws, n))
        values = expected[rows].sum(1) / there[rows].sum(1)
        broken += check_bound(bound, np.r_[expected.sum() / there.sum(), values], n, alpha=alpha).verdict == BROKEN
    # The bootstrap's own deviation is off by about 1/√(2 · 200) beside the sampling error of 1,500 worlds.
    assert broken / worlds < alpha + 3 * math.sqrt(alpha / worlds)


# -- a verification ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated():
    return calibrate_scores(lists(1500, missing=0.05))


PROMISES = ("precision=0.8", "false-claims=0.2", "contains=0.6")


@pytest.mark.slow
def test_a_world_that_stayed(calibrated):
    found = verify(calibrated, lists(1500, seed=1, missing=0.05), PROMISES, ["map>=0.5"])
    assert found.broken == ()
    assert [check.name for check in found.checks[:4]] == [*PROMISES, "map>=0.5"]
    assert found.checks[0].verdict == UNSHOWN
    assert found.checks[0].value == pytest.approx(0.8, abs=0.1)


def test_a_world_that_changed(calibrated):
    """Scores tell less than they did: presences claim too much."""
    scores = lists(1500, seed=1, missing=0.05)
    scores.values[:] = scores.values[np.random.default_rng(0).permutation(len(scores))]
    found = verify(calibrated, scores, PROMISES, ["map>=0.5"])
    assert {"precision=0.8", "map>=0.5", "calibration_slope>=0.8"} <= {check.name for check in found.broken}
    suite = ElementTree.fromstring(found.junit())
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure")) == len(found.broken)
    assert int(suite.get("tests")) == len(found.checks)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False))["broken"] == len(found.broken)


def test_thresholds_that_accept_nothing(calibrated):
    found = verify(calibrated, lists(100, seed=2), ["precision=0.999"], calibration=False)
    assert found.checks[0].verdict == UNTOLD


def test_few_queries(calibrated):
    found = verify(calibrated, lists(15, seed=3), PROMISES)
    assert not found.broken
    assert {"false-claims=0.2"} <= {check.name for check in found.untold}
    assert all(check.needed > 15 for check in found.untold)


def test_what_cannot_be_verified(calibrated):
    scores = lists(30)
    with pytest.raises(ValueError, match="something to check"):
        verify(calibrated, scores, calibration=False)
    with pytest.raises(ValueError, match="a promise with a level"):
        verify(calibrated, scores, ["best-f1"])
    with pytest.raises(ValueError, match="`alpha` between 0 and 1"):
        verify(calibrated, scores, alpha=0)
    with pytest.raises(DataError, match="verified on scores"):
        verify(calibrated, object())


@pytest.mark.slow
def test_false_alarms_of_a_whole_verification():
    """Dev and fresh queries of one world: over dev splits promises are broken by 10% at most, alarms by α at most."""
    alarms = 0
    for seed in range(60):
        model = calibrate_scores(lists(400, seed=2 * seed), method="platt")
        alarms += bool(verify(model, lists(400, seed=2 * seed + 1), ["precision=0.7"], draws=200).broken)
    assert alarms <= binom.ppf(0.999, 60, 0.05 + 0.1)


# -- the command line ----------------------------------------------------------------------------


def test_verify_scores(sigmax, calibrated, tmp_path):
    calibrated.save(tmp_path / "scores")
    fresh = write_table(tmp_path / "fresh.csv", lists(800, seed=4, missing=0.05))
    done = sigmax("verify", tmp_path / "scores", fresh, "--promise", "precision=0.8", "--junit", tmp_path / "out.xml")
    assert done.code == 0, done.err
    assert "not shown to be broken" in done.out
    assert ElementTree.parse(tmp_path / "out.xml").getroot().get("failures") == "0"
    done = sigmax("verify", tmp_path / "scores", fresh, "--metric", "map>=0.99", "--no-calibration", "--json")
    assert done.code == 1
    assert "Broken: map>=0.99" in done.words
    assert json.loads(done.out)["checks"][0]["verdict"] == BROKEN
    few = write_table(tmp_path / "few.csv", lists(10, seed=5))
    assert sigmax("verify", tmp_path / "scores", few, "--promise", "precision=0.8").code == 0
    assert sigmax("verify", tmp_path / "scores", few, "--promise", "precision=0.8", "--strict").code == 1
    refused(sigmax("verify", tmp_path / "scores", few, "--promise", "precision"), 1, "Expected a level")
    refused(sigmax("verify", tmp_path / "scores", few, "--metric", "mapp>=1"), 2, "Did you mean 'map'")
