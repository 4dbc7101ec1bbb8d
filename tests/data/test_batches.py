import pickle
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as drawn

from sigmax.data import Batch, Batches, MatchDataset, load_data
from sigmax.data.batches import DRAWS, NEAR, OFFER_ALL, _near, _sample


def made(cells: np.ndarray, train: int) -> MatchDataset:
    """(n, m) cells, 0 unknown, 1 right, 2 known to be wrong; the first `train` queries are trained on."""
    n, m = cells.shape
    return MatchDataset(
        "made",
        [f"q{i}" for i in range(n)],
        [f"c{j}" for j in range(m)],
        np.argwhere(cells == 1),
        {"train": np.arange(train), "dev": np.array([n - 2]), "test": np.array([n - 1])},
        np.argwhere(cells == 2),
    )


@st.composite
def datasets(draw: st.DrawFn) -> MatchDataset:
    n, m = draw(st.integers(3, 9)), draw(st.integers(1, 9))
    cell = draw(
        st.sampled_from([st.integers(0, 2), st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from([0, 2]), st.just(0)])
    )
    cells = draw(st.lists(st.lists(cell, min_size=m, max_size=m), min_size=n, max_size=n))
    return made(np.array(cells), n - 2)


SETTINGS = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 9),
        "answers": st.integers(1, 4),
        "negatives": st.none() | st.integers(0, 5),
        "epochs": st.integers(1, 3),
        "seed": st.integers(0, 3),
    }
)


def marked(batch: Batch) -> set[tuple[int, int]]:
    """Pairs of the batch that are trained as right, as places in the data set."""
    rows, columns = batch.positives.rows.tolist(), batch.positives.columns.tolist()
    return {(int(batch.queries[i]), int(batch.candidates[j])) for i, j in zip(rows, columns, strict=True)}


def right(data: MatchDataset) -> set[tuple[int, int]]:
    return {(i, j) for i, j in data.pairs.tolist()}


def of(pairs: np.ndarray, query: int) -> set[int]:
    return set(pairs[pairs[:, 0] == query, 1].tolist())


def same(a: Batch, b: Batch) -> bool:
    return (
        a.queries.tolist() == b.queries.tolist()
        and a.candidates.tolist() == b.candidates.tolist()
        and a.positives == b.positives
    )


@pytest.fixture(scope="module")
def emoji() -> MatchDataset:
    return load_data("emoji")


# -- every known right pair is marked ------------------------------------------------------------


@given(datasets(), SETTINGS)
def test_a_pair_is_marked_exactly_if_it_is_right(data, settings):
    for batch in Batches(data, **settings):
        offered = {(i, j) for i in batch.queries.tolist() for j in batch.candidates.tolist()}
        assert marked(batch) == right(data) & offered
        assert len(batch.positives) == len(marked(batch))
        assert batch.positives.shape == (len(batch.queries), len(batch.candidates))
        assert not len(batch.positives.ignored_rows)


@given(datasets(), SETTINGS)
def test_candidates_are_unique_and_never_none(data, settings):
    for batch in Batches(data, **settings):
        assert len(set(batch.candidates.tolist())) == len(batch.candidates) > 0
        assert set(batch.candidates.tolist()) <= set(range(len(data.candidates)))


@given(datasets(), SETTINGS)
def test_candidates_are_what_was_asked_for(data, settings):
    batches = Batches(data, **{**settings, "negatives": 0})
    for batch in batches:
        candidates, most = set(batch.candidates.tolist()), batches.answers
        allowed, size = set(), 0
        for i in batch.queries.tolist():
            for known in (of(data.pairs, i), of(data.wrong, i)):
                assert len(known & candidates) >= min(most, len(known)), "the query's own answers are offered"
                allowed |= known
                size += min(most, len(known))
        if allowed:
            assert candidates <= allowed, "without negatives nothing else is"
            assert len(candidates) <= size
        else:
            assert len(candidates) == 1, "something must be there to be wrong"


@given(datasets(), SETTINGS)
def test_one_query_draws_at_most_so_many_answers(data, settings):
    batches = Batches(data, **{**settings, "negatives": 0, "batch_size": 1})
    for batch in batches:
        (i,) = batch.queries.tolist()
        for known in (of(data.pairs, i), of(data.wrong, i)):
            if of(data.pairs, i) or of(data.wrong, i):
                assert len(known & set(batch.candidates.tolist())) == min(batches.answers, len(known))


