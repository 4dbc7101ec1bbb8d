"""The lexical view of texts: BM25 over words, parts of words and pairs, with weights that training moves from there.

Beside an encoder, whose vectors know what training taught them, it sees what two texts share letter by letter: names,
numbers, codes, words that no training query had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from sigmax.arrays import Ints
from sigmax.data.pictures import Query
from sigmax.data.texts import digest
from sigmax.encoders.module import Module
from sigmax.encoders.tokens import KINDS, Tokenizer, kind_of

__all__ = ["Lexical", "Tokens"]

#: Bytes of tokens that are kept for the next epoch.
CACHED_BYTES = 2**30
#: Bytes of a cache's entry beside what is in it.
ENTRY_BYTES = 512
#: Texts whose tokens are counted at a time.
BLOCK = 2**12
#: Weight of a token of each kind before training. Pairs as in the sequential dependence model (Metzler & Croft 2005).
WEIGHTS = {"words": 1.0, "parts": 0.2, "pairs": 0.1}


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
    def postings(self) -> tuple[Ints, sparse.csr_array]:
        """(v,) keys, sorted, and (v, b) their values in each text; made once, for many queries."""
        if "postings" not in self._known:
            keys, columns = np.unique(self.keys, return_inverse=True)
            by_text = sparse.csr_array((self.values, columns, self.ends), shape=(len(self), len(keys)))
            self._known["postings"] = keys, sparse.csr_array(by_text.T)
        found: tuple[Ints, sparse.csr_array] = self._known["postings"]
        return found


class Lexical(Module):
    r"""s(q, c) = Σ_t a_k · idf_t · e^θ_t · n_qt · n_ct / (n_ct + k₁ (1 − b + b · |c|_k / avg_k)).

    The sum goes over the tokens t that query and candidate share; n is how often a text has the token, k its kind
    (word, part or pair, see `Tokenizer`), |c|_k how many tokens of that kind the candidate has, avg_k the mean of that.
    idf_t = log(1 + (N − df_t + ½) / (df_t + ½)), where df_t of the N candidates that it was fitted on have the token; a
    token of none of them has df 0, so that a code never seen matches itself. With θ = 0 each kind's sum is BM25
    (Robertson et al. 1994) as Lucene has it. Training moves a and θ.

    It is saved like an encoder, but gives logits of two texts and no vector of one.

    Args:
        keys: (v,) keys of the tokens known, sorted.
        frequency: (v,) df.
        texts: N.
        mean_lengths: avg of each kind.
        stemmer: see `Tokenizer`.
        k1: how slowly further occurrences of a token cease to count, at least 0.
        b: how far a candidate's length is held against it, from 0 to 1.
    """

    keys: Tensor
    frequency: Tensor

    def __init__(
        self,
        keys: Ints | Tensor,
        frequency: Ints | Tensor,
        *,
        texts: int,
        mean_lengths: Sequence[float],
        stemmer: str = "english",
        k1: float = 0.9,
        b: float = 0.6,
    ) -> None:
        super().__init__()
        if not (k1 >= 0 and 0 <= b <= 1):
            raise ValueError(f"Expected `k1` of at least 0 and `b` in [0, 1], got {k1} and {b}.")
        self.texts, self.mean_lengths = texts, list(mean_lengths)
        self.tokenizer, self.k1, self.b = Tokenizer(stemmer), k1, b
        self.register_buffer("keys", torch.as_tensor(keys, dtype=torch.int64))
        self.register_buffer("frequency", torch.as_tensor(frequency, dtype=torch.int64))
        self.theta = nn.Parameter(torch.zeros(len(self.keys)))
        self.log_weights = nn.Parameter(torch.tensor([WEIGHTS[kind] for kind in KINDS]).log())  # a
        self._cache: dict[bytes, tuple[Ints, Ints]] = {}
        self._cached = 0  # bytes

    @classmethod
    def fit(cls, candidates: Sequence[str], **settings: Any) -> Lexical:
        """Count in how many candidates each token occurs.

        Args:
            candidates: the texts; read once, some at a time.
            settings: stemmer, k1, b.
        """
        counter = cls(
            np.empty(0, np.int64), np.empty(0, np.int64), texts=0, mean_lengths=[0.0] * len(KINDS), **settings
        )
        keys, frequency, lengths = np.empty(0, np.int64), np.empty(0, np.int64), np.zeros(len(KINDS))
        for start in range(0, len(candidates), BLOCK):
            found = counter._counted(candidates[start : start + BLOCK])
            held, counts = (np.concatenate(parts) for parts in zip(*found, strict=True))
            lengths += np.bincount(kind_of(held), counts, len(KINDS))
            new, often = np.unique(held, return_counts=True)
            keys, places = np.unique(np.concatenate([keys, new]), return_inverse=True)
            frequency = np.bincount(places, np.concatenate([frequency, often]), len(keys)).astype(np.int64)
        means = lengths / max(1, len(candidates))
        made = cls(keys, frequency, texts=len(candidates), mean_lengths=means.tolist(), **settings)
        made._cache, made._cached = counter._cache, counter._cached
        return made

    # -- texts to tokens -------------------------------------------------------------------------

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

    # -- tokens to logits ------------------------------------------------------------------------

    def weights(self, keys: Ints) -> Tensor:
        """(k,) a · idf · e^θ of tokens, with gradient."""
        asked = torch.from_numpy(keys).to(self.keys.device)
        known = torch.zeros_like(asked, dtype=torch.bool)
        frequency, theta = torch.zeros_like(asked), self.theta.new_zeros(len(asked))
        if len(self.keys):
            places = torch.searchsorted(self.keys, asked).clamp_(max=len(self.keys) - 1)
            known = self.keys[places] == asked
            frequency = self.frequency[places] * known
            theta = self.theta[places] * known
        idf = torch.log1p((self.texts - frequency + 0.5) / (frequency + 0.5)).to(theta.dtype)
        kinds = torch.from_numpy(kind_of(keys)).to(asked.device)
        return self.log_weights[kinds].exp() * idf * theta.exp()

    def forward(self, queries: Tokens, candidates: Tokens, *, columns: int | None = None) -> Tensor:
        """Tokens of both sides -> (n, m) logits, with gradient. Memory: (tokens of the queries) × m.

        Args:
            queries: of n queries.
            candidates: of m candidates.
            columns: m, or more: the last ones are of candidates without tokens.
        """
        columns = columns or len(candidates)
        asked, places = np.unique(queries.keys, return_inverse=True)
        at = np.searchsorted(asked, candidates.keys)
        inside = at < len(asked)
        inside[inside] = asked[at[inside]] == candidates.keys[inside]
        table = np.zeros((len(asked), columns), np.float32)
        table[at[inside], candidates.rows[inside]] = candidates.values[inside]
        weights = self.weights(asked)
        if not table.size:
            return weights.new_zeros(len(queries), columns)

        def here(array: NDArray[Any]) -> Tensor:
            return torch.from_numpy(array).to(weights.device)

        return F.embedding_bag(
            here(places),
            here(table).to(weights.dtype),
            here(queries.ends[:-1]),
            mode="sum",
            per_sample_weights=weights[here(places)] * here(queries.values),
        )

    @torch.no_grad()
    def scores(self, queries: Tokens, candidates: Tokens) -> NDArray[np.float32]:
        """(n, m) the logits of `forward` through the candidates' postings: what a query does not hold costs nothing."""
        keys, postings = candidates.postings
        at = np.searchsorted(keys, queries.keys)
        inside = at < len(keys)
        inside[inside] = keys[at[inside]] == queries.keys[inside]
        values = queries.values[inside] * self.weights(queries.keys[inside]).cpu().numpy()
        asked = sparse.csr_array((values, (queries.rows[inside], at[inside])), shape=(len(queries), len(keys)))
        found: NDArray[np.float32] = (asked @ postings).toarray().astype(np.float32, copy=False)
        return found

    @torch.no_grad()
    def shared(self, query: str, candidate: str) -> dict[str, float]:
        """Return what each word and pair of the query adds to the logit of a candidate, the most first.

        A word counts with its parts, also where the candidate shares no more than some of those.
        """
        asked, offered = self.tokens([query], "query"), self.tokens([candidate], "candidate")
        value = dict(zip(offered.keys.tolist(), offered.values.tolist(), strict=True))
        weight = dict(zip(asked.keys.tolist(), self.weights(asked.keys).tolist(), strict=True))
        total: dict[str, float] = {}
        for spelt, keys in self.tokenizer.spelt(query):
            added = sum(weight[key] * value.get(key, 0.0) for key in keys)
            if added > 0:
                total[spelt] = total.get(spelt, 0.0) + added
        return dict(sorted(total.items(), key=lambda item: -item[1]))

    # -- files -----------------------------------------------------------------------------------

    @classmethod
    def read(cls, folder: Path) -> Lexical:
        """Read what `save` wrote."""
        view = cls.load(str(folder))
        assert isinstance(view, cls)
        return view

    def config(self) -> dict[str, Any]:
        """Return what `restore` needs beside the weights."""
        about = {name: getattr(self, name) for name in ("texts", "mean_lengths", "k1", "b")}
        return about | {"stemmer": self.tokenizer.stemmer}

    @classmethod
    def restore(cls, config: dict[str, Any], weights: Mapping[str, Tensor], **_: nn.Module) -> Lexical:
        """Build the view that was saved."""
        return cls(weights["keys"], weights["frequency"], **config)
