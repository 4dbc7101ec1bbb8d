"""Candidates in a real PostgreSQL with pgvector: what is found, what is refused, and what a failure leaves."""

import json
import threading
import time

import numpy as np
import pytest

from helpers.commands import jsonl, posix, refused
from helpers.databases import database
from helpers.models import calibrated
from helpers.processes import kills
from helpers.servers import serving
from helpers.titles import made as titles
from sigmax.candidates import Found, PostgresStore, UnavailableError, postgres, push
from sigmax.candidates.postgres import hidden
from sigmax.data import load_data
from sigmax.encoders.lexical import Lexical
from sigmax.errors import DataError
from sigmax.evaluation import calibrate
from sigmax.model.database import open_database, push_candidates
from sigmax.model.dual_encoder import load

NAMES = [f"{a} {b} {j}" for j in range(40) for a in ("red", "blue", "old") for b in ("moon", "sun", "sea")]
IDS = [f"c{j}" for j in range(len(NAMES))]
ASKED = ["red moon", "blue sea 7", "old"]


@pytest.fixture(scope="module")
def server():
    with database() as one:
        yield one


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    calibrated(candidates=NAMES, candidate_ids=IDS).save(folder)
    return folder


@pytest.fixture
def pushed(server, place, sigmax):
    server.run('DROP TABLE IF EXISTS "candidates"', 'DROP TABLE IF EXISTS "candidates_new"')
    done = sigmax("push", place, server.address())
    assert done.code == 0, done.err
    return server


def vectors(m=50, d=4, seed=0):
    return np.random.default_rng(seed).normal(size=(m, d)).astype(np.float32)


def written(server, table, made, **given):
    ids = [f"i{j}" for j in range(len(made))]
    return push(server.address(), ids, [f"text {key}" for key in ids], made, table=table, **{
        "fingerprint": "f", "generation": "g", **given
    })  # fmt: skip


# -- the store --------------------------------------------------------------------------------


def test_what_is_found_has_exact_products(server):
    made = vectors()
    written(server, "found", made, metadata=lambda place: {"even": place % 2 == 0, "name": "'; DROP TABLE found; --"})
    store = PostgresStore(server.address(), table="found")
    queries = vectors(5, seed=1)
    for query, found, all_ in zip(queries, store.search(queries, 7), store.exact(queries, 7), strict=True):
        products = made @ query
        assert found.products == pytest.approx(products[found.places], abs=1e-5)
        assert found.places.tolist() == all_.places.tolist() == np.argsort(-products)[:7].tolist()
        assert list(found.texts) == [f"text i{place}" for place in found.places]
    even = store.filtered({"even": True})
    assert (even.size, store.size) == (25, 50)
    [found] = even.search(queries[:1], 25)
    assert sorted(found.places.tolist()) == list(range(0, 50, 2)), "all that fit, however few the graph sees"
    assert store.filtered({"name": "'; DROP TABLE found; --"}).size == 50
    assert store.filtered({"name": "' OR true --"}).search(queries[:1], 3)[0].ids == []
    sample = even.sample(10)
    assert len(sample.places) == 10 and (sample.places % 2 == 0).all()
    assert sample.vectors == pytest.approx(made[sample.places])
    assert even.sample(10) is sample, "kept for a while"
    store.close()


def test_a_push_that_was_interrupted_is_gone_on_with(server, monkeypatch):
    made = vectors(45)
    monkeypatch.setattr(postgres, "BATCH", 10)

    def stop(part, what):
        if part > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(server, "half", made, advance=stop)
    with pytest.raises(DataError, match="no candidates in a table 'half'"):
        PostgresStore(server.address(), table="half")
    assert written(server, "half", made) == 15
    store = PostgresStore(server.address(), table="half")
    assert store.size == 45
    store.close()
    assert written(server, "half", vectors(20), generation="other") == 20, "another one begins anew"


def test_the_older_table_answers_until_the_new_one_is_whole(server):
    written(server, "swap", vectors(30))
    store = PostgresStore(server.address(), table="swap")
    seen = []

    def look(part, what):
        seen.append(len(store.search(vectors(1), 100)[0]))

    written(server, "swap", vectors(20), generation="next", advance=look)
    assert set(seen) == {30} and len(store.search(vectors(1), 100)[0]) == 20
    store.close()


def test_other_dimensions_and_too_many(server):
    written(server, "narrow", vectors(10))
    store = PostgresStore(server.address(), table="narrow")
    with pytest.raises(DataError, match="Expected queries of 4 numbers, got 8"):
        store.search(np.zeros((1, 8), np.float32), 3)
    store.close()
    with pytest.raises(DataError, match="up to 2,000 numbers, these have 2,001"):
        written(server, "wide", np.zeros((2, 2001), np.float32))


