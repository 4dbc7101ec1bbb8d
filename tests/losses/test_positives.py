import pickle

import numpy as np
import pytest
import torch
from hypothesis import given

from helpers import oracles
from sigmax import Positives

DENSE = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1]])


def test_constructors_agree():
    pairs = Positives([0, 0, 1, 2, 2], [0, 1, 0, 1, 2], shape=(3, 3))
    assert pairs == Positives.from_dense(DENSE)
    assert pairs == Positives.from_dense(DENSE.tolist())
    assert pairs == Positives.from_dense(DENSE.bool())
    assert pairs == Positives.from_dense(DENSE.double())
    assert pairs == Positives.from_labels([{"moon", "sun"}, {"moon"}, {"sun", "fire"}], ["moon", "sun", "fire"])
    assert pairs == Positives.from_labels([["a", "b"], ["a"], ["b", "c"]], [{"a"}, {"b", "z"}, {"c"}])
    assert pairs == Positives(np.array([0, 0, 1, 2, 2]), torch.tensor([0, 1, 0, 1, 2], dtype=torch.uint8), (3, 3))


def test_ids():
    expected = Positives([0, 0, 1], [0, 2, 1], shape=(3, 4))
    assert Positives.from_ids(["a", "b", "c"], ["a", "b", "a", "d"]) == expected
    assert Positives.from_ids(torch.tensor([1, 2, 3]), np.array([1, 2, 1, 4])) == expected
    assert Positives.from_ids(iter("abc"), iter("abad")) == expected


def test_id_none_equals_nothing():
    assert Positives.from_ids([None, "a"], [None, "a"]) == Positives([1], [1], shape=(2, 2))


def test_labels_may_be_strings_numbers_or_sets():
    found = Positives.from_labels([{"cat", 3}, {("x", 1)}, []], ["cat", 3, [("x", 1), "cat"], "c"])
    assert found == Positives([0, 0, 0, 1], [0, 1, 2, 2], shape=(3, 4))


def test_a_repeated_pair_counts_once():
    twice = Positives([1, 0, 1], [0, 2, 0], shape=(2, 3), ignored=([0, 0], [1, 1]))
    assert twice == Positives([0, 1], [2, 0], shape=(2, 3), ignored=([0], [1]))
    assert len(twice) == 2
    assert len(twice.ignored_rows) == 1
    assert Positives.from_labels([["a", "b", "a"]], [["a", "b"]]) == Positives([0], [0], (1, 1))


def test_pairs_are_sorted():
    shuffled = Positives([2, 0, 1, 0], [0, 1, 2, 0], shape=(3, 3))
    assert shuffled.rows.tolist() == [0, 0, 1, 2]
    assert shuffled.columns.tolist() == [0, 1, 2, 0]


def test_counts():
    assert Positives.from_dense(DENSE).counts.tolist() == [2, 1, 2]
    assert Positives([], [], (2, 0)).counts.tolist() == [0, 0]
    assert Positives([], [], (0, 2)).counts.tolist() == []


def test_repr():
    graph = Positives([0, 1], [1, 0], shape=(2, 3), ignored=([0], [0]))
    assert repr(graph) == "Positives(2 right and 1 ignored pairs of 2 queries × 3 candidates)"


@given(oracles.batches())
def test_dense_round_trip(batch):
    graph = batch.positives
    assert torch.equal(graph.to_dense(), batch.cells == 1)
    assert torch.equal(graph.ignored_to_dense(), batch.cells == 2)
    assert torch.equal(graph.counts, (batch.cells == 1).sum(1))
    assert len(graph) == int((batch.cells == 1).sum())
    rows, columns = (batch.cells == 1).nonzero(as_tuple=True)
    skipped = (batch.cells == 2).nonzero(as_tuple=True)
    assert Positives(rows.flip(0), columns.flip(0), batch.shape, skipped) == graph


@given(oracles.batches())
def test_transpose(batch):
    turned = batch.positives.transpose()
    assert turned == Positives.from_dense((batch.cells == 1).T, (batch.cells == 2).T)
    assert turned.transpose() == batch.positives


@given(oracles.batches())
def test_excluded(batch):
    for positives in (False, True):
        mask = torch.zeros(batch.shape, dtype=torch.bool)
        mask[batch.positives.excluded(positives=positives)] = True
        assert torch.equal(mask, (batch.cells == 2) | (positives & (batch.cells == 1)))


