"""Haystack: a component that hands on the documents which are probably right, and none where none fits.

It comes after a retriever or a ranker in a pipeline.  pip install sigmax haystack-ai
"""

from dataclasses import replace
from typing import Any

from haystack import Document, component

import sigmax


@component
class PresenceFilter:
    """Keep what a rule accepts; a document's score becomes its presence."""

    def __init__(self, calibrated: sigmax.ScoreModel, rule: str = "best-f1") -> None:
        self.calibrated, self.rule = calibrated, rule

    @component.output_types(documents=list[Document], any_right=float)
    def run(self, query: str, documents: list[Document]) -> dict[str, Any]:
        """Rate the documents of a query."""
        if not documents:
            return {"documents": [], "any_right": 0.0}
        by_id = {document.id: document for document in documents}
        scores = sigmax.Scores.of([query] * len(documents), list(by_id), [one.score for one in documents])
        (matches,) = self.calibrated.match(scores, rule=self.rule)
        kept = [replace(by_id[one.candidate], score=one.presence) for one in matches.accepted]
        return {"documents": kept, "any_right": matches.any}


def calibrate(retriever: Any, questions: dict[str, set[str]]) -> sigmax.ScoreModel:
    """Calibrate a retriever's scores on questions and the texts that are right for each; an empty set: nothing is."""
    rows = [
        (question, document.id, document.score, document.content in right)
        for question, right in questions.items()
        for document in retriever.run(query=question)["documents"]
    ]
    return sigmax.calibrate(sigmax.Scores.of(*map(list, zip(*rows, strict=True))))
