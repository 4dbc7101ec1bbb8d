import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmax.metrics import condense as condensing
from sigmax.metrics.condense import condense, joined
from sigmax.metrics.ranking import right_ranks


def random_logits(n, m, seed, values=None, spread=3.0):
    random = np.random.default_rng(seed)
    logits = random.normal(size=(n, m)) * spread if values is None else random.integers(values, size=(n, m))
    return logits.astype(np.float32), random.random((n, m)) < 0.02


@given(st.integers(1, 4), st.integers(1, 300), st.integers(0, 99), st.sampled_from([None, 1, 2, 30]))
def test_nothing_is_lost(n, m, seed, values):
    logits, right = random_logits(n, m, seed, values)
    found = condense(logits, right, head=8, bins=16)
    width = (logits.max(1) - logits.min(1)) / 16
    for i in range(n):
        single = found.columns[i] >= 0
        columns = found.columns[i, single]
        assert len(set(columns.tolist())) == len(columns)
        assert set(np.flatnonzero(right[i])) <= set(columns.tolist())
        assert logits[i].argmax() in columns
        assert (found.logits[i, single] == logits[i, columns]).all()
        assert (found.right[i, single] == right[i, columns]).all()
        assert (found.weights[i, single] == 1).all()
        assert not found.right[i, ~single].any()
        rest = np.setdiff1d(np.arange(m), columns)
        assert found.weights[i, ~single].sum() == len(rest)
        pooled = found.logits[i, ~single] * found.weights[i, ~single]
        assert pooled.sum() == pytest.approx(logits[i, rest].sum(dtype=np.float64), abs=1e-4 * m)
        # Half as many of the highest as may be kept are, unless equal logits would bring in more.
        if values is None and m > 16:
            assert 1 <= single.sum() - right[i].sum() <= 17
        # Each pair is represented within a bin: sums of a convex function are off by h²/8 · max f″ per pair at most.
        exact, seen = np.exp(logits[i].astype(float)).sum(), (np.exp(found.logits[i].astype(float)) * found.weights[i])
        if single.sum() < m:
            assert abs(exact - seen.sum()) <= width[i] ** 2 / 8 * exact * np.exp(width[i]) + 1e-5 * exact


def test_pooled_lie_below_what_is_kept():
    logits, right = random_logits(3, 5000, 0)
    found = condense(logits, right & False, head=100, bins=500)
    for row, columns, weights in zip(found.logits, found.columns, found.weights, strict=True):
        assert 100 <= (columns >= 0).sum() <= 200
        assert row[columns >= 0].min() > row[(columns < 0) & (weights > 0)].max()


def test_parts_of_other_widths():
    parts = [condense(*random_logits(2, m, m), head=4, bins=8) for m in (3, 60, 1)]
    whole = joined(list(parts))
    top = 0
    for part in parts:
        rows, width = part.logits.shape
        for name, value in vars(part).items():
            assert (getattr(whole, name)[top : top + rows, :width] == value).all()
        assert (whole.weights[top : top + rows, width:] == 0).all()
        assert (whole.columns[top : top + rows, width:] == -1).all()
        assert (whole.logits[top : top + rows, width:] <= part.logits.min()).all()
        top += rows
    assert joined([]).logits.shape == (0, 0)


def test_the_fused_loop_is_its_twin(monkeypatch):
    pytest.importorskip("numba")
    logits, right = random_logits(5, 4000, 1)
    expected = condense(logits, right)
    monkeypatch.setattr(condensing, "FUSED_FROM", 0)
    found = condense(logits, right)
    for name, value in vars(expected).items():
        assert np.array_equal(value, getattr(found, name)), name


@pytest.mark.parametrize("values", [None, 1, 4])
@pytest.mark.parametrize("share", [0.02, 0.6])
def test_ranks_by_loops(values, share):
    """Few right answers are counted, many are sorted."""
    logits, _ = random_logits(6, 80, 2, values)
    right = np.random.default_rng(0).random(logits.shape) < share
    found = right_ranks(logits, right)
    place = 0
    for i, j in np.argwhere(right).tolist():
        above = sum(s > logits[i, j] or (s == logits[i, j] and k < j) for k, s in enumerate(logits[i]))
        assert (found.queries[place], found.ranks[place]) == (i, above + 1)
        place += 1
    assert (place, len(logits)) == (len(found.ranks), found.n)
