"""Stores: each finds what a loop over all pairs finds, and what is matched through one is what all would say."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers.models import calibrated
from sigmax.calibration.calibrator import fit_calibrator
from sigmax.candidates import Exact, Found, Sample
from sigmax.candidates.exact import BLOCK
from sigmax.encoders.lexical import Lexical
from sigmax.errors import DataError
from sigmax.model.reranker import Reranker
from sigmax.model.searched import Searched

NAMES = [
    f"{a} {b}" for a in ("red", "blue", "old", "new", "wet") for b in ("moon", "sun", "sea", "tree", "fire", "stone")
]
ASKED = ["red moon light", "wet stone", "old old sea", "nothing of it"]


class Plain:
    """A third store in a few lines: a list of what is where."""

    fingerprint = "plain"

    def __init__(self, vectors, ids, texts):
        self.rows = list(zip(vectors, ids, texts, strict=True))

    @property
    def size(self):
        return len(self.rows)

    def search(self, queries, k):
        found = []
        for query in queries:
            products = [float(np.dot(query, vector)) for vector, _, _ in self.rows]
            best = sorted(range(self.size), key=lambda place: -products[place])[:k]
            ids, texts = ([self.rows[place][column] for place in best] for column in (1, 2))
            found.append(Found(np.array(best), np.array([products[place] for place in best], np.float32), ids, texts))
        return found

    def sample(self, count):
        places = np.random.default_rng(0).permutation(self.size)[:count]
        return Sample(places, np.stack([self.rows[i][0] for i in places]), [self.rows[i][2] for i in places])

    def describe(self):
        return {"kind": "plain"}


def offered(model):
    vectors = model.vectors(model.candidates, "candidate").dense
    return vectors, model.candidate_ids, model.candidates


class Overlap(torch.nn.Module):
    """A cross-encoder in place of a network: counts letters that two texts share."""

    def predict(self, pairs, **_):
        return np.array([len(set(query) & set(candidate)) - 3.5 for query, candidate in pairs], np.float32)


def made(**given):
    return calibrated(candidates=NAMES, candidate_ids=[f"c{j}" for j in range(len(NAMES))], **given)


@pytest.fixture(scope="module")
def model():
    return made()


#: What a model may see beside its vectors.
SEEN = {
    "vectors": dict,
    "none of these": lambda: {"none_vector": torch.ones(8) / 3},
    "shared words": lambda: {"lexical": Lexical.fit(NAMES)},
    "a second look": lambda: {"reranker": Reranker(Overlap(), depth=4, first=0.8, second=0.5)},
}


def same(ours, theirs, abs=1e-6):
    assert [one.candidate_id for one in ours] == [one.candidate_id for one in theirs]
    for name in ("logit", "share", "presence"):
        assert [getattr(one, name) for one in ours] == pytest.approx([getattr(one, name) for one in theirs], abs=abs)


@pytest.mark.parametrize("kind", [Exact, lambda *given: Plain(given[0].numpy(), *given[1:])], ids=["exact", "plain"])
@pytest.mark.parametrize("depth", [7, 30, 100])
@pytest.mark.parametrize("seen", SEEN)
def test_matching_through_a_store_is_matching_all(seen, kind, depth):
    """With a sample of all there is, every number is the scan's; what lies below the best k is not listed."""
    model = made(**SEEN[seen]())
    expected = model.match(ASKED, top_k=5)
    store = kind(*offered(model))
    model.searched = Searched(store, depth=depth, sampled=1000)
    found = model.match(ASKED, top_k=5)
    for ours, theirs in zip(found, expected, strict=True):
        same(ours, theirs, abs=1e-5)
        assert ours.any == pytest.approx(theirs.any, abs=1e-5)
        assert ours.share_error == 0.0 and theirs.share_error is None
        assert ours.as_dict()["share_error"] == 0.0 and "share_error" not in theirs.as_dict()
        assert len(ours.accepted) == min(depth, len(theirs.accepted))


@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 50), st.integers(0, 2**16))
def test_exact_finds_what_a_loop_finds(m, n, k, seed):
    random = np.random.default_rng(seed)
    vectors, queries = random.normal(size=(m, 3)).astype(np.float32), random.normal(size=(n, 3)).astype(np.float32)
    names = [str(j) for j in range(m)]
    ours = Exact(torch.from_numpy(vectors), names, names).search(queries, k)
    theirs = Plain(vectors, names, names).search(queries, k)
    for one, other in zip(ours, theirs, strict=True):
        assert one.products == pytest.approx(other.products, abs=1e-5)
        assert len(one) == min(k, m) == len(one.ids)


