import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmax.data import MatchDataset
from sigmax.data.dataset import SPLITS, seeded_split
from sigmax.errors import DataError

ONE_EACH = {"train": np.array([0]), "dev": np.array([1]), "test": np.array([2])}


def sky(**changes) -> MatchDataset:
    given = {
        "name": "sky",
        "queries": ["in the sky", "at night", "hot"],
        "candidates": ["moon", "sun", "fire"],
        "pairs": np.array([[0, 0], [0, 1], [1, 0], [2, 1], [2, 2]]),
        "splits": ONE_EACH,
        "wrong": np.array([[1, 1]]),
    }
    return MatchDataset(**{**given, **changes})


def test_pairs_are_sorted_and_unique():
    data = sky(pairs=[[2, 2], [0, 1], [2, 2], [0, 0]], wrong=[[1, 1], [1, 0], [1, 1]])
    assert data.pairs.tolist() == [[0, 0], [0, 1], [2, 2]]
    assert data.wrong.tolist() == [[1, 0], [1, 1]]


def test_what_follows_from_the_pairs():
    data = sky()
    assert data.graph.toarray().tolist() == [[1, 1, 0], [1, 0, 0], [0, 1, 1]]
    assert data.wrong_graph.toarray().tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 0]]
    assert data.answer_counts.tolist() == [2, 1, 2]
    assert sky(pairs=[[0, 1]], wrong=[]).answer_counts.tolist() == [1, 0, 0]


def test_ids_are_made_where_none_are_given():
    assert list(sky().query_ids) == ["q0", "q1", "q2"]
    assert list(sky().candidate_ids) == ["moon", "sun", "fire"]
    assert list(sky(query_ids=["x", "y", "z"]).query_ids) == ["x", "y", "z"]


def test_split_by_name():
    assert sky().split("dev").tolist() == [1]
    with pytest.raises(ValueError, match=r"`split` to be one of dev, test, train, got 'tset'\. Did you mean 'test'\?"):
        sky().split("tset")


def test_without_candidates():
    data = sky(wrong=[[1, 1], [1, 2]], candidate_ids=["m", "s", "f"])
    fewer = data.without_candidates(np.array([False, True, False]), "no sun")
    assert fewer.name == "no sun"
    assert fewer.candidates == ["moon", "fire"]
    assert fewer.candidate_ids == ["m", "f"]
    assert fewer.pairs.tolist() == [[0, 0], [1, 0], [2, 1]]
    assert fewer.wrong.tolist() == [[1, 1]]
    assert fewer.queries == data.queries
    none = data.without_candidates(np.array([False, True, True]), "moon alone")
    assert none.answer_counts.tolist() == [1, 1, 0], "a query may be left with no right answer"
    assert data.answer_counts.tolist() == [2, 1, 2], "the data it came from stays as it was"


@given(
    cells=st.lists(st.lists(st.integers(0, 2), min_size=4, max_size=4), min_size=3, max_size=5),
    hidden=st.lists(st.booleans(), min_size=4, max_size=4),
)
def test_taking_candidates_away_keeps_the_others_as_they_were(cells, hidden):
    matrix, gone = np.array(cells), np.array(hidden)
    data = MatchDataset(
        "x", [*"abcde"][: len(cells)], [*"wxyz"], np.argwhere(matrix == 1), ONE_EACH, np.argwhere(matrix == 2)
    )
    left = data.without_candidates(gone, "y")
    assert (left.graph.toarray() == (matrix == 1)[:, ~gone]).all()
    assert (left.wrong_graph.toarray() == (matrix == 2)[:, ~gone]).all()


def test_pickle():
    data = sky()
    assert data.graph.nnz == 5
    back = pickle.loads(pickle.dumps(data))
    assert back.pairs.tolist() == data.pairs.tolist()
    assert back.candidates == data.candidates


