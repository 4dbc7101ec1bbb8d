"""The index of a model folder: how it is built, measured, used, and refused."""

import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.commands import jsonl, posix, refused, spawn
from helpers.models import calibrated, stored_beyond
from helpers.processes import kills
from helpers.servers import serving
from helpers.titles import made
from sigmax.candidates import Exact, faiss_index
from sigmax.encoders.lexical import Lexical
from sigmax.errors import DataError
from sigmax.evaluation import calibrate
from sigmax.model import dual_encoder, folder, index
from sigmax.model.dual_encoder import load

pytest.importorskip("faiss")


@pytest.fixture(scope="module")
def data():
    return made()


@pytest.fixture(autouse=True, scope="module")
def small():
    with stored_beyond(100, dual_encoder, folder, index):
        yield


@pytest.fixture(scope="module")
def trained(small, data, tmp_path_factory):
    return saved(data, tmp_path_factory.mktemp("trained") / "model")


@pytest.fixture
def place(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "model")
    return tmp_path / "model"


def saved(data, place, **given):
    model = calibrated(candidates=data.candidates, candidate_ids=data.candidate_ids, **given)
    calibrate(model, data, method="platt")
    model.save(place)
    return place


# -- the file ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", faiss_index.KINDS)
@pytest.mark.parametrize("width", [8, 12, 7])
def test_what_an_index_finds_has_exact_products(kind, width, tmp_path):
    random = np.random.default_rng(0)
    vectors = torch.from_numpy(random.normal(size=(2000, width)).astype(np.float32))
    names = [str(j) for j in range(2000)]
    exact = Exact(vectors, names, names, fingerprint="f")
    told = []
    about = faiss_index.build_index(vectors, tmp_path, kind, advance=lambda part, what: told.append(part))
    assert told[-1] == 1.0 and about["size"] == 2000
    found = faiss_index.FaissIndex(tmp_path, about, exact)
    found.effort = faiss_index.EFFORTS[kind][-1]
    queries = vectors[:40].numpy() + 0.01
    truth = exact.search(queries, 10)
    hits = []
    for query, ours, theirs in zip(queries, found.search(queries, 10), truth, strict=True):
        assert ours.products == pytest.approx(vectors[ours.places].numpy() @ query, abs=1e-5)
        assert (np.diff(ours.products) <= 0).all() and list(ours.ids) == [str(j) for j in ours.places]
        hits.append(np.isin(theirs.places, ours.places).mean())
    assert np.mean(hits) > {"pq": 0.99, "hnsw": 0.95, "ivf-pq": 0.8}[kind]
    assert (found.fingerprint, found.size) == ("f", 2000)


def test_the_kind_goes_by_the_number():
    assert [faiss_index.kind_for(size) for size in (1, 49_999, 50_000, 10**6, 10**7)] == [
        None, None, "pq", "pq", "ivf-pq"
    ]  # fmt: skip


def test_an_index_that_was_begun_is_gone_on_with(tmp_path, monkeypatch):
    vectors = torch.from_numpy(np.random.default_rng(0).normal(size=(500, 8)).astype(np.float32))
    monkeypatch.setattr(faiss_index, "PART", 100)
    monkeypatch.setattr(faiss_index, "KEEP_EVERY", 0.0)

    def stop(part, what):
        if part > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        faiss_index.build_index(vectors, tmp_path, "hnsw", advance=stop)
    parts = []
    faiss_index.build_index(vectors, tmp_path, "hnsw", advance=lambda part, what: parts.append(part))
    assert parts == [0.6, 0.8, 1.0], "the first 200 were kept"


def test_a_full_disk(place, monkeypatch):
    import faiss

    def full(index, path):
        raise RuntimeError("Error in fwrite: No space left on device")

    monkeypatch.setattr(faiss, "write_index", full)
    with pytest.raises(OSError, match=r"could not be written\. Is the disk full"):
        index.build(place, load(place), kind="hnsw")
    monkeypatch.undo()
    assert not (place / "index").exists() and load(place).match("moon").best


# -- the command ------------------------------------------------------------------------------


def test_few_candidates_need_none(sigmax, place):
    done = sigmax("index", place)
    assert done.code == 0 and "400 candidates need no index: below 50,000" in done.words
    assert not (place / "index").exists()


