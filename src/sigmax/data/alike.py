"""Which queries of a split say nearly the same: groups that cross-validation has to keep together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import scipy

from sigmax.arrays import Ints
from sigmax.data.dataset import MatchDataset
from sigmax.data.normal import normal
from sigmax.data.pictures import key_of

__all__ = ["groups_of"]

#: Part of a split's queries that may be taken for near-duplicates where it was drawn one by one, like the training one.
MISTAKEN = 0.05
#: Runs of so many characters are what texts share.
RUN = 4
#: A run that more than this part of the texts has (but at least `FEW` of them) says nothing.
COMMON, FEW = 0.02, 100
#: Queries that are compared with all others at a time.
BLOCK = 1024
#: Beyond this many queries only equal ones are looked for.
MOST = 20_000


def groups_of(data: MatchDataset, split: str, *, seed: int = 0) -> Ints:
    """Return (n,) the group of each query of a split; queries of one group are nearly the same.

    Where a split was made of whole groups of near-duplicates (the same message in six ways), its queries are nearer to
    each other than to any training query; where it was drawn one by one, they are not. So the training queries (for
    these, the others) say what *near* means: two queries are joined if they are more alike than all but a part ε of the
    split's queries are to their nearest training query, of as many as the split has. Of queries drawn one by one,
    however often they recur, about ε = 0.05 at most are joined by mistake. Alike: the cosine of TF-IDF vectors of runs
    of four characters. Pictures are joined if they are equal, and so are texts where there are fewer than 20 training
    queries: they cannot tell what one in 20 is.

    Args:
        data: the data set.
        split: which queries.
        seed: of the sample of training queries.

    Raises:
        UnknownNameError: no such split.
    """
    queries = [data.queries[i] for i in data.split(split)]
    texts = [normal(key_of(query)).casefold() for query in queries]
    equal: Ints = np.unique(np.array(texts, dtype=object), return_inverse=True)[1].astype(np.int64)
    if not 2 <= len(texts) <= MOST or not all(isinstance(one, str) for one in queries):
        return equal
    parts = [data.splits[part] for part in data.splits if (part == "train") != (split == "train")]
    drawn = np.random.default_rng(seed).permutation(np.concatenate(parts))[: len(texts)]
    if len(drawn) * MISTAKEN < 1:
        return equal
    vectors = _vectors(texts + [normal(key_of(data.queries[i])).casefold() for i in drawn])
    ours, theirs = vectors[: len(texts)], vectors[len(texts) :]
    nearest = np.concatenate([block.max(axis=1).toarray().ravel() for block in _products(ours, theirs)])
    # With fewer training queries than ours, chance alone finds nearer ones among ours.
    near = np.quantile(nearest, 1 - MISTAKEN * min(1.0, len(drawn) / len(texts)), method="higher") + 1e-6
    rows, columns = [], []
    for number, block in enumerate(_products(ours, ours)):
        alike = block.tocoo()
        kept = alike.data > near
        rows.append(alike.row[kept] + number * BLOCK)
        columns.append(alike.col[kept])
    i, j = np.concatenate(rows), np.concatenate(columns)
    graph = scipy.sparse.coo_array((np.ones(len(i)), (i, j)), shape=(len(texts), len(texts)))
    return np.asarray(scipy.sparse.csgraph.connected_components(graph, directed=False)[1], dtype=np.int64)


def _vectors(texts: Sequence[str]) -> Any:
    """(n, v) sparse TF-IDF vectors of length 1; 0 for a text that has nothing to tell it by."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    counts = HashingVectorizer(
        analyzer="char_wb", ngram_range=(RUN, RUN), norm=None, alternate_sign=False, dtype=np.float32
    ).transform(texts)
    having = np.bincount(counts.indices, minlength=counts.shape[1])
    counts.data[having[counts.indices] > max(COMMON * len(texts), FEW)] = 0
    counts.eliminate_zeros()
    return TfidfTransformer().fit_transform(counts)


def _products(ours: Any, theirs: Any) -> Iterator[Any]:
    turned = theirs.T.tocsr()
    return (ours[start : start + BLOCK] @ turned for start in range(0, ours.shape[0], BLOCK))
