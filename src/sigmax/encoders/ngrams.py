"""Hashed words, word pairs and character n-grams, weighted as in tf-idf and summed to a vector as in fastText.

Trained from scratch in seconds on a CPU; nothing to download. The features are scikit-learn's, computed without
importing it; only the sum is ours.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any

import mmh3
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from sigmax.data.normal import normal
from sigmax.data.texts import digest
from sigmax.encoders.module import Module

__all__ = ["NgramEmbedding"]

#: Buckets of the hash, for words and for characters each: so many that collisions are rare.
BUCKETS = 2**20
#: Bytes of features that are kept for the next epoch.
CACHED_BYTES = 2**30
#: Bytes of a dict's entry with a text and two arrays, beside what is in them.
ENTRY_BYTES = 512
#: Longest run of words or characters.
LONGEST = 100
#: Texts whose n-grams are counted at a time.
BLOCK = 2**14

_WORD = re.compile(r"(?u)\b\w+\b")


def _bucket(ngram: str) -> int:
    """Return the bucket that scikit-learn's HashingVectorizer gives an n-gram."""
    return abs(mmh3.hash(ngram)) % BUCKETS


@lru_cache(2**16)
def _character_buckets(word: str, shortest: int, longest: int) -> NDArray[np.int64]:
    """Buckets of a word's character n-grams, a space at either edge; a word shorter than an n-gram counts once."""
    padded = f" {word} "
    found: list[int] = []
    for size in range(shortest, longest + 1):
        found.extend(_bucket(padded[start : start + size]) for start in range(max(1, len(padded) - size + 1)))
        if len(padded) <= size:
            break
    return BUCKETS + np.array(found, np.int64)


