"""A model inside Ray Data: columns as `match` gives them; nothing is lost or doubled when a machine dies on the way."""

import contextlib
import time

import numpy as np
import pytest

from helpers.models import calibrated
from sigmax.errors import DataError
from sigmax.model.dual_encoder import load
from sigmax.ray import ADDED, Matcher, match

NAMES = ["red moon", "blue sea", "old sun", "fire"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("ray") / "model"
    calibrated(candidates=NAMES, candidate_ids=["a", "b", "c", "d"]).save(place)
    return place


def check(rows, model, rule="best-f1"):
    """Rows hold what the model itself answers."""
    for row, matches in zip(rows, model.match([row["text"] for row in rows], top_k=2, rule=rule), strict=True):
        assert [one["candidate_id"] for one in row["matches"]] == [one.candidate_id for one in matches]
        for one, theirs in zip(row["matches"], matches, strict=True):
            told = {**theirs.as_dict(), "accepted": matches.accepts(theirs)}
            assert one.keys() == told.keys()
            assert one["presence"] == pytest.approx(theirs.presence, abs=1e-6)
            assert one["logit"] == pytest.approx(theirs.logit, abs=1e-5)
            assert one["accepted"] == told["accepted"]
        assert row["any_right"] == pytest.approx(matches.any)
        assert (row["accepted_count"], row["outcome"]) == (matches.accepted_count, matches.outcome)


def test_a_table_in_and_columns_out(folder):
    import pyarrow

    matcher = Matcher(str(folder), query="text", top_k=2, rule="best-f1")
    table = pyarrow.table({"n": [3, 1, 2], "text": ["moon", "sea", "red fire"], "outcome": ["x", "y", "z"]})
    found = matcher(table)
    assert found.column_names == ["n", "text", *ADDED]
    assert found.column("n").to_pylist() == [3, 1, 2]
    check(found.to_pylist(), load(folder))
    with pytest.raises(DataError, match="Expected a column 'text', got n"):
        matcher(table.select(["n"]))
    with pytest.raises(DataError, match="a query in every row, got ''"):
        matcher(pyarrow.table({"text": ["a", ""]}))
    assert matcher(table.slice(0, 0)).num_rows == 0


def test_a_rule_is_read_at_once(folder):
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match="Expected a level"):
        match(None, folder, rule="precision")


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.filterwarnings("ignore")  # what Ray says of itself
def test_a_machine_that_dies(folder, tmp_path):
    """Two nodes of a real cluster, one of which is killed when some batches are done; every row comes back once."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    random = np.random.default_rng(0)
    words = ["red", "moon", "blue", "sea", "old", "sun", "fire"]
    texts = [" ".join(random.choice(words, 2)) for _ in range(4000)]

    def slowly(batch):
        time.sleep(0.3)
        return {**batch, "at": np.full(len(batch["n"]), time.time())}

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": 10**8})
    second = cluster.add_node(num_cpus=2, object_store_memory=10**8)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        rows = [{"n": n, "text": text} for n, text in enumerate(texts)]
        queries = ray.data.from_items(rows, override_num_blocks=80).map_batches(slowly, num_cpus=0.25)
        answers = match(queries, folder, query="text", top_k=2, workers=3, batch_size=50, num_cpus=0.25)
        found, killed = [], None
        for row in answers.iter_rows():
            found.append(row)
            if len(found) > 400 and killed is None:
                cluster.remove_node(second, allow_graceful=False)
                killed = time.time()
        nodes = [node for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()
        with contextlib.suppress(Exception):
            cluster.shutdown()
    assert len(nodes) == 1
    assert sum(row["at"] > killed for row in found) > 1000, "most of the work came after"
    assert sorted(row["n"] for row in found) == list(range(len(texts))), "nothing lost, nothing doubled"
    found.sort(key=lambda row: row["n"])
    assert [row["text"] for row in found] == texts
    check(found[::50], load(folder))
