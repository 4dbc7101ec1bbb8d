import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigmax.calibration import knots
from sigmax.calibration.knots import CROWDED, MANY, Knots

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


@settings(max_examples=60)
@given(st.lists(numbers, min_size=1, max_size=60), st.lists(numbers, max_size=40), st.integers(0, 2**32 - 1))
def test_the_table_finds_what_a_search_finds(places, others, seed):
    found = np.sort(np.array(places))
    made = Knots(found, np.arange(len(found), dtype=float))
    random = np.random.default_rng(seed)
    x = np.concatenate([random.uniform(found[0], found[-1], MANY), found, np.clip(others, found[0], found[-1])])
    x = np.concatenate([x, np.clip(np.nextafter(found, np.inf), found[0], found[-1])])
    assert np.array_equal(made.before(x), np.searchsorted(found, x, side="right"))


@pytest.mark.parametrize(
    "places",
    [
        [0.0],
        [1.0, 1.0],
        [0.0, 5e-324],
        [-1e308, 1e308],
        [*np.linspace(0, 1e-9, 100), 1.0],  # all but one in one cell
        list(np.repeat(np.arange(9.0), 3)),
    ],
)
def test_odd_knots_are_found_as_well(places):
    found = np.array(places)
    x = np.clip(np.random.default_rng(0).choice(found, MANY), found[0], found[-1])
    with np.errstate(over="ignore"):
        made = Knots(found, found)
        assert np.array_equal(made.before(x), np.searchsorted(found, x, side="right"))


def test_many_numbers_are_not_searched_one_by_one(monkeypatch):
    made = Knots(np.linspace(0, 1, 50), np.linspace(0, 1, 50))
    x = np.random.default_rng(0).random((2, MANY))
    expected = np.searchsorted(made.places, x, side="right")
    monkeypatch.setattr(knots.np, "searchsorted", None)
    assert np.array_equal(made.before(x), expected)
    assert CROWDED >= 1
