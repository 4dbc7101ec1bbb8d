"""The lexical view of texts: BM25 over words, parts of words and pairs, with weights that training moves from there.

Beside an encoder, whose vectors know what training taught them, it sees what two texts share letter by letter: names,
numbers, codes, words that no training query had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from sigmax.arrays import Ints
from sigmax.encoders.module import Module
from sigmax.encoders.rows import rows_of
from sigmax.encoders.shared_words import BLOCK, TokenCounts, Tokens
from sigmax.encoders.tokens import KINDS, kind_of

__all__ = ["Lexical", "Tokens"]

#: Weight of a token of each kind before training. Pairs as in the sequential dependence model (Metzler & Croft 2005).
WEIGHTS = {"words": 1.0, "parts": 0.2, "pairs": 0.1}


class Lexical(TokenCounts, Module):
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

    tables = ("theta",)
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
        Module.__init__(self)
        if not (k1 >= 0 and 0 <= b <= 1):
            raise ValueError(f"Expected `k1` of at least 0 and `b` in [0, 1], got {k1} and {b}.")
        self.texts = texts
        TokenCounts.__init__(self, stemmer, mean_lengths=mean_lengths, k1=k1, b=b)
        self.register_buffer("keys", torch.as_tensor(keys, dtype=torch.int64))
        self.register_buffer("frequency", torch.as_tensor(frequency, dtype=torch.int64))
        self.theta = nn.Parameter(torch.zeros(len(self.keys)))
        self.log_weights = nn.Parameter(torch.tensor([WEIGHTS[kind] for kind in KINDS]).log())  # a

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
            theta = theta.masked_scatter(known, rows_of(self.theta, places[known]))
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
    def weight_values(self, keys: Ints) -> NDArray[np.float32]:
        """(k,) `weights` as an array."""
        values: NDArray[np.float32] = self.weights(keys).cpu().numpy()
        return values

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
