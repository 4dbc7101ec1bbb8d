"""LangChain: a retriever that returns what is probably right, and nothing where nothing fits.

A vector store's scores mean nothing by themselves. Calibrated on some questions whose right documents are known, they
become presences, and a rule says which documents to hand on.  pip install sigmax langchain-core
"""

from typing import Any

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

import sigmax


class PresenceRetriever(BaseRetriever):
    """The documents of a store that a rule accepts, best first, each with its presence."""

    store: VectorStore
    calibrated: Any  # sigmax.ScoreModel
    rule: str = "best-f1"
    k: int = 10

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        found = self.store.similarity_search_with_score(query, k=self.k)
        documents = {str(place): document for place, (document, _) in enumerate(found)}
        scores = sigmax.Scores.of([query] * len(found), list(documents), [score for _, score in found])
        (matches,) = self.calibrated.match(scores, rule=self.rule, top_k=self.k)
        for one in matches.accepted:
            documents[one.candidate].metadata |= {"presence": one.presence, "any_right": matches.any}
        return [documents[one.candidate] for one in matches.accepted]


def calibrate(store: VectorStore, questions: dict[str, set[str]], k: int = 10) -> sigmax.ScoreModel:
    """Calibrate a store's scores on questions and the texts that are right for each; an empty set: nothing is."""
    rows = [
        (question, document.page_content, score, document.page_content in right)
        for question, right in questions.items()
        for document, score in store.similarity_search_with_score(question, k=k)
    ]
    return sigmax.calibrate(sigmax.Scores.of(*map(list, zip(*rows, strict=True))))


def make_retriever(embeddings: Embeddings, texts: list[str], questions: dict[str, set[str]]) -> PresenceRetriever:
    """Put texts into a store, calibrate it, and wrap it."""
    store = InMemoryVectorStore.from_texts(texts, embeddings)
    return PresenceRetriever(store=store, calibrated=calibrate(store, questions))