def test_built_measured_and_used(sigmax, place, data, tmp_path):
    table = jsonl(
        tmp_path / "dev.jsonl",
        [
            {"query": data.queries[i], "answers": [data.candidates[j] for j in data.graph[[i]].indices], "split": "dev"}
            for i in data.split("dev")
        ],
    )
    exact = json.loads(sigmax("match", place, "moon 5", "--json").out)
    done = sigmax("index", place, "--kind", "hnsw")
    assert done.code == 0 and "of the best 10 of all, found" in done.out
    assert "best-f1" not in done.out and "200 texts of candidates" in done.out
    done = sigmax("index", place, "--kind", "hnsw", "--data", table, "--json")
    about = json.loads(done.out)["index"]
    assert about["measured"]["recall"] > 0.95
    assert about["measured"]["what"] == "queries of the data"
    assert set(about["measured"]["rules"]) == {"scan", "index"}
    through = json.loads(sigmax("match", place, "moon 5", "--json").out)
    assert json.loads(sigmax("match", place, "moon 5", "--json", "--exact").out) == exact
    [ours], [theirs] = through["results"], exact["results"]
    assert [one["candidate_id"] for one in ours["matches"]] == [one["candidate_id"] for one in theirs["matches"]]
    for one, other in zip(ours["matches"], theirs["matches"], strict=True):
        assert one["logit"] == pytest.approx(other["logit"], abs=1e-5)
        assert one["share"] == pytest.approx(other["share"], rel=1e-5), "the sample is all the others here"
    assert ours["share_error"] == 0.0 and "share_error" not in theirs
    refused(sigmax("match", place, "moon", "--top-k", "101"), 1, "of at most 100 candidates")


def test_shared_words_are_seen_through_an_index(sigmax, data, tmp_path):
    """Its vectors know nothing of the words that two texts share: logits do, and so does the order."""
    place = saved(data, tmp_path / "model", lexical=Lexical.fit(data.candidates))
    sigmax("index", place, "--kind", "hnsw")
    model = load(place)
    exact = model.match(data.queries[:20], top_k=3)
    assert index.open_index(place, model)
    found = model.match(data.queries[:20], top_k=3)
    assert sum(a.best[0].candidate_id == b.best[0].candidate_id for a, b in zip(found, exact, strict=True)) >= 18
    for ours, theirs in zip(found, exact, strict=True):
        known = {one.candidate_id: one.logit for one in theirs}
        assert all(
            one.logit == pytest.approx(known[one.candidate_id], abs=1e-4) for one in ours if one.candidate_id in known
        )


def test_what_rules_say_knows_what_the_index_misses(place, data, monkeypatch):
    """A right answer that is not found is one that no threshold accepts, and P(any) is of all candidates."""
    model = load(place)
    index.build(place, model, kind="hnsw", data=data)
    opened = load(place)
    assert index.open_index(place, opened)
    record = opened.calibrator.record
    dev = data.split("dev")
    truth = np.diff(data.graph[dev].indptr)
    assert record.wanted.tolist() == truth.tolist()
    assert record.answered.tolist() == (truth > 0).tolist()

    class Blind(faiss_index.FaissIndex):
        def search(self, queries, k):
            found = super().search(queries, k)
            kept = [one.places % 2 == 0 for one in found]
            return [self.exact.found(a.places[k], a.products[k]) for a, k in zip(found, kept, strict=True)]

    monkeypatch.setattr(index, "FaissIndex", Blind)
    index.build(place, load(place), kind="hnsw", data=data)
    blind = load(place)
    index.open_index(place, blind)
    odd = np.array([(data.graph[[i]].indices % 2).sum() for i in dev])
    assert (blind.calibrator.record.missing >= odd).all()
    assert blind.decide("contains=0.9").promised is False
    assert blind.calibrator.record.wanted.tolist() == truth.tolist()


def test_an_index_of_other_vectors(sigmax, place, data, tmp_path):
    sigmax("index", place, "--kind", "hnsw")
    other = tmp_path / "other"
    saved(made(seed=1), other)
    shutil.copytree(place / "index", other / "index")
    refused(sigmax("match", other, "moon"), 1, "older than the candidates", "sigmax index", "--exact")
    assert sigmax("match", other, "moon", "--exact").code == 0
    (place / "index" / "index.faiss").write_bytes(b"damaged")
    refused(sigmax("match", place, "moon"), 1, "the index is damaged")
    (place / "index" / "index.json").write_text("{}")
    refused(sigmax("match", place, "moon"), 1, "the index is damaged")


