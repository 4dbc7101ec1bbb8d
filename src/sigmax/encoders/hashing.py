"""Hashed words, word pairs and character n-grams of texts, weighted as in tf-idf; NumPy alone.

The features are scikit-learn's, computed without importing it. `NgramEmbedding` sums vectors by them, and so does an
exported model.
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
from numpy.typing import NDArray

from sigmax.data.normal import normal
from sigmax.data.texts import digest

__all__ = ["BUCKETS", "LONGEST", "NgramFeatures", "checked_runs"]

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

#: Ids and weights of a text's n-grams.
_Features = tuple[NDArray[np.int64], NDArray[np.float32]]
#: Rows, buckets and frequencies.
_Counts = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]

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


def checked_runs(words: Sequence[int], characters: Sequence[int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the shortest and the longest run of words and of characters.

    Raises:
        ValueError: a run shorter than 1 or longer than `LONGEST`, or the shortest above the longest.
    """
    checked = []
    for name, runs in (("words", words), ("characters", characters)):
        shortest, longest = map(operator.index, runs)
        if not 1 <= shortest <= longest <= LONGEST:
            raise ValueError(
                f"Expected `{name}` to be the shortest and the longest run, from 1 to {LONGEST}, got "
                f"{shortest, longest}."
            )
        checked.append((shortest, longest))
    return checked[0], checked[1]


class NgramFeatures:
    """Text -> the n-grams g of a vocabulary that it has, and their weights w_g.

    w_g = (1 + log tf_g) · idf_g, scaled so that the words' w and the characters' w have length 1/√2 each
    (scikit-learn's sublinear tf-idf), and one constant n-gram of weight 1 in every text.

    Args:
        buckets: (v,) sorted hash buckets.
        idf: (v,) inverse document frequency of each.
        words: shortest and longest run of words.
        characters: shortest and longest run of characters inside words, spaces at their edges included.
        digits_alike: read every digit as 0.
    """

    def __init__(
        self,
        buckets: NDArray[np.int64],
        idf: NDArray[np.float32],
        *,
        words: tuple[int, int] = (1, 2),
        characters: tuple[int, int] = (2, 5),
        digits_alike: bool = False,
    ) -> None:
        self.buckets, self.idf = np.asarray(buckets, np.int64), np.asarray(idf, np.float32)
        self.words, self.characters = checked_runs(words, characters)
        self.digits_alike = digits_alike
        self._known = np.append(self.buckets, -1)
        self._cache: dict[str, _Features] = {}
        self._bytes = 0

    @classmethod
    def fit(cls, texts: Iterable[str], *, least: int = 1, most: int | None = None, **settings: Any) -> NgramFeatures:
        """Make the vocabulary of the n-grams in `texts`, with their document frequencies.

        Args:
            texts: read once, some at a time; what was counted is kept for the epochs, as far as there is room.
            least: texts that an n-gram must occur in.
            most: n-grams that are kept, the most frequent; None: all.
            settings: words, characters, digits_alike.
        """
        empty = cls(np.empty(0, np.int64), np.empty(0, np.float32), **settings)
        seen: set[bytes] = set()
        frequency = np.zeros(2 * BUCKETS, dtype=np.int64)
        counted: list[tuple[list[str], _Counts]] = []
        room = CACHED_BYTES // 4  # counts are larger than the features that become of them
        source = map(normal, texts)
        while block := {digest(text): text for text in islice(source, BLOCK)}:
            new = [text for key, text in block.items() if key not in seen]
            seen.update(block)
            if new:
                found = empty.counts(new)
                frequency += np.bincount(found[1], minlength=2 * BUCKETS)
                room -= sum(one.nbytes for one in found)
                if room > 0:
                    counted.append((new, found))
        if most is not None and (frequency >= least).sum() > most:
            least = int(np.partition(frequency, -most - 1)[-most - 1]) + 1
        buckets = np.flatnonzero(frequency >= least)
        idf = np.log((1 + len(seen)) / (1 + frequency[buckets])) + 1
        made = cls(buckets, idf.astype(np.float32), **settings)
        for new, found in counted:
            made._keep(dict(zip(new, made._weigh(len(new), found), strict=True)))
        return made

    def __deepcopy__(self, _: Any) -> NgramFeatures:
        return self  # copies of an encoder read each text once

    def of(self, texts: Sequence[str]) -> list[_Features]:
        """Ids and weights of the n-grams of each text, the constant last; what was read before is remembered."""
        missing = [text for text in dict.fromkeys(texts) if text not in self._cache]
        made = dict(zip(missing, self._weigh(len(missing), self.counts(missing)), strict=True)) if missing else {}
        found = [made.get(text) or self._cache[text] for text in texts]
        self._keep(made)
        return found

    def _keep(self, made: Mapping[str, _Features]) -> None:
        for text, (ids, weights) in made.items():
            size = ids.nbytes + weights.nbytes + len(text) + ENTRY_BYTES
            if self._bytes + size > CACHED_BYTES:
                return
            self._bytes += size
            self._cache[text] = ids, weights

    def _weigh(self, texts: int, counts: _Counts) -> list[_Features]:
        rows, buckets, frequency = counts
        place = np.searchsorted(self.buckets, buckets)
        hit = self._known[place] == buckets
        rows, ids, is_word = rows[hit], place[hit], buckets[hit] < BUCKETS
        weights = (1 + np.log(frequency[hit])) * self.idf[ids]
        length = np.sqrt(2 * np.bincount(rows * 2 + is_word, weights**2, 2 * texts))
        weights /= length[rows * 2 + is_word]
        ends = np.searchsorted(rows, np.arange(texts + 1))
        constant = np.array([len(self.buckets)], np.int64), np.ones(1, np.float32)
        return [
            (
                np.concatenate([ids[start:end], constant[0]]),
                np.concatenate([weights[start:end].astype(np.float32), constant[1]]),
            )
            for start, end in pairwise(ends)
        ]

    def counts(self, texts: Sequence[str]) -> _Counts:
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