def test_answers_and_negatives_are_drawn_evenly():
    cells = np.zeros((4, 40), dtype=int)
    cells[0, :10] = 1
    cells[0, 10:15] = 2
    data = made(cells, 1)
    drawn = Counter(j for batch in Batches(data, steps=400, answers=2, negatives=0) for j in batch.candidates.tolist())
    assert all(48 < drawn[j] < 112 for j in range(10)), "2 of 10 right answers"
    assert all(120 < drawn[j] < 200 for j in range(10, 15)), "2 of 5 wrong ones"
    drawn = Counter(j for batch in Batches(data, steps=400, answers=2, negatives=4) for j in batch.candidates.tolist())
    assert all(15 < drawn[j] < 62 for j in range(15, 40)), "1 − (1 − 1/40)⁴ of 400 is 39"


def test_few_candidates_are_all_offered():
    for m, negatives, everything in (
        (OFFER_ALL, None, True),
        (OFFER_ALL + 1, None, False),
        (OFFER_ALL, 0, False),
        (5, 2, False),
    ):
        cells = np.zeros((5, m), dtype=int)
        cells[:, 0] = 1
        batch = Batches(made(cells, 3), negatives=negatives)[0]
        assert (len(batch.candidates) == m) == everything


# -- every query once an epoch -------------------------------------------------------------------


@given(datasets(), SETTINGS, st.sampled_from(["train", "dev"]))
def test_an_epoch_visits_every_query_once(data, settings, split):
    batches = Batches(data, **settings, split=split)
    epochs = settings["epochs"]
    assert len(batches) == batches.steps == batches.steps_per_epoch * epochs
    stream = iter([batches[number] for number in range(len(batches))])
    for _ in range(epochs):
        epoch = [batch.queries.tolist() for batch in islice(stream, batches.steps_per_epoch)]
        assert sorted(i for queries in epoch for i in queries) == data.split(split).tolist(), (
            "those without answers too"
        )
        sizes = {len(queries) for queries in epoch}
        assert max(sizes) - min(sizes) <= 1
        assert max(sizes) <= settings["batch_size"]


def test_epochs_differ_in_order(emoji):
    batches = Batches(emoji, batch_size=10_000, epochs=2)
    first, second = batches[0].queries.tolist(), batches[1].queries.tolist()
    assert sorted(first) == sorted(second)
    assert first != second
    assert first != sorted(first)


def test_part_of_an_epoch(emoji):
    batches = Batches(emoji, batch_size=100, epochs=0.5)
    assert len(batches) == pytest.approx(batches.steps_per_epoch / 2, abs=1)
    assert len(Batches(emoji, batch_size=100, epochs=0.001)) == 1
    assert len(Batches(emoji, batch_size=100, steps=7)) == 7


def test_queries_without_any_answer_learn_that_it_is_none_of_these():
    data = made(np.array([[0, 0, 0]] * 4 + [[1, 0, 0]] * 2), 4)
    for negatives in (None, 0, 2):
        for batch in Batches(data, batch_size=2, negatives=negatives):
            assert len(batch.queries) == 2
            assert len(batch.candidates) >= 1
            assert len(batch.positives) == 0


# -- a function of its number --------------------------------------------------------------------


@given(datasets(), SETTINGS, st.sampled_from(sorted(DRAWS)), st.randoms(use_true_random=False))
def test_a_batch_depends_on_seed_and_number_alone(data, settings, draw, random):
    if draw == "one-positive" and not data.graph[data.split("train")].nnz:
        return
    numbers = list(range(len(Batches(data, **settings, draw=draw))))
    in_order = [Batches(data, **settings, draw=draw)[number] for number in numbers]
    random.shuffle(numbers)
    batches = Batches(data, **settings, draw=draw)
    for number in numbers:
        assert same(batches[number], in_order[number])


@pytest.mark.parametrize("draw", DRAWS)
def test_another_seed_is_another_run(emoji, draw):
    one, again, other = (Batches(emoji, draw=draw, seed=seed) for seed in (1, 1, 2))
    assert same(one[3], again[3])
    assert not same(one[3], other[3])
    assert not same(one[3], one[4])


