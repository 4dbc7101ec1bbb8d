"""The examples that calibrate other libraries' scores; each runs where its library is installed."""

import hashlib
import importlib
import sqlite3

import numpy as np
import pytest

import sigmax
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
    """A CrossEncoder's interface; one that is trained would need a download."""

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


def test_sql(example):
    """Presence in SQL is the model's: in SQLite, whose window functions and logarithm are PostgreSQL's."""
    random = np.random.default_rng(0)
    right = random.random((200, 8)) < 0.15
    scores = sigmax.Scores.from_matrix(1 + 0.3 * random.normal(size=right.shape) - 0.6 * right, right)
    calibrated = sigmax.calibrate(scores, method="platt")
    with sqlite3.connect(":memory:") as database:
        try:
            database.execute("SELECT exp(1), ln(2)")
        except sqlite3.OperationalError:
            database.create_function("exp", 1, np.exp)
            database.create_function("ln", 1, np.log)
        database.create_function("greatest", 2, max)
        database.create_function("least", 2, min)
        database.execute("CREATE TABLE found (query TEXT, candidate TEXT, score REAL)")
        names, candidates = scores.queries.to_pylist(), scores.candidates.to_pylist()
        rows = [(names[i], candidates[row], float(scores.values[row, 0])) for row, i in enumerate(scores.rows)]
        database.executemany("INSERT INTO found VALUES (?, ?, ?)", rows)
        module = example("scores_postgres")
        got = database.execute(module.presence_sql(calibrated, "SELECT * FROM found")).fetchall()
    presence = dict(zip(((row[0], row[1]) for row in rows), calibrated.read(scores)[1], strict=True))
    assert len(got) == len(rows)
    for query, candidate, _, found, accepted in got:
        assert found == pytest.approx(presence[query, candidate], rel=1e-6)
        assert bool(accepted) == (found >= calibrated.calibrator.default_threshold)
    with pytest.raises(ValueError, match="one column of scores"):
        module.presence_sql(sigmax.calibrate(scores, method="isotonic"), "SELECT 1")


def test_examples_are_short():
    for path in (ROOT / "examples").glob("scores_*.py"):
        assert len(path.read_text("utf-8").splitlines()) < 60
