import itertools
import json
import statistics
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigmax.data import Batches, MatchDataset, load_data
from sigmax.data.check import Answers, DataFacts, check, false_negative_share
from sigmax.data.dataset import SPLITS


def made(rows: list[tuple[str, str, set[int]]], candidates: list[str], **settings) -> MatchDataset:
    """Rows of (split, text, right answers)."""
    return MatchDataset(
        "made",
        [text for _, text, _ in rows],
        candidates,
        np.array([(i, j) for i, (_, _, answers) in enumerate(rows) for j in answers], dtype=int).reshape(-1, 2),
        {name: np.array([i for i, (part, _, _) in enumerate(rows) if part == name]) for name in SPLITS},
        **settings,
    )


FAULTY = [
    ("train", "party", {0, 1}),
    ("train", "party", {0, 1}),  # repeats the one before
    ("train", "party", {2}),  # and contradicts it
    ("train", "moon", {3}),
    ("train", "nothing", set()),
    ("dev", "party", {0}),  # leaked, and another answer than in train
    ("dev", "sun", {4}),  # 4 is right for no training query
    ("dev", "sun", {4, 5}),  # contradicts the one before; neither is 5
    ("test", "moon", {3}),  # leaked
    ("test", "sky", set()),
    ("test", "night", set()),
]
CANDIDATES = ["tada", "balloon", "cake", "crescent", "sunny", "sun", "unused", "tada", "tada"]


def test_every_fact():
    facts = check(made(FAULTY, CANDIDATES, wrong=np.array([[3, 4], [3, 5], [3, 5]])))
    assert facts.name == "made"
    assert (facts.queries, facts.candidates, facts.pairs, facts.wrong_pairs, facts.labels) == (11, 9, 11, 2, False)
    assert facts.splits == {"train": 5, "dev": 3, "test": 3}
    assert facts.unanswered == {"train": 1, "dev": 0, "test": 2}
    assert facts.answers == Answers(mean=11 / 8, median=1.0, most=2, several=3 / 8)
    assert facts.unused_candidates == 3
    assert facts.untrained_candidates == 2
    assert facts.duplicate_queries == 3
    assert facts.conflicting_queries == 2
    assert facts.leaked_queries == 2
    assert facts.duplicate_candidates == 2
    assert len(facts.false_negatives) == 1  # too few pairs for any of the usual batches: all of them in one


def test_findings_name_every_fault():
    text = "\n".join(check(made(FAULTY, CANDIDATES, labels=True)).findings)
    for part in (
        "2 dev or test queries are training queries too",
        "2 queries repeat an earlier one with other right answers",
        "1 queries repeat an earlier one exactly",
        "2 candidates have the text of an earlier one",
        "2 labels occur in dev or test but never in train",
        "share of rows with a false negative 66.7% at",
        "no right answer: 1 in train, 2 in test.",
    ):
        assert part in text


def test_clean_data_has_one_thing_to_know():
    rows = [(part, f"{part} {j}", {j}) for part, j in zip(SPLITS, range(3), strict=True)]
    facts = check(made(rows, ["a", "b", "c"]))
    assert facts.findings == [
        "Every query has a right answer: saying “none of these” cannot be learnt nor measured here."
    ]
    assert facts.answers == Answers(mean=1.0, median=1.0, most=1, several=0.0)
    assert not any(facts.false_negatives.values())


def test_labels_that_are_not_trained_matter_for_labels_alone():
    rows = [(part, f"{part} {j}", {j}) for part, j in zip(SPLITS, range(3), strict=True)]
    assert "2 labels occur in dev or test" in " ".join(check(made(rows, ["a", "b", "c"], labels=True)).findings)
    assert "labels" not in " ".join(check(made(rows, ["a", "b", "c"])).findings)


def test_data_without_any_right_pair():
    facts = check(made([(part, part, set()) for part in SPLITS], ["a", "b"]))
    assert facts.pairs == 0
    assert facts.unused_candidates == 2
    assert facts.answers.most == 0
    assert facts.false_negatives == {}


def test_the_facts_alone():
    """What a trained model and a comparison keep are the facts of the check."""
    data = made(FAULTY, CANDIDATES)
    about = json.loads(json.dumps(DataFacts.of(data).as_dict()))
    assert about == {name: check(data).as_dict()[name] for name in about}
    assert about["fingerprint"] == data.fingerprint
    assert list(about["splits"]) == list(SPLITS)


def test_json():
    facts = check(made(FAULTY, CANDIDATES))
    back = json.loads(json.dumps(facts.as_dict()))
    assert back["findings"] == facts.findings
    assert back["leaked_queries"] == 2
    assert set(back["false_negatives"]) == {str(size) for size in facts.false_negatives}