@given(oracles.batches())
def test_pickle(batch):
    assert pickle.loads(pickle.dumps(batch.positives)) == batch.positives


def test_equality():
    graph = Positives([0], [1], (2, 2), ignored=([1], [1]))
    assert graph == Positives([0], [1], (2, 2), ignored=([1], [1]))
    assert graph != Positives([0], [1], (2, 2))
    assert graph != Positives([0], [0], (2, 2), ignored=([1], [1]))
    assert graph != Positives([0], [1], (2, 3), ignored=([1], [1]))
    assert graph != "graph"
    with pytest.raises(TypeError, match="unhashable"):
        hash(graph)


def test_to_the_same_device_is_the_same_graph():
    graph = Positives([0], [1], (2, 2))
    assert graph.to("cpu") is graph


def test_to_another_device_takes_every_index():
    moved = Positives([0], [1], (2, 2), ignored=([1], [1])).to("meta")
    indices = (moved.rows, moved.columns, moved.ignored_rows, moved.ignored_columns)
    assert {index.device.type for index in indices} == {"meta"}
    assert moved.shape == (2, 2)


@pytest.mark.parametrize(
    ("rows", "columns", "ignored", "message"),
    [
        ([0, 5], [0, 0], None, r"Expected rows of `positives` in \[0, 2\) for shape \(2, 3\), got 5\. Is `shape` \(q"),
        ([0, 0], [0, -1], None, r"Expected columns of `positives` in \[0, 3\) for shape \(2, 3\), got -1\."),
        ([0], [0, 1], None, r"Expected as many rows as columns for `positives`, got 1 and 2\."),
        ([0], [0], ([1], [3]), r"Expected columns of `ignored` in \[0, 3\).*got 3\."),
        ([0], [0], ([1], []), r"Expected as many rows as columns for `ignored`, got 1 and 0\."),
        ([0, 1], [0, 2], ([1], [2]), r"right or ignored, got \(1, 2\) as both \(1 such pairs\)"),
        ([[0]], [[0]], None, r"Expected rows of `positives` to be a list, got a tensor of shape \(1, 1\)"),
    ],
)
def test_wrong_pairs(rows, columns, ignored, message):
    with pytest.raises(ValueError, match=message):
        Positives(rows, columns, (2, 3), ignored)


@pytest.mark.parametrize("rows", [[0.0], torch.tensor([True]), torch.tensor([1j])])
def test_indices_are_integers(rows):
    with pytest.raises(TypeError, match=r"Expected integer rows for `positives`, got torch\.\w+\. For a matrix use "):
        Positives(rows, [0], (2, 3))
    with pytest.raises(TypeError, match="Expected integer columns for `ignored`"):
        Positives([], [], (2, 3), ignored=([0], rows))


def test_negative_shape():
    with pytest.raises(ValueError, match=r"Expected `shape` to be two sizes of at least 0, got \(-1, 2\)"):
        Positives([], [], (-1, 2))


def test_graded_scores_are_not_cut_silently():
    with pytest.raises(ValueError, match=r"`positives` to hold only 0 and 1, got 0\.5\. For graded scores choose a"):
        Positives.from_dense([[1.0, 0.5]])
    with pytest.raises(ValueError, match=r"`ignored` to hold only 0 and 1, got 2\."):
        Positives.from_dense([[1, 0]], [[0, 2]])


def test_dense_shapes():
    with pytest.raises(ValueError, match=r"Expected `positives` to be an \(n, m\) matrix, got shape \(2,\)"):
        Positives.from_dense([1, 0])
    with pytest.raises(ValueError, match=r"Expected `ignored` of shape \(1, 2\), got \(2, 1\)"):
        Positives.from_dense([[1, 0]], [[0], [1]])
    with pytest.raises(ValueError, match=r"got \(0, 1\) as both"):
        Positives.from_dense([[1, 1]], [[0, 1]])


def test_one_string_is_not_a_set_of_labels():
    with pytest.raises(TypeError, match=r"Expected a set of labels for query 1, got the string 'cat'\. Try \['cat'\]"):
        Positives.from_labels([["dog"], "cat"], ["cat", "dog"])