# -- addresses and passwords ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:…@host/db"),
        ("postgresql://me:se:cr@host:5432/db?x=1", "postgresql://me:…@host:5432/db?x=1"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=…&x=1"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
    ],
)
def test_passwords_are_hidden(address, shown):
    assert hidden(address) == shown


def test_a_wrong_password_is_never_printed(server, place, sigmax):
    server.run("DROP ROLE IF EXISTS locked", "CREATE ROLE locked LOGIN PASSWORD 'right'")
    rules = server.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text("local all locked scram-sha-256\n" + before)
    server.run("SELECT pg_reload_conf()")
    time.sleep(0.2)
    for command in (("push", place), ("match", place, "moon", "--candidates")):
        done = sigmax(*command, server.address("locked", "hunter2"))
        refused(done, 1, "lets nobody in with this user and password")
        assert "hunter2" not in done.err + done.out
    refused(sigmax("match", place, "moon", "--candidates", server.address("nobody-here")), 1, "does not exist")
    refused(
        sigmax("match", place, "moon", "--candidates", "postgresql://me:hunter2@127.0.0.1:1/db"), 1, "cannot be reached"
    )


# -- the commands -----------------------------------------------------------------------------


def test_matching_from_a_database_is_matching_all(pushed, place, sigmax):
    expected = json.loads(sigmax("match", place, *ASKED, "--json").out)["results"]
    found = json.loads(sigmax("match", place, *ASKED, "--json", "--candidates", pushed.address()).out)["results"]
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours["matches"], theirs["matches"], strict=True):
            assert one["candidate_id"] == other["candidate_id"]
            assert one["presence"] == pytest.approx(other["presence"], abs=1e-5)
        assert ours["share_error"] == 0.0
    assert "360 of them by an earlier run" in sigmax("push", place, pushed.address()).words


def test_metadata_and_where(pushed, place, sigmax, tmp_path):
    table = jsonl(
        tmp_path / "facts.jsonl", [{"id": key, "kind": NAMES[j].split()[0], "n": j} for j, key in enumerate(IDS)]
    )
    done = sigmax("push", place, pushed.address(), "--metadata", table, "--json")
    assert json.loads(done.out)["candidates"] == 360
    found = sigmax(
        "match", place, "moon", "--json", "--candidates", pushed.address(), "--where", "kind=blue", "--top-k", "20"
    )
    [answer] = json.loads(found.out)["results"]
    assert len(answer["matches"]) == 20 and all(one["candidate"].startswith("blue") for one in answer["matches"])
    one = sigmax("match", place, "moon", "--json", "--candidates", pushed.address(), "--where", "n=17")
    assert [m["candidate_id"] for m in json.loads(one.out)["results"][0]["matches"]] == ["c17"]
    refused(sigmax("match", place, "moon", "--where", "kind=blue"), 2, "--candidates")
    refused(
        sigmax("match", place, "moon", "--candidates", pushed.address(), "--where", "kind"), 2, "expected name=value"
    )
    none = sigmax("match", place, "moon", "--json", "--candidates", pushed.address(), "--where", "kind=green")
    assert json.loads(none.out)["results"][0]["matches"] == []
    unknown = jsonl(tmp_path / "unknown.jsonl", [{"id": "nobody", "kind": "x"}])
    refused(sigmax("push", place, pushed.address(), "--metadata", unknown), 1, "no candidate with the id 'nobody'")


def test_another_models_vectors(pushed, sigmax, tmp_path):
    other = tmp_path / "other"
    calibrated(candidates=["quite", "other", "ones"]).save(other)
    refused(
        sigmax("match", other, "moon", "--candidates", pushed.address()),
        1,
        "holds vectors of another model",
        "sigmax push",
    )
    assert sigmax("match", other, "moon", "--candidates", "mysql://here/db").code == 2


def test_shared_words_are_seen_from_a_database(server, sigmax, tmp_path):
    folder = tmp_path / "model"
    calibrated(candidates=NAMES, candidate_ids=IDS, lexical=Lexical.fit(NAMES)).save(folder)
    assert sigmax("push", folder, server.address(), "--table", "words").code == 0
    model = load(folder)
    expected = {one.candidate_id: one.logit for one in model.match("blue sea 7", top_k=100)}
    open_database(folder, model, server.address(), table="words")
    found = model.match("blue sea 7", top_k=5)
    for one in found:
        assert one.logit == pytest.approx(expected[one.candidate_id], abs=1e-4)
    model.searched.store.close()


