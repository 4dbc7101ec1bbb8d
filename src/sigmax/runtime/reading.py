"""Texts -> what an exported network takes; NumPy and tokenizers alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Ints
from sigmax.encoders.hashing import NgramFeatures
from sigmax.encoders.shared_words import TokenCounts
from sigmax.encoders.tokens import kind_of
from sigmax.errors import lookup

__all__ = ["READERS", "Reader", "SharedWords", "reader_of"]

Feeds = dict[str, NDArray[Any]]


class Reader(Protocol):
    """Turns texts into the network's inputs, and tells how many numbers the largest of a text's rows will take."""

    def read(self, texts: Sequence[str]) -> Feeds:
        """Texts in their normal form -> inputs by name."""


class Bags:
    """Rows of a table and their weights: ids (b, l) and weights (b, l), 0 where a text has no more."""

    def __init__(self, bag: Callable[[Sequence[str]], list[tuple[Ints, NDArray[np.float32]]]]) -> None:
        self.bag = bag

    @classmethod
    def ngrams(cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Bags:
        """Read n-grams of a vocabulary."""
        kept = {**settings, "words": tuple(settings["words"]), "characters": tuple(settings["characters"])}
        return cls(NgramFeatures(arrays["buckets"], arrays["idf"], **kept).of)

    @classmethod
    def tokens(cls, settings: Mapping[str, Any], _: Mapping[str, NDArray[Any]]) -> Bags:
        """Read tokens, whose vectors are averaged."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(settings["tokenizer"])
        tokenizer.no_padding()

        def bag(texts: Sequence[str]) -> list[tuple[Ints, NDArray[np.float32]]]:
            found = [encoding.ids for encoding in tokenizer.encode_batch(list(texts), add_special_tokens=False)]
            return [(np.array(ids, np.int64), np.full(len(ids), 1 / max(1, len(ids)), np.float32)) for ids in found]

        return cls(bag)

    def read(self, texts: Sequence[str]) -> Feeds:
        """Return ids and weights."""
        found = self.bag(texts)
        lengths = np.array([len(ids) for ids, _ in found])
        ids = np.zeros((len(found), max(1, lengths.max())), np.int64)
        weights = np.zeros(ids.shape, np.float32)
        inside = np.arange(ids.shape[1]) < lengths[:, None]
        ids[inside] = np.concatenate([one for one, _ in found])
        weights[inside] = np.concatenate([one for _, one in found])
        return {"ids": ids, "weights": weights}


class Encodings:
    """What a transformer takes: token ids, padded to the longest text, and masks beside them."""

    def __init__(self, settings: Mapping[str, Any], _: Mapping[str, NDArray[Any]]) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_str(settings["tokenizer"])
        self.inputs: dict[str, str] = dict(settings["inputs"])  # the network's name -> an attribute of an encoding

    def read(self, texts: Sequence[str]) -> Feeds:
        """Return the inputs that the network names."""
        found = self.tokenizer.encode_batch(list(texts))
        return {
            name: np.array([getattr(one, attribute) for one in found], np.int64)
            for name, attribute in self.inputs.items()
        }


#: What reads texts for a network, by name.
READERS: dict[str, Callable[[Mapping[str, Any], Mapping[str, NDArray[Any]]], Reader]] = {
    "ngrams": Bags.ngrams,
    "tokens": Bags.tokens,
    "encodings": Encodings,
}


def reader_of(settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Reader:
    """Build the reader of an exported model from its settings."""
    kept = dict(settings)
    return lookup(READERS, kept.pop("kind"), "reader")(kept, arrays)


class SharedWords(TokenCounts):
    """The lexical view with the weights that training left: `Lexical` without PyTorch."""

    def __init__(self, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        given = dict(settings)
        super().__init__(given.pop("stemmer"), **given)
        self.keys, self.known = arrays["lexical_keys"], arrays["lexical_weights"]
        self.unknown = arrays["lexical_unknown"]  # (kinds,) of tokens that no candidate of the fit had

    def weight_values(self, keys: Ints) -> NDArray[np.float32]:
        """(k,) weights of tokens."""
        weights: NDArray[np.float32] = self.unknown[kind_of(keys)]
        if len(self.keys):
            places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
            weights = np.where(self.keys[places] == keys, self.known[places], weights)
        return weights