def test_changed_candidates_take_the_index_along(sigmax, place, tmp_path):
    sigmax("index", place, "--kind", "hnsw")
    done = sigmax("candidates", "add", place, jsonl(tmp_path / "new.jsonl", [{"text": "quasar"}]))
    assert "The index was of the candidates before and is gone" in done.words
    assert sigmax("match", place, "quasar", "--top-k", "1").code == 0


def test_without_vectors(sigmax, tmp_path):
    place = saved(made(m=50), tmp_path / "model")
    refused(sigmax("index", place, "--kind", "hnsw"), 1, "vectors are stored of more than 100 candidates")
    refused(sigmax("index", place, "--kind", "tree"), 2, "to be one of hnsw, ivf-pq, pq")


# -- served -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_served_and_taken_over(tmp_path):
    """The server answers from the index, and takes over one that is built, and candidates that are added."""
    data = made(m=10_200)
    place = saved(data, tmp_path / "model")
    with serving(place) as server:
        before = server.match("moon 5")["results"][0]
        assert "share_error" not in before
        assert spawn("sigmax", "index", place, "--kind", "hnsw").wait() == 0
        for _ in range(100):
            after = server.match("moon 5")["results"][0]
            if "share_error" in after:
                break
            time.sleep(0.2)
        assert [one["candidate_id"] for one in after["matches"]] == [one["candidate_id"] for one in before["matches"]]
        assert server.ask("/explain", {"query": "moon 5"})[1]["items"][0]["offered"] == 10_200, "explained over all"
        assert (
            spawn("sigmax", "candidates", "add", place, jsonl(tmp_path / "n.jsonl", [{"text": "moon 5"}])).wait() == 0
        )
        for _ in range(100):
            if server.ask("/models")[1]["models"][0]["candidates"] == 10_201:
                break
            time.sleep(0.2)
        else:
            pytest.fail("the server did not take over the candidates that were added")
        assert server.match("moon 5")["results"][0]["matches"][0]["candidate"] == "moon 5"
    with serving(place, options=["--exact"]) as server:
        assert "share_error" not in server.match("moon")["results"][0]


@pytest.mark.slow
@posix
def test_killed_at_any_moment(place, monkeypatch):
    """20 kills: no index or a whole one, the model always; and what was begun is finished in the end."""
    monkeypatch.setattr(faiss_index, "PART", 20)
    monkeypatch.setattr(faiss_index, "KEEP_EVERY", 0.0)
    for _ in kills(lambda number: index.build(place, load(place), kind="hnsw"), 20):
        model = load(place)
        index.open_index(place, model)
        assert model.match("moon 5").best
        shutil.rmtree(place / "index", ignore_errors=True)
    index.build(place, load(place), kind="hnsw")
    assert {path.name for path in place.iterdir() if path.name.startswith(".")} == set()


def test_an_index_beside_another_model(place, data):
    index.build(place, load(place), kind="hnsw")
    about = json.loads((place / "sigmax.json").read_text())
    about["fingerprints"]["vectors"] = "0" * 32
    (place / "sigmax.json").write_text(json.dumps(about))
    with pytest.raises(DataError, match="older than the candidates or the model"):
        index.open_index(place, load(place))


def test_any_right_through_an_index_where_all_of_dev_is_answered(small, data, tmp_path):
    """What is known of queries through the index is counted, as it is by the scan, and lies in the index's folder."""
    answered = np.flatnonzero(data.answer_counts > 0)
    kept = {part: rows[np.isin(rows, answered)] for part, rows in data.splits.items()}
    where = saved(replace(data, splits=kept), tmp_path / "model")
    index.build(where, load(where), kind="hnsw", data=replace(data, splits=kept))
    model = index.load_for_matching(where)
    assert model.calibrator.any_fit.method == "succession"
    assert model.calibrator.any_fit.reason.startswith(f"all {len(kept['dev'])} dev queries")
    assert len(model.calibrator.familiar.dev) == model.calibrator.record.witnesses.queries
    found = model.match([data.queries[i] for i in kept["test"]], top_k=100)
    largest = np.array([one[0].presence for one in found])
    anything = np.array([one.any for one in found])
    assert (anything >= largest - 1e-12).all()
    assert not np.allclose(anything, largest)
    (where / folder.INDEX / "dev.safetensors").unlink()
    assert index.load_for_matching(where).calibrator.familiar is not None, "of the scan, as in an index from before"