def test_data_that_is_only_trained_on_needs_no_test_split():
    data = sky(splits={"train": np.array([0, 1]), "dev": np.array([2])})
    assert data.split("dev").tolist() == [2]
    with pytest.raises(ValueError, match="Expected `split` to be one of dev, train, got 'test'"):
        data.split("test")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": [[0, 0], [0, 3]]}, r"sky: expected `pairs` inside \(3, 3\) \(queries, candidates\), got \(0, 3\)"),
        ({"pairs": [[-1, 0]]}, r"expected `pairs` inside \(3, 3\).*got \(-1, 0\)"),
        ({"pairs": [[5, 0], [0, 1]]}, r"expected `pairs` inside \(3, 3\).*got \(5, 0\)"),
        ({"wrong": [[0, 7]]}, r"expected `wrong` inside \(3, 3\).*got \(0, 7\)"),
        ({"wrong": [[0, 1], [2, 2]]}, r"2 pairs are both right and wrong, the first of them 'in the sky' → 'sun'\."),
        ({"splits": {}}, r"sky: the train split is empty \(splits: none\)"),
        (
            {"splits": {**ONE_EACH, "dev": np.array([], int)}},
            r"the dev split is empty \(splits: train 1, dev 0, test 1\)",
        ),
        ({"splits": {**ONE_EACH, "dev": np.array([1, 0])}}, r"(?s)'in the sky'.*train.*dev"),
        ({"splits": {**ONE_EACH, "test": np.array([3])}}, r"test.*\[0, 3\).*3"),
    ],
)
def test_wrong_data(changes, message):
    with pytest.raises(DataError, match=message):
        sky(**changes)


def test_replacing_a_field_checks_again():
    with pytest.raises(DataError, match="inside"):
        replace(sky(), pairs=np.array([[9, 9]]))


# -- the seeded split ----------------------------------------------------------------------------


@given(st.lists(st.text(max_size=4), min_size=1, max_size=60), st.integers(0, 5))
def test_seeded_split(keys, seed):
    made = seeded_split(keys, seed=seed)
    assert sorted(np.concatenate(list(made.values())).tolist()) == list(range(len(keys)))
    texts = {name: {keys[i] for i in made[name]} for name in SPLITS}
    assert not texts["train"] & (texts["dev"] | texts["test"])
    assert not texts["dev"] & texts["test"]
    if len(set(keys)) >= 3:
        assert all(len(made[name]) for name in SPLITS)


@pytest.mark.parametrize(
    ("n", "sizes"), [(3, (1, 1, 1)), (10, (8, 1, 1)), (100, (80, 10, 10)), (1000, (800, 100, 100))]
)
def test_shares(n, sizes):
    made = seeded_split([f"q{i}" for i in range(n)])
    assert tuple(len(made[name]) for name in SPLITS) == sizes


@given(st.permutations([f"q{i}" for i in range(15)]))
def test_the_order_of_the_keys_does_not_matter(keys):
    def texts(keys):
        return {name: {keys[i] for i in indices} for name, indices in seeded_split(keys).items()}

    assert texts(keys) == texts([f"q{i}" for i in range(15)])


def test_the_split_never_changes():
    """People compare metrics across machines and versions: the same texts must be held out."""
    made = seeded_split([f"q{i}" for i in range(20)])
    assert made["dev"].tolist() == [0, 16]
    assert made["test"].tolist() == [4, 14]


def test_the_fingerprint_tells_data_apart():
    assert sky().fingerprint == sky(name="other").fingerprint
    changes = (
        {"queries": ["in the sky", "at night", "cold"]},
        {"candidates": ["moon", "sun", "ice"], "candidate_ids": ["moon", "sun", "fire"]},
        {"pairs": np.array([[0, 0], [1, 0], [2, 1], [2, 2]])},
        {"splits": {"train": np.array([1]), "dev": np.array([0]), "test": np.array([2])}},
    )
    assert len({sky(**change).fingerprint for change in ({}, *changes)}) == 5


def test_weights_of_queries():
    data = sky()
    weights = np.ones(len(data.queries))
    assert replace(data, weights=weights).fingerprint != data.fingerprint
    for wrong, message in (
        (weights[1:], f"expected {len(weights)} finite weights, none of them negative"),
        (-weights, "none of them negative"),
        (weights * np.nan, "finite weights"),
        (weights * 0, "expected a weight above 0 in training, got none"),
    ):
        with pytest.raises(DataError, match=message):
            replace(data, weights=wrong)