def test_what_rules_say_knows_what_the_graph_misses(server, sigmax, tmp_path, monkeypatch):
    """With data, rules are chosen through the database: a right answer that it does not return is one missed."""
    source, folder = titles(), tmp_path / "model"
    rows = [
        {
            "query": source.queries[i],
            "answers": [source.candidates[j] for j in source.graph[[i]].indices],
            "split": name,
        }
        for name in source.splits
        for i in source.split(name)
    ]
    table = jsonl(tmp_path / "dev.jsonl", rows)
    data = load_data(table)
    model = calibrated(candidates=data.candidates, candidate_ids=data.candidate_ids)
    calibrate(model, data, method="platt")
    model.save(folder)
    done = sigmax("push", folder, server.address(), "--table", "fitted", "--data", table, "--json")
    measured = json.loads(done.out)["measured"]
    assert measured["recall"] > 0.95 and set(measured["rules"]) == {"scan", "index"}

    def opened(**given):
        found = load(folder)
        open_database(folder, found, server.address(), table="fitted", **given)
        found.searched.store.close()
        return found

    dev = data.split("dev")
    assert opened().calibrator.record.wanted.tolist() == np.diff(data.graph[dev].indptr).tolist()
    assert not opened().calibrator.record.missing.any() and opened().decide("contains=0.6").promised
    assert opened(where={"kind": "x"}).calibrator.as_dict() == model.calibrator.as_dict(), (
        "fitted on all, not on a part"
    )

    search = PostgresStore._search

    def blind(self, queries, k, size):
        kept = [(one, one.places % 2 == 0) for one in search(self, queries, k, size)]
        return [
            Found(one.places[k], one.products[k], np.array(one.ids)[k].tolist(), np.array(one.texts)[k].tolist())
            for one, k in kept
        ]

    monkeypatch.setattr(PostgresStore, "_search", blind)
    push_candidates(folder, server.address(), table="fitted", data=data)
    odd = np.array([(data.graph[[i]].indices % 2).sum() for i in dev])
    assert (opened().calibrator.record.missing >= odd).all()
    assert opened().decide("contains=0.6").promised is False
    server.run("UPDATE sigmax_candidates SET about = about || '{\"generation\": \"next\"}' WHERE name = 'fitted'")
    assert opened().calibrator.as_dict() == model.calibrator.as_dict(), "of the table as it was pushed"
    (folder / "database" / "database.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"database: damaged .* Measure again: sigmax push"):
        opened()
    refused(sigmax("push", folder, server.address(), "--data", table, "--split", "later"), 2, "later")


# -- a server that goes away ------------------------------------------------------------------


@pytest.mark.slow
def test_killed_and_started_again(pushed, place):
    """While it is away, searching says so; once it is back, it goes on by itself."""
    model = load(place)
    open_database(place, model, pushed.address())
    expected = model.match("red moon")
    pushed.kill()
    with pytest.raises(UnavailableError, match="cannot be reached just now"):
        model.match("red moon")
    pushed.start()
    assert model.match("red moon") == expected
    model.searched.store.close()


@pytest.mark.slow
def test_served_through_a_kill(pushed, place, tmp_path):
    """Requests get 503 while the database is away, and answers once it is back, without a restart of the server."""
    with serving(place, options=["--candidates", pushed.address()]) as server:
        expected = server.match("red moon", top_k=3)
        answers, stop = [], threading.Event()

        def ask():
            while not stop.is_set():
                answers.append(server.ask("/match", {"query": "red moon", "top_k": 3})[:2])

        asking = threading.Thread(target=ask)
        asking.start()
        pushed.kill()
        server.refuses(503, "cannot be reached just now", body={"query": "red moon"})
        pushed.start()
        for _ in range(50):
            status, answer, _ = server.ask("/match", {"query": "red moon", "top_k": 3})
            if status == 200:
                break
            time.sleep(0.2)
        stop.set()
        asking.join()
        assert status == 200 and answer == expected
        assert {status for status, _ in answers} <= {200, 503}
        where = server.ask("/match", {"query": "moon", "where": {"kind": "none such"}})
        assert where[0] == 200, where
        assert (where[1]["results"][0]["matches"], where[1]["results"][0]["any"]) == ([], 0.0)
        server.refuses(422, "all candidates", path="/explain", body={"query": "moon"})


@pytest.mark.slow
@posix
def test_killed_at_any_moment(server, place, tmp_path, monkeypatch):
    """20 kills of a push: the older candidates or the new ones, whole; and a last push finishes."""
    server.run('DROP TABLE IF EXISTS "candidates"', 'DROP TABLE IF EXISTS "candidates_new"')
    monkeypatch.setattr(postgres, "BATCH", 50)
    folders = [place, tmp_path / "other"]
    calibrated(candidates=[f"{name} new" for name in NAMES], candidate_ids=IDS).save(folders[1])
    for _ in kills(lambda number: push_candidates(folders[number % 2], server.address()), 30):
        [[count, old]] = server.run("SELECT count(*), count(*) FILTER (WHERE text NOT LIKE '%new') FROM candidates")
        assert count == len(NAMES) and old in (0, count), "never half"
        store = PostgresStore(server.address())
        assert len(store.search(np.ones((1, 8), np.float32), 5)[0]) == 5
        store.close()
    push_candidates(folders[1], server.address())
    assert server.run("SELECT count(*) FROM candidates WHERE text LIKE '%new'") == [(len(NAMES),)]
