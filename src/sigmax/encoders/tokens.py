"""The tokens of a text, in any script: what two texts can share letter by letter.

A word is a run of letters, marks and digits, casefolded and stemmed; its parts are the runs of four characters in it,
edges included, which words of one root, compounds and misspellings share; pairs are words that follow each other. Codes
count whole beside their words: "SKU-4711" is `sku`, `4711` and `sku-4711`. Scripts that put no spaces between words
give their characters and pairs of characters as words, as search engines do; an emoji is a word.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from sigmax.arrays import Ints
from sigmax.data.normal import normal
from sigmax.errors import lookup

__all__ = ["KINDS", "STEMMERS", "Tokenizer", "kind_of"]

#: What is counted in a text; the place is the kind's number.
KINDS = ("words", "parts", "pairs")

#: Languages whose words Snowball brings to their stems, beside "none".
STEMMERS = (
    *("none", "arabic", "danish", "dutch", "english", "finnish", "french", "german", "greek", "hungarian", "italian"),
    *("norwegian", "portuguese", "romanian", "russian", "spanish", "swedish", "turkish"),
)

#: Length of a part, in characters.
PART = 4

#: Scripts without spaces between words.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}ー"
_LETTER = rf"[[\p{{L}}\p{{M}}\p{{N}}_]--[{_UNSPACED}]]"
_PICTURE = r"\p{Extended_Pictographic}\p{EMod}?"
_RUN = (
    rf"[{_UNSPACED}][{_UNSPACED}\p{{M}}]*"
    rf"|{_LETTER}+(?:[-.:/_@]{_LETTER}+)*[+#]*"
    rf"|{_PICTURE}(?:\u200d{_PICTURE})*"
    r"|\p{RI}{2}"
)


class Tokenizer:
    """Text -> its words, their parts and pairs, as texts or as 64-bit keys.

    Args:
        stemmer: a name in `STEMMERS`.

    Example:
        >>> Tokenizer("english").words("Sorted by SKU-4711?")
        ['sort', 'by', 'sku', '4711', 'sku-4711']
        >>> Tokenizer("english").parts("Sorted by")
        [' sor', 'sort', 'orte', 'rted', 'ted ', ' by ']
        >>> Tokenizer("english").pairs("Sorted by SKU-4711?")
        ['sort by', 'by sku', 'sku 4711']
    """

    def __init__(self, stemmer: str = "none") -> None:
        lookup(dict.fromkeys(STEMMERS), stemmer, "stemmer")
        self.stemmer = stemmer
        self._stem = _stem_of(stemmer)

    def words(self, text: str) -> list[str]:
        """Words in the order of the text, each as often as it occurs."""
        return [word for run in _runs(text) for word in self._words(run)]

    def parts(self, text: str) -> list[str]:
        """Parts in the order of the text, each as often as it occurs."""
        return [part for run in _runs(text) for part in _parts(run)]

    def pairs(self, text: str) -> list[str]:
        """Pairs in the order of the text, each as often as it occurs."""
        stems = [stem for run in _runs(text) for stem in self._stems(run)]
        return list(map("{} {}".format, stems, stems[1:]))

    def count(self, texts: Sequence[str]) -> list[tuple[Ints, Ints]]:
        """Keys of the tokens of each text, sorted, and how often each occurs; see `kind_of`."""
        read: dict[str, tuple[list[int], list[int]]] = {}
        found = []
        for text in texts:
            keys: list[int] = []
            stems: list[int] = []
            for run in _runs(text):
                if run not in read:
                    read[run] = self._keys(run)
                keys += read[run][0]
                stems += read[run][1]
            found.append(np.unique(np.append(np.array(keys, np.int64), _pair_keys(stems)), return_counts=True))
        return [(keys, counts.astype(np.int64)) for keys, counts in found]

    def spelt(self, text: str) -> list[tuple[str, list[int]]]:
        """Words and pairs of the text as it spells them, casefolded, with their keys; a word's parts are with it."""
        runs = _runs(text)
        words = [(run, self._keys(run)[0]) for run in runs]
        stems = [(one, _key(stem, 0)) for run in runs for one, stem in zip(_spelt(run), self._stems(run), strict=True)]
        pair_keys = _pair_keys([key for _, key in stems]).tolist()
        pairs = zip(stems, stems[1:], pair_keys, strict=False)
        return [*words, *((f"{one} {other}", [key]) for (one, _), (other, _), key in pairs)]

    def _keys(self, run: str) -> tuple[list[int], list[int]]:
        """Keys of the words and parts of a run, and those of its stems."""
        tokens = (self._words(run), _parts(run))
        keys = [_key(token, kind) for kind, made in enumerate(tokens) for token in made]
        return keys, [_key(stem, 0) for stem in self._stems(run)]

    def _stems(self, run: str) -> list[str]:
        return [self._stem(word) for word in _spelt(run)]

    def _words(self, run: str) -> list[str]:
        if _pattern(f"[{_UNSPACED}]").match(run):
            return [*run, *map("".join, pairwise(run))]
        stems = self._stems(run)
        code = len(run) > len(_spelt(run)[0]) and (run[-1] in "+#" or any(character.isdigit() for character in run))
        return [*stems, run] if code else stems


def kind_of(keys: Ints) -> Ints:
    """Numbers of the kinds of keys, see `KINDS`: their last two bits."""
    return keys & 3


def _key(token: str, kind: int) -> int:
    """62 bits of a hash that is the same everywhere, and the kind. A million tokens collide with odds of 10⁻⁷."""
    hashed = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(hashed, "little", signed=True) & ~3 | kind


def _pair_keys(stems: Sequence[int]) -> Ints:
    """Keys of the pairs of neighbours, mixed from theirs as in splitmix64, so that order counts."""
    keys = np.array(stems, np.int64).view(np.uint64)
    mixed = keys[:-1] * np.uint64(0x9E3779B97F4A7C15) + keys[1:]
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    keyed: Ints = (mixed & ~np.uint64(3) | np.uint64(KINDS.index("pairs"))).view(np.int64)
    return keyed


def _runs(text: str) -> list[str]:
    plain = unicodedata.normalize("NFKC", normal(text)).casefold().replace("\ufe0f", "")
    found: list[str] = _pattern(_RUN).findall(plain)
    return found


def _spelt(run: str) -> list[str]:
    """Words of a run as they are spelt; an emoji is one, and a script without spaces has none."""
    if _pattern(f"[{_UNSPACED}]").match(run):
        return []
    return _pattern(f"{_LETTER}+").findall(run) or [run]


def _parts(run: str) -> list[str]:
    parts = []
    for word in _pattern(f"{_LETTER}+").findall(run):
        edged = f" {word} "
        parts += [edged[at : at + PART] for at in range(max(1, len(edged) - PART + 1))]
    return parts


def _stem_of(name: str) -> Callable[[str], str]:
    if name == "none":
        return str
    import Stemmer

    stem: Callable[[str], str] = Stemmer.Stemmer(name).stemWord
    return stem


@cache
def _pattern(expression: str) -> Any:
    import regex

    return regex.compile(expression, regex.V1)