class NgramEmbedding(Module):
    """text -> Σ_g w_g · E_g over its n-grams g, a sentence-transformers module.

    w_g = (1 + log tf_g) · idf_g, scaled so that the words' w and the characters' w have length 1/√2 each
    (scikit-learn's sublinear tf-idf), and one constant n-gram of weight 1 in every text. An n-gram not in the
    vocabulary has no row and is passed over.

    Args:
        buckets: (v,) sorted hash buckets that have a row in the table.
        idf: (v,) inverse document frequency of each.
        dimension: width of the vector.
        words: shortest and longest run of words.
        characters: shortest and longest run of characters inside words, spaces at their edges included.
        digits_alike: read every digit as 0: "7pm" and "9pm" say the same.

    Raises:
        ValueError: a run shorter than 1 or longer than `LONGEST`, or the shortest above the longest.
    """

    buckets: Tensor
    idf: Tensor

    def __init__(
        self,
        buckets: NDArray[np.int64] | Tensor,
        idf: NDArray[np.float32] | Tensor,
        *,
        dimension: int = 256,
        words: tuple[int, int] = (1, 2),
        characters: tuple[int, int] = (2, 5),
        digits_alike: bool = False,
    ) -> None:
        super().__init__()
        self.words = tuple(map(operator.index, words))
        self.characters = tuple(map(operator.index, characters))
        for name, (shortest, longest) in (("words", self.words), ("characters", self.characters)):
            if not 1 <= shortest <= longest <= LONGEST:
                raise ValueError(
                    f"Expected `{name}` to be the shortest and the longest run, from 1 to {LONGEST}, got "
                    f"{shortest, longest}."
                )
        self.dimension = dimension
        self.digits_alike = digits_alike
        self.register_buffer("buckets", torch.as_tensor(buckets, dtype=torch.int64))
        self.register_buffer("idf", torch.as_tensor(idf, dtype=torch.float32))
        # One more row for the constant: a text without any known n-gram still has a vector.
        start = torch.empty(len(self.buckets) + 1, dimension)  # `fit` or `restore` fills it
        self.table = nn.EmbeddingBag.from_pretrained(start, freeze=False, mode="sum")
        self._cache: dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}
        self._cached = 0  # bytes

    @classmethod
    def fit(
        cls, texts: Iterable[str], *, seed: int = 0, least: int = 1, most: int | None = None, **settings: Any
    ) -> NgramEmbedding:
        """Make the vocabulary of the n-grams in `texts`, with their document frequencies.

        Vectors start from a normal distribution of length about 1.

        Args:
            texts: the training queries and the candidates; read once, some at a time.
            seed: of the starting vectors.
            least: texts that an n-gram must occur in.
            most: n-grams, at most: the most frequent, as far as those of equal frequency all fit; None for all.
            settings: dimension, words, characters, digits_alike.
        """
        empty = cls(np.empty(0, np.int64), np.empty(0, np.float32), **settings)
        seen: set[bytes] = set()
        frequency = np.zeros(2 * BUCKETS, dtype=np.int64)
        source = map(normal, texts)
        while block := {digest(text): text for text in islice(source, BLOCK)}:
            new = [text for key, text in block.items() if key not in seen]
            seen.update(block)
            if new:
                frequency += np.bincount(empty._counts(new)[1], minlength=2 * BUCKETS)
        if most is not None and (frequency >= least).sum() > most:
            least = int(np.partition(frequency, -most - 1)[-most - 1]) + 1
        buckets = np.flatnonzero(frequency >= least)
        idf = np.log((1 + len(seen)) / (1 + frequency[buckets])) + 1
        made = cls(buckets, idf.astype(np.float32), **settings)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            nn.init.normal_(made.table.weight, std=made.dimension**-0.5, generator=generator)
        return made

    # -- texts to features -----------------------------------------------------------------------

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """Texts -> input_ids (k,), weights (k,) and offsets (b,): the n-grams of all texts one after the other."""
        texts = [(prompt or "") + text for text in inputs]
        missing = [text for text in dict.fromkeys(texts) if text not in self._cache]
        made = dict(zip(missing, self._features(missing), strict=True)) if missing else {}
        found = [made.get(text) or self._cache[text] for text in texts]
        for text, (ids, weights) in made.items():
            size = ids.nbytes + weights.nbytes + len(text) + ENTRY_BYTES
            if self._cached + size <= CACHED_BYTES:
                self._cached += size
                self._cache[text] = made[text]
        lengths = np.array([len(ids) for ids, _ in found], dtype=np.int64)
        return {
            "input_ids": torch.from_numpy(np.concatenate([ids for ids, _ in found], dtype=np.int64)),
            "weights": torch.from_numpy(np.concatenate([weights for _, weights in found], dtype=np.float32)),
            "offsets": torch.from_numpy(np.append(0, lengths.cumsum()[:-1])),
        }

    def _features(self, texts: Sequence[str]) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        rows, buckets, frequency = self._counts(texts)
        known = self.buckets.cpu().numpy()
        place = np.searchsorted(known, buckets)
        hit = np.append(known, -1)[place] == buckets
        rows, ids, is_word = rows[hit], place[hit], buckets[hit] < BUCKETS
        weights = (1 + np.log(frequency[hit])) * self.idf.cpu().numpy()[ids]
        length = np.sqrt(2 * np.bincount(rows * 2 + is_word, weights**2, 2 * len(texts)))
        weights /= length[rows * 2 + is_word]
        ends = np.searchsorted(rows, np.arange(len(texts) + 1))
        constant = np.array([len(known)], np.int64), np.ones(1, np.float32)
        return [
            (
                np.concatenate([ids[start:end], constant[0]]),
                np.concatenate([weights[start:end].astype(np.float32), constant[1]]),
            )
            for start, end in pairwise(ends)
        ]

    def _counts(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Rows, buckets and frequencies of the n-grams that occur, by row and bucket: words first, then characters."""
        found = [self._buckets(text) for text in texts]
        rows = np.repeat(np.arange(len(texts)), [len(buckets) for buckets in found])
        cells = rows * (2 * BUCKETS) + np.concatenate([np.empty(0, np.int64), *found])
        cells, frequency = np.unique(cells, return_counts=True)
        return *np.divmod(cells, 2 * BUCKETS), frequency

    def _buckets(self, text: str) -> NDArray[np.int64]:
        """Hashed n-grams of a text as scikit-learn's analyzers find them, "word" and then "char_wb"."""
        text = (re.sub(r"\d", "0", text) if self.digits_alike else text).lower()
        words = _WORD.findall(text)
        shortest, longest = self.words
        runs = [
            _bucket(" ".join(words[start : start + size]))
            for size in range(shortest, longest + 1)
            for start in range(len(words) - size + 1)
        ]
        characters = [_character_buckets(word, *self.characters) for word in text.split()]
        return np.concatenate([np.array(runs, np.int64), *characters])

    # -- features to vectors ---------------------------------------------------------------------

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Add "sentence_embedding" (b, dimension) to the features."""
        weights = features["weights"].to(self.table.weight.dtype)
        features["sentence_embedding"] = self.table(features["input_ids"], features["offsets"], weights)
        return features

    def matrix(self, texts: Sequence[str]) -> sparse.csr_array:
        """(b, v + 1) the features of texts, one column per row of the table."""
        features = self.preprocess(texts)
        ids, starts, weights = (features[name].numpy() for name in ("input_ids", "offsets", "weights"))
        return sparse.csr_array((weights, ids, np.append(starts, len(ids))), (len(texts), self.table.num_embeddings))

    def resize(self, table: Tensor) -> None:
        """Take other vectors of the same n-grams, of any width."""
        self.table = nn.EmbeddingBag.from_pretrained(table, freeze=False, mode="sum")
        self.dimension = table.shape[1]

    def get_embedding_dimension(self) -> int:
        """Return the width of the vectors."""
        return self.dimension

    def config(self) -> dict[str, Any]:
        """Return the arguments beside the vocabulary."""
        return {name: getattr(self, name) for name in ("dimension", "words", "characters", "digits_alike")}

    @classmethod
    def restore(cls, config: dict[str, Any], weights: Mapping[str, Tensor], **_: nn.Module) -> NgramEmbedding:
        """Build an encoder of the saved vocabulary."""
        return cls(weights["buckets"], weights["idf"], **config)
