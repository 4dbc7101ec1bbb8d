"""The words of texts, and what those that two texts share add up to: BM25's sums over sparse rows; NumPy alone.

`Lexical` learns the weights of words; what is read and summed here is the same in training and in an exported model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Ints
from sigmax.data.texts import digest
from sigmax.encoders.tokens import KINDS, Tokenizer, kind_of

if TYPE_CHECKING:
    from sigmax.data.pictures import Query

__all__ = ["TokenCounts", "Tokens"]

#: Bytes of tokens that are kept for the next epoch.
CACHED_BYTES = 2**30
#: Bytes of a cache's entry beside what is in it.
ENTRY_BYTES = 512
#: Texts whose tokens are counted at a time.
BLOCK = 2**12
#: Products of weights and values that are added at a time.
PRODUCTS = 2**20


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of b texts, one text after the other: the rows of a sparse matrix whose columns are 64-bit keys."""

    keys: Ints  #: (k,) sorted within each text
    values: NDArray[np.float32]  #: (k,) how often a query has each; of a candidate, what BM25 makes of how often
    ends: Ints  #: (b + 1,) where each text begins, and where the last one ends
    _known: dict[Any, Any] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, rows: slice) -> Tokens:
        """Return the tokens of some of the texts; the same object for the same slice, so that its postings last."""
        start, stop, _ = rows.indices(len(self))
        if (start, stop) == (0, len(self)):
            return self
        if (start, stop) not in self._known:
            ends = self.ends[start : max(start, stop) + 1]
            inside = slice(ends[0], ends[-1])
            self._known[start, stop] = Tokens(self.keys[inside], self.values[inside], ends - ends[0])
        cut: Tokens = self._known[start, stop]
        return cut

    def take(self, texts: Ints) -> Tokens:
        """Return the tokens of the texts at some places."""
        starts, lengths = self.ends[texts], self.ends[texts + 1] - self.ends[texts]
        ends = np.append(0, lengths.cumsum())
        inside = np.arange(ends[-1]) + np.repeat(starts - ends[:-1], lengths)
        return Tokens(self.keys[inside], self.values[inside], ends)

    def followed_by(self, other: Tokens) -> Tokens:
        """Return the tokens of these texts, and then of others."""
        keys, values = np.concatenate([self.keys, other.keys]), np.concatenate([self.values, other.values])
        return Tokens(keys, values, np.concatenate([self.ends, other.ends[1:] + self.ends[-1]]))

    def of_kind(self, kind: str) -> Tokens:
        """Return the tokens of one kind alone."""
        kept = kind_of(self.keys) == KINDS.index(kind)
        return Tokens(self.keys[kept], self.values[kept], np.append(0, kept.cumsum())[self.ends])

    @property
    def rows(self) -> Ints:
        """(k,) the text of each token."""
        return np.repeat(np.arange(len(self)), np.diff(self.ends))

    @property
    def postings(self) -> Postings:
        """The texts and values of each key; made once, for many queries."""
        if "postings" not in self._known:
            order = np.argsort(self.keys, kind="stable")
            keys, starts = np.unique(self.keys[order], return_index=True)
            ends = np.append(starts, len(order))
            self._known["postings"] = Postings(keys, ends, self.rows[order], self.values[order])
        found: Postings = self._known["postings"]
        return found


class Postings(NamedTuple):
    """Texts by token: a sparse matrix by its columns."""

    keys: Ints  #: (v,) sorted
    ends: Ints  #: (v + 1,) where the texts of each key begin, and where the last ones end
    texts: Ints  #: (k,) rising for each key
    values: NDArray[np.float32]  #: (k,)


def _blocks(lengths: Ints) -> list[slice]:
    """Runs of tokens with about `PRODUCTS` texts together, at least one token each; none of no tokens."""
    if not len(lengths):
        return []
    before = np.append(0, lengths.cumsum())
    cuts = np.searchsorted(before, np.arange(0, before[-1], PRODUCTS), side="left")
    starts = np.unique(np.append(cuts[cuts < len(lengths)], 0))
    return [slice(start, stop) for start, stop in pairwise([*starts.tolist(), len(lengths)])]


