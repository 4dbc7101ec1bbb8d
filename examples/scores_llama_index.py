"""LlamaIndex: a postprocessor that keeps the nodes which are probably right, and none where none fits.

It comes after any retriever, whatever its scores mean.  pip install sigmax llama-index-core
"""

from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

import sigmax


class PresenceFilter(BaseNodePostprocessor):
    """Keep what a rule accepts; a node's score becomes its presence."""

    calibrated: Any  # sigmax.ScoreModel
    rule: str = "best-f1"

    @classmethod
    def class_name(cls) -> str:
        """Return the name it is saved under."""
        return "PresenceFilter"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if not nodes:
            return []
        query = query_bundle.query_str if query_bundle else ""
        by_id = {node.node.node_id: node.node for node in nodes}
        scores = sigmax.Scores.of([query] * len(nodes), list(by_id), [node.score for node in nodes])
        (matches,) = self.calibrated.match(scores, rule=self.rule)
        return [NodeWithScore(node=by_id[one.candidate], score=one.presence) for one in matches.accepted]


def calibrate(retriever: BaseRetriever, questions: dict[str, set[str]]) -> sigmax.ScoreModel:
    """Calibrate a retriever's scores on questions and the texts that are right for each; an empty set: nothing is."""
    rows = [
        (question, found.node.node_id, found.score, found.node.get_content() in right)
        for question, right in questions.items()
        for found in retriever.retrieve(question)
    ]
    return sigmax.calibrate(sigmax.Scores.of(*map(list, zip(*rows, strict=True))))
