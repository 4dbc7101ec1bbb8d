"""BM25 on a data set: its settings chosen on dev, and the wrong candidates that it takes for right ones."""

from __future__ import annotations

import copy
from weakref import WeakKeyDictionary

import numpy as np

from sigmax.arrays import Ints
from sigmax.data.dataset import MatchDataset
from sigmax.encoders.lexical import Lexical
from sigmax.metrics.ranking import ranking_values

__all__ = ["fit_lexical", "nearest_wrong"]

#: Tried on dev: as they are, and as English stems. Of other languages the parts of words find what stems would.
STEMMERS = ("english", "none")
#: k₁ and b tried on dev: the defaults of Anserini and of Lucene.
SATURATIONS = ((0.9, 0.4), (1.2, 0.75))
#: Pairs of a dev query and a candidate that the choice looks at, at most.
PAIRS = 2**23
#: Pairs scored at a time.
BLOCK = 2**24
#: Wrong candidates kept for each training query.
NEAREST = 20

_fitted: WeakKeyDictionary[MatchDataset, Lexical] = WeakKeyDictionary()
_nearest: WeakKeyDictionary[MatchDataset, Ints] = WeakKeyDictionary()


def fit_lexical(data: MatchDataset) -> Lexical:
    """Fit the lexical view to a data set's candidates, with the stemmer, k₁ and b that rank best by words on dev (MAP).

    It is fitted once for each data set; every call returns one of its own to train.

    Args:
        data: both sides texts.
    """
    if data not in _fitted:
        rows = data.split("dev")[: max(1, PAIRS // max(1, len(data.candidates)))]
        queries = [str(data.queries[i]) for i in rows]
        right = data.graph[rows].toarray().astype(bool)
        best = (-1.0, Lexical.fit([]))
        for stemmer in STEMMERS:
            view = Lexical.fit(data.candidates, stemmer=stemmer)
            asked = view.tokens(queries, "query").of_kind("words")
            for k1, b in SATURATIONS:
                view.k1, view.b = k1, b
                offered = view.tokens(data.candidates, "candidate").of_kind("words")
                found = ranking_values(view.scores(asked, offered), right)["map"]
                value = float(np.nanmean(found)) if right.any() else 0.0
                if value > best[0]:
                    best = value, copy.copy(view)
        _fitted[data] = best[1]
    made = copy.copy(_fitted[data])  # shares what it counted
    made._parameters = {name: copy.deepcopy(one) for name, one in made._parameters.items()}
    return made


def nearest_wrong(data: MatchDataset) -> Ints:
    """(queries, k) the candidates nearest each training query by BM25 that are not right for it, in no order.

    k is `NEAREST`, or fewer where there are few candidates; −1 fills the rows of other splits.
    """
    if data not in _nearest:
        view = fit_lexical(data)
        rows = data.split("train")
        few = min(NEAREST, len(data.candidates) - 1)
        found = np.full((len(data.queries), max(0, few)), -1, np.int64)
        offered = view.tokens(data.candidates, "candidate")
        height = max(1, BLOCK // max(1, len(data.candidates)))
        for start in range(0, len(rows) if few > 0 else 0, height):
            block = rows[start : start + height]
            scores = view.scores(view.tokens([str(data.queries[i]) for i in block], "query"), offered)
            graph = data.graph[block]
            scores[graph.nonzero()] = -np.inf
            near = np.argpartition(-scores, few - 1, axis=1)[:, :few]
            near[np.isneginf(np.take_along_axis(scores, near, 1))] = -1
            found[block] = near
        _nearest[data] = found
    return _nearest[data]