class TokenCounts:
    """Texts -> their tokens, and tokens of two sides -> sums of weights.

    Args:
        stemmer: see `Tokenizer`.
        mean_lengths: mean number of tokens of each kind in a candidate.
        k1: how slowly further occurrences of a token cease to count, at least 0.
        b: how far a candidate's length is held against it, from 0 to 1.
    """

    def __init__(self, stemmer: str, *, mean_lengths: Sequence[float], k1: float, b: float) -> None:
        self.tokenizer, self.mean_lengths, self.k1, self.b = Tokenizer(stemmer), list(mean_lengths), k1, b
        self._cache: dict[bytes, tuple[Ints, Ints]] = {}
        self._cached = 0  # bytes

    @abstractmethod
    def weight_values(self, keys: Ints) -> NDArray[np.float32]:
        """(k,) weights of tokens."""

    def tokens(self, texts: Sequence[Query], side: str) -> Tokens:
        """Count the tokens of the texts of a side, "query" or "candidate"."""
        found = self._counted([str(text) for text in texts])
        empty = np.empty(0, np.int64)
        keys = np.concatenate([empty, *(one for one, _ in found)])
        counts = np.concatenate([empty, *(many for _, many in found)])
        ends = np.cumsum([0, *(len(one) for one, _ in found)])
        if side == "query":
            return Tokens(keys, counts.astype(np.float32), ends)
        group = np.repeat(np.arange(len(found)), np.diff(ends)) * len(KINDS) + kind_of(keys)
        lengths = np.bincount(group, counts, len(found) * len(KINDS))[group]
        means = np.array([mean or 1.0 for mean in self.mean_lengths])[kind_of(keys)]  # 0: none was seen to tell
        values = counts / (counts + self.k1 * (1 - self.b + self.b * lengths / means))
        return Tokens(keys, values.astype(np.float32), ends)

    def _counted(self, texts: Sequence[str]) -> list[tuple[Ints, Ints]]:
        """Keys and counts of each text; those that were counted before are remembered."""
        digests = [digest(text) for text in texts]
        new = {key: text for key, text in zip(digests, texts, strict=True) if key not in self._cache}
        made: dict[bytes, tuple[Ints, Ints]] = {}
        for start in range(0, len(new), BLOCK):
            block = list(new.items())[start : start + BLOCK]
            made.update(zip((key for key, _ in block), self.tokenizer.count([text for _, text in block]), strict=True))
        for key, (keys, counts) in made.items():
            size = keys.nbytes + counts.nbytes + ENTRY_BYTES
            if self._cached + size <= CACHED_BYTES:
                self._cached += size
                self._cache[key] = keys, counts
        return [made[key] if key in made else self._cache[key] for key in digests]

    def scores(self, queries: Tokens, candidates: Tokens) -> NDArray[np.float32]:
        """(n, m) what shared words add to logits, by the candidates' postings: what a query does not hold is free."""
        found = np.zeros((len(queries), len(candidates)), np.float32)
        keys, ends, texts, texts_values = candidates.postings
        at = np.searchsorted(keys, queries.keys)
        inside = at < len(keys)
        inside[inside] = keys[at[inside]] == queries.keys[inside]
        at, rows = at[inside], queries.rows[inside]
        values = (queries.values[inside] * self.weight_values(queries.keys[inside])).astype(np.float32, copy=False)
        lengths = ends[at + 1] - ends[at]
        for some in _blocks(lengths):  # of the queries' tokens; memory: what the texts of a block take
            many = lengths[some]
            stop = many.cumsum()
            place = np.arange(stop[-1]) + np.repeat(ends[at[some]] - stop + many, many)
            cells = np.repeat(rows[some] * len(candidates), many) + texts[place]
            np.add.at(found.reshape(-1), cells, np.repeat(values[some], many) * texts_values[place])
        return found

    def shared(self, query: str, candidate: str) -> dict[str, float]:
        """Return what each word and pair of the query adds to the logit of a candidate, the most first.

        A word counts with its parts, also where the candidate shares no more than some of those.
        """
        asked, offered = self.tokens([query], "query"), self.tokens([candidate], "candidate")
        value = dict(zip(offered.keys.tolist(), offered.values.tolist(), strict=True))
        weight = dict(zip(asked.keys.tolist(), self.weight_values(asked.keys).tolist(), strict=True))
        total: dict[str, float] = {}
        for spelt, keys in self.tokenizer.spelt(query):
            added = sum(weight[key] * value.get(key, 0.0) for key in keys)
            if added > 0:
                total[spelt] = total.get(spelt, 0.0) + added
        return dict(sorted(total.items(), key=lambda item: -item[1]))
