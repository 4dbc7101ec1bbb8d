import numpy as np
import pytest

from sigmax.data import MatchDataset
from sigmax.data.alike import groups_of
from sigmax.errors import UnknownNameError

OPENINGS = ("{}", "help, {}", "please: {}", "I think {}", "since Monday {}")
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def messages(n: int, random: np.random.Generator) -> list[str]:
    return [" ".join("".join(random.choice(LETTERS, size=6)) for _ in range(5)) for _ in range(n)]


def data(train: list[str], dev: list[str]) -> MatchDataset:
    queries = [*train, *dev]
    splits = {"train": np.arange(len(train)), "dev": len(train) + np.arange(len(dev))}
    return MatchDataset("made", queries, ["a", "b"], np.array([[0, 0]]), splits=splits)


def test_wordings_of_a_message_are_a_group():
    random = np.random.default_rng(0)
    train, dev = ([o.format(one) for one in messages(n, random) for o in OPENINGS] for n in (20, 12))
    groups = groups_of(data(train, dev), "dev")
    true = np.repeat(np.arange(12), len(OPENINGS))
    together = groups[:, None] == groups
    same = true[:, None] == true
    assert together[same].mean() > 0.9
    assert together[~same].mean() < 0.25, "chance joins a few groups"


@pytest.mark.parametrize("n", [100, 300])
def test_queries_drawn_one_by_one_are_hardly_joined(n):
    """However often messages recur, as long as the training queries are of the same kind; few of these or many."""
    random = np.random.default_rng(1)
    source = [o.format(one) for one in messages(40, random) for o in OPENINGS]
    for count in (n // 5, 3 * n):
        train, dev = (random.choice(source, size=size).tolist() for size in (count, n))
        groups = groups_of(data(train, dev), "dev")
        assert len(groups) == n
        assert len(np.unique(groups)) > 0.9 * n


def test_equal_queries_without_others_to_compare_with():
    made = data(["One", "one ", "two", "three"], ["x"])
    groups = groups_of(made, "train")
    assert groups[0] == groups[1]
    assert len(set(groups.tolist())) == 3
    assert groups_of(made, "dev").tolist() == [0]
    with pytest.raises(UnknownNameError):
        groups_of(made, "elsewhere")


def test_too_few_training_queries_to_tell_what_is_near():
    """Whatever shares a word would be one group otherwise, where data are dev alone or nearly."""
    dev = [f"what costs the {thing}" for thing in ("moon", "red tea", "old boat", "new sun")] + ["What costs the moon"]
    for train in (["who sings"], ["who sings"] * 19):
        groups = groups_of(data(train, dev), "dev")
        assert len(set(groups.tolist())) == 4 and groups[0] == groups[4]


def test_texts_with_nothing_to_tell_them_by():
    assert sorted(groups_of(data(["!", "?"] * 10, [".", ",", ";"]), "dev").tolist()) == [0, 1, 2]
