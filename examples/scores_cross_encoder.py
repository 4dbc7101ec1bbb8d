"""sentence-transformers: a CrossEncoder re-ranks, and its scores are calibrated together with the first search's.

A re-ranker's 0.99 is no probability. On questions whose right passages are known its scores and those of the search
before it become one presence.
"""

from collections.abc import Callable, Sequence

import numpy as np

import sigmax
from sentence_transformers import CrossEncoder

#: question -> passages and scores of the first search, best first
Search = Callable[[str], Sequence[tuple[str, float]]]


def scored(
    reranker: CrossEncoder,
    search: Search,
    questions: Sequence[str],
    right: Sequence[set[str]] | None = None,
    top: int = 20,
) -> sigmax.Scores:
    """Search, re-rank the first `top`, and keep both scores; what was not re-ranked has no score of the re-ranker."""
    rows = [(question, *found) for question in questions for found in search(question)]
    ranks = [rank for question in questions for rank in range(len(search(question)))]
    first = np.array(ranks) < top
    pairs = [(question, passage) for (question, passage, _), one in zip(rows, first, strict=True) if one]
    rerank = np.full(len(rows), np.nan)
    rerank[first] = reranker.predict(pairs, show_progress_bar=False)
    known = None if right is None else dict(zip(questions, right, strict=True))
    return sigmax.Scores.of(
        [question for question, _, _ in rows],
        [passage for _, passage, _ in rows],
        {"search": [score for _, _, score in rows], "rerank": rerank},
        None if known is None else [passage in known[question] for question, passage, _ in rows],
    )
