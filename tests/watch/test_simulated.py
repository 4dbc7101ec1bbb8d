"""A small run of the simulation in benchmarks/watching.py: alarms as rare as said, power as computed."""

import importlib
from collections import defaultdict

import pytest
from scipy.stats import binom

from helpers.pages import ROOT

MODELS, REPEATS = 4, 12


@pytest.fixture(scope="module")
def counted():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        watching = importlib.import_module("watching")
        patch.setattr(watching, "POPULATION", 5000)
        patch.setattr(watching, "MOST", 1000)
        whole, edge, drift = (defaultdict(int) for _ in range(3))
        delays = defaultdict(list)
        for seed in range(MODELS):
            one = watching.Read(seed)
            watching.whole(one, REPEATS, whole)
            watching.edge(one, REPEATS, edge)
            watching.streams(one, REPEATS, drift, delays)
        yield whole, edge, drift, delays


def rare(broken, n, alpha):
    """Not more than chance allows, at 0.1%, if it comes with probability alpha."""
    return broken <= binom.ppf(0.999, n, alpha)


@pytest.mark.slow
def test_whole_verifications_raise_few_false_alarms(counted):
    whole = counted[0]
    assert whole["verifications"] == MODELS * REPEATS
    assert rare(whole["false alarms"], whole["verifications"], 0.05)


@pytest.mark.slow
def test_checks_at_the_edge(counted):
    """What just holds is called broken in 5% of the cases at most; skewed metrics have a little more room."""
    edge = counted[1]
    names = [name.removesuffix(" broken at 0.05") for name in edge if name.endswith("broken at 0.05")]
    assert len(names) > 12
    for name in names:
        assert rare(edge[f"{name} broken at 0.05"], edge[f"{name} n"], 0.08), name


@pytest.mark.slow
def test_power_is_as_computed(counted):
    edge = counted[1]
    names = [name.removesuffix(" power n") for name in edge if name.endswith(" power n")]
    seen = sum(edge[f"{name} power broken"] for name in names)
    n = sum(edge[f"{name} power n"] for name in names)
    assert n > 20
    assert seen >= binom.ppf(0.001, n, 0.8)


@pytest.mark.slow
def test_streams(counted):
    drift, delays = counted[2:]
    for alpha in (0.05, 0.01):
        assert rare(drift[f"unchanged alarms at {alpha:g}"], drift["unchanged n"], alpha)
    name = "a deviation lower"
    assert drift[f"{name} alarms at 0.01"] > 0.7 * drift[f"{name} n"]
    assert sorted(delays[name])[len(delays[name]) // 2] < 400