def test_exact_over_several_blocks():
    m = 2 * BLOCK + 5
    vectors = torch.zeros(m, 2)
    for rank, place in enumerate((3, BLOCK - 1, BLOCK, m - 1)):
        vectors[place, 0] = 4 - rank
    names = [str(j) for j in range(m)]
    [found] = Exact(vectors, names, names).search(np.array([[1, 0]], np.float32), 4)
    assert found.places.tolist() == [3, BLOCK - 1, BLOCK, m - 1]
    assert list(found.ids) == ["3", str(BLOCK - 1), str(BLOCK), str(m - 1)]
    assert found.ids[1:3] == [str(BLOCK - 1), str(BLOCK)]


def test_vectors_without_as_many_ids():
    with pytest.raises(ValueError, match="as many ids and texts as vectors, got 1, 2 and 2"):
        Exact(torch.zeros(2, 2), ["a"], ["a", "b"])


# -- shares -----------------------------------------------------------------------------------


class Drawn(Plain):
    """Another sample each time."""

    def __init__(self, *given, seed=0):
        super().__init__(*given)
        self.random = np.random.default_rng(seed)

    def sample(self, count):
        places = self.random.permutation(self.size)[:count]
        return Sample(places, np.stack([self.rows[i][0] for i in places]), [self.rows[i][2] for i in places])


def test_the_sum_that_shares_are_parts_of_is_unbiased(model):
    """The mean of Σ exp over many samples is the exact one, and its spread is the error that is told."""
    vectors, ids, texts = offered(model)
    searched = Searched(Drawn(vectors.numpy(), ids, texts), depth=5, sampled=12)
    queries = model.vectors(ASKED)
    exact = np.exp(model.logits(ASKED, model.candidates).values.astype(float)).sum(1)
    sums, errors = [], []
    for _ in range(2000):
        rows = searched.rows(model, queries)
        sums.append((np.exp(rows.logits.astype(float)) * rows.weights).sum(1))
        errors.append(rows.error)
    sums = np.array(sums)
    spread = sums.std(0) / np.sqrt(len(sums))
    assert (np.abs(sums.mean(0) - exact) < 4 * spread).all(), "4 standard errors of the mean"
    told = np.sqrt(np.square(np.array(errors) * sums).mean(0))
    assert told == pytest.approx(sums.std(0), rel=0.15), "the variance that is told is right on average"


def test_candidates_that_a_calibration_tells_apart():
    """One that has its own scale and bias keeps it through a store; one that came later has what all share."""
    model = calibrated(candidates=NAMES[:4])
    random = np.random.default_rng(0)
    right = random.random((400, 4)) < np.array([0.1, 0.3, 0.5, 0.7])
    logits = random.normal(size=right.shape) + right
    model.calibrator = fit_calibrator(logits, right, model.candidate_ids, method="platt-candidate")
    model.candidates, model.candidate_ids = [*NAMES[1:4], "quite new"], [*NAMES[1:4], "quite new"]
    expected = model.match(ASKED, top_k=4)
    model.searched = Searched(Plain(offered(model)[0].numpy(), *offered(model)[1:]), depth=3, sampled=10)
    found = model.match(ASKED, top_k=3)
    for ours, theirs in zip(found, expected, strict=True):
        known = {one.candidate_id: one for one in theirs}
        for one in ours:
            assert one.presence == pytest.approx(known[one.candidate_id].presence, abs=1e-6)


def test_a_store_that_finds_less_than_was_asked(model):
    """An index may find fewer; what it does not find, the sample stands for."""

    class Poor(Plain):
        def search(self, queries, k):
            found = super().search(queries, k)
            cut = [Found(one.places[: 2 + i], one.products[: 2 + i], one.ids, one.texts) for i, one in enumerate(found)]
            return [Found(one.places, one.products, one.ids[: len(one)], one.texts[: len(one)]) for one in cut]

    vectors, ids, texts = offered(model)
    expected = model.match(ASKED, top_k=2)
    model.searched = Searched(Poor(vectors.numpy(), ids, texts), depth=10, sampled=100)
    try:
        found = model.match(ASKED, top_k=10)
    finally:
        model.searched = None
    assert [len(one) for one in found] == [2, 3, 4, 5]
    for ours, theirs in zip(found, expected, strict=True):
        same(ours[:2], theirs)


def test_check_fingerprint():
    from sigmax.candidates.store import check_fingerprint

    store = Plain([], [], [])
    check_fingerprint(store, "plain", "here", "Push again.")
    with pytest.raises(
        DataError, match=r"here: holds vectors of another model.* \(fingerprint plain, expected other\)"
    ):
        check_fingerprint(store, "other", "here", "Push again.")