def test_how_many_steps_does_not_change_a_batch(emoji):
    assert same(Batches(emoji, steps=3)[2], Batches(emoji, epochs=9)[2])


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_share_each_batch(emoji, draw, processes):
    """Together they see what one process sees with that many times the batch size."""
    shared = Batches(emoji, batch_size=20, epochs=1, draw=draw, processes=processes)
    whole = Batches(emoji, batch_size=20 * processes, epochs=1, draw=draw)
    assert (shared.steps, len(shared)) == (len(whole), len(whole) * processes)
    assert shared.positive_rate() == pytest.approx(whole.positive_rate())
    for number in (0, len(whole) - 1):
        parts, batch = [shared[number * processes + rank] for rank in range(processes)], whole[number]
        assert np.concatenate([part.queries for part in parts]).tolist() == batch.queries.tolist()
        assert np.concatenate([part.candidates for part in parts]).tolist() == batch.candidates.tolist()
        assert torch.cat([part.positives.to_dense() for part in parts]).equal(batch.positives.to_dense())
        for side in ("queries", "candidates"):
            sizes = [len(getattr(part, side)) for part in parts]
            assert max(sizes) - min(sizes) <= 1


def test_a_batch_too_small_to_share():
    batches = Batches(made(np.eye(6, 3, dtype=int), 4), batch_size=1, processes=5)
    with pytest.raises(ValueError, match=r"4 queries and 3 candidates for 5 processes"):
        batches[2]


@pytest.mark.parametrize("draw", DRAWS)
def test_workers_get_a_copy(emoji, draw):
    batches = Batches(emoji, draw=draw, seed=3)
    assert same(pickle.loads(pickle.dumps(batches))[4], batches[4])
    assert same(pickle.loads(pickle.dumps(batches))[5], batches[5])


def test_a_batch_can_be_sent(emoji):
    batch = Batches(emoji)[0]
    assert same(pickle.loads(pickle.dumps(batch)), batch)


# -- one right pair a row ------------------------------------------------------------------------


@given(datasets(), SETTINGS)
def test_one_positive_is_a_diagonal(data, settings):
    wanted = [pair for pair in data.pairs.tolist() if pair[0] in data.split("train")]
    if not wanted:
        return
    batches = Batches(data, **settings, draw="one-positive")
    seen = []
    for number in range(batches.steps_per_epoch):
        batch = batches[number]
        n = len(batch.queries)
        assert batch.positives.shape == (n, n)
        assert torch.equal(batch.positives.to_dense(), torch.eye(n, dtype=torch.bool))
        seen += [list(pair) for pair in zip(batch.queries.tolist(), batch.candidates.tolist(), strict=True)]
    assert sorted(seen) == wanted, "an epoch visits every right pair once"


# -- the share of right pairs --------------------------------------------------------------------


@given(datasets(), SETTINGS)
def test_positive_rate(data, settings):
    batches = Batches(data, **settings)
    marks = cells = 0
    for number in range(min(16, len(batches))):
        batch = batches[number]
        for i in batch.queries.tolist():
            for j in batch.candidates.tolist():
                marks += (i, j) in right(data)
                cells += 1
    assert batches.positive_rate() == marks / cells
    first = batches[0]
    assert batches.positive_rate(sample=1) == len(first.positives) / (len(first.queries) * len(first.candidates))


# -- wrong settings ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, r"Expected `batch_size` of at least 1, got 0\."),
        ({"answers": 0}, r"Expected `answers` of at least 1, got 0\."),
        ({"negatives": -1}, r"Expected `negatives` of at least 0, got -1\."),
        ({"steps": -1}, r"Expected `steps` of at least [01], got -1\."),
        ({"processes": 0}, r"Expected `processes` of at least 1, got 0\."),
        ({"draw": "one-positve"}, r"Expected `draw` to be one of known-positives, one-positive, .*mean 'one-positive'"),
        ({"split": "tran"}, r"Expected `split` to be one of dev, test, train, got 'tran'\. Did you mean 'train'"),
    ],
)
def test_wrong_settings(emoji, settings, message):
    with pytest.raises(ValueError, match=message):
        Batches(emoji, **settings)


def test_numbers_outside(emoji):
    batches = Batches(emoji, steps=3)
    for number in (-1, 3):
        with pytest.raises(IndexError, match=rf"Expected the number of an item in \[0, 3\), got {number}\."):
            batches[number]
    assert len(list(batches)) == 3


@given(
    drawn(np.int64, st.tuples(st.integers(0, 6), st.integers(0, 7)), elements=st.integers(-1, 50)),
    st.integers(0, 2**32),
)
def test_many_draws_at_once_are_those_of_a_loop(rows, seed):
    """The same numbers, and the same random numbers used up."""
    random, other = np.random.default_rng(seed), np.random.default_rng(seed)
    looped = [_sample(row[row >= 0], NEAR, other) for row in rows]
    expected = np.sort(np.concatenate([np.empty(0, np.int64), *looped]))
    np.testing.assert_array_equal(np.sort(_near(rows, random)), expected)
    assert random.integers(2**60) == other.integers(2**60)