ROWS = st.lists(st.tuples(st.sampled_from(SPLITS), st.sampled_from("abc"), st.sets(st.integers(0, 4))), max_size=10)


@given(ROWS, st.lists(st.sampled_from("vwxyz"), min_size=5, max_size=5))
def test_facts_against_loops(rows, candidates):
    rows = [*rows, *((part, f"only {part}", {0}) for part in SPLITS)]
    facts = check(made(rows, candidates))
    training = [text for part, text, _ in rows if part == "train"]
    assert facts.leaked_queries == sum(part != "train" and text in training for part, text, _ in rows)
    earlier = [any(rows[k][:2] == rows[i][:2] for k in range(i)) for i in range(len(rows))]
    assert facts.duplicate_queries == sum(earlier)
    # The fewest queries to change so that equal texts of a split have equal answers.
    groups = defaultdict(list)
    for part, text, answers in rows:
        groups[part, text].append(answers)
    assert facts.conflicting_queries == sum(len(g) - max(map(g.count, g)) for g in groups.values())
    right = {part: set().union(*(a for p, _, a in rows if p == part)) for part in SPLITS}
    assert facts.unused_candidates == 5 - len(right["train"] | right["dev"] | right["test"])
    assert facts.untrained_candidates == len((right["dev"] | right["test"]) - right["train"])
    assert facts.duplicate_candidates == sum(candidates[j] in candidates[:j] for j in range(5))
    assert facts.unanswered == {s: sum(p == s and not a for p, _, a in rows) for s in SPLITS}
    sizes = [len(a) for _, _, a in rows if a]
    assert facts.answers.mean == pytest.approx(sum(sizes) / len(sizes))
    assert facts.answers.median == statistics.median(sizes)
    assert facts.answers.most == max(sizes)
    assert facts.answers.several == pytest.approx(sum(k > 1 for k in sizes) / len(sizes))


# -- false negatives -----------------------------------------------------------------------------


def harmed(rows: list[tuple[int, int]], right: set[tuple[int, int]]) -> int:
    """Rows (query, its answer) for which the answer of another row is right as well."""
    return sum(any((i, j) in right for k, (_, j) in enumerate(rows) if k != place) for place, (i, _) in enumerate(rows))


@given(
    st.lists(st.sets(st.integers(0, 5), max_size=4), min_size=2, max_size=8).filter(any),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_false_negative_share_of_the_drawn_batches(answers, size, seed):
    rows = [("train", f"q{i}", right) for i, right in enumerate(answers)]
    data = made([*rows, ("dev", "d", {0}), ("test", "t", {0})], [*"abcdef"])
    right = {(i, j) for i, j in data.pairs.tolist()}
    found = total = 0
    for batch in Batches(data, batch_size=size, steps=20, seed=seed, draw="one-positive"):
        pairs = list(zip(batch.queries.tolist(), batch.candidates.tolist(), strict=True))
        found += harmed(pairs, right)
        total += len(pairs)
    assert false_negative_share(data, size, seed=seed) == found / total


def test_false_negative_share_is_that_of_random_batches():
    """Over all ways to draw a batch of 3 of the 6 right pairs."""
    data = made(
        [("train", "a", {0, 1}), ("train", "b", {1, 2}), ("train", "c", {3, 1}), *[(s, s, {0}) for s in SPLITS[1:]]],
        [*"wxyz"],
    )
    pairs = [(i, j) for i, j in data.pairs.tolist() if i < 3]
    exact = np.mean([harmed(batch, set(pairs)) / 3 for batch in itertools.combinations(pairs, 3)])
    assert false_negative_share(data, 3, batches=1000) == pytest.approx(exact, abs=0.03)


def test_false_negative_share_of_the_whole_table():
    """Moon and sun are right for "in the sky", and each for another question too."""
    rows = [("train", "in the sky", {0, 1}), ("train", "at night", {0}), ("train", "blue", {3})]
    data = made([*rows, ("dev", "d", {2}), ("test", "t", {2})], ["moon", "sun", "fire", "water"])
    assert false_negative_share(data, 100) == 3 / 4, "all rows but blue → water"
    assert false_negative_share(data, 1) == 0


def test_false_negatives_grow_with_the_batch():
    shares = [false_negative_share(load_data("emoji"), size) for size in (1, 8, 64, 512, 4096)]
    assert shares[0] == 0
    assert shares == sorted(shares)
    assert 0.1 < shares[2] < shares[4] <= 1


@pytest.mark.parametrize("name", ["emoji", "emoji-hidden"])
def test_built_in_sets_are_clean(name):
    facts = check(load_data(name))
    assert facts.leaked_queries == facts.duplicate_queries == facts.conflicting_queries == 0
    assert facts.duplicate_candidates == 0
    assert all((count > 0) == (name == "emoji-hidden") for count in facts.unanswered.values())
