"""Hashed words, word pairs and character n-grams, weighted as in tf-idf and summed to a vector as in fastText.

Trained from scratch in seconds on a CPU; nothing to download. The features are scikit-learn's, computed without
importing it; only the sum is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from sigmax.encoders.hashing import NgramFeatures, checked_runs
from sigmax.encoders.module import Module
from sigmax.encoders.rows import add_rows

__all__ = ["NgramEmbedding"]


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

    tables = ("table.weight",)
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
        self.words, self.characters = checked_runs(words, characters)
        self.dimension = dimension
        self.digits_alike = digits_alike
        self.register_buffer("buckets", torch.as_tensor(buckets, dtype=torch.int64))
        self.register_buffer("idf", torch.as_tensor(idf, dtype=torch.float32))
        # One more row for the constant: a text without any known n-gram still has a vector.
        start = torch.empty(len(self.buckets) + 1, dimension)  # `fit` or `restore` fills it
        self.table = nn.EmbeddingBag.from_pretrained(start, freeze=False, mode="sum")
        self._features: NgramFeatures | None = None

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
        size = {"dimension": settings.pop("dimension")} if "dimension" in settings else {}
        return cls.start(NgramFeatures.fit(texts, least=least, most=most, **settings), seed=seed, **size)

    @classmethod
    def start(cls, features: NgramFeatures, *, seed: int = 0, dimension: int = 256) -> NgramEmbedding:
        """Make an encoder of a vocabulary that is there; encoders of one vocabulary read each text once."""
        settings = {name: getattr(features, name) for name in ("words", "characters", "digits_alike")}
        made = cls(features.buckets.copy(), features.idf.copy(), dimension=dimension, **settings)
        made._features = features
        with torch.no_grad():
            generator = torch.Generator().manual_seed(seed)
            nn.init.normal_(made.table.weight, std=made.dimension**-0.5, generator=generator)
        return made

    @property
    def features(self) -> NgramFeatures:
        """What makes ids and weights of texts."""
        if self._features is None:
            settings = {name: getattr(self, name) for name in ("words", "characters", "digits_alike")}
            self._features = NgramFeatures(self.buckets.cpu().numpy(), self.idf.cpu().numpy(), **settings)
        return self._features

    def _load_from_state_dict(self, *given: Any, **named: Any) -> None:
        super()._load_from_state_dict(*given, **named)
        kept = self._features
        same = kept is not None and np.array_equal(kept.buckets, self.buckets.cpu().numpy())
        if not (same and kept is not None and np.array_equal(kept.idf, self.idf.cpu().numpy())):
            self._features = None

    # -- texts to features -----------------------------------------------------------------------

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """Texts -> input_ids (k,), weights (k,) and offsets (b,): the n-grams of all texts one after the other."""
        found = self.features.of([(prompt or "") + text for text in inputs])
        lengths = np.array([len(ids) for ids, _ in found], dtype=np.int64)
        return {
            "input_ids": torch.from_numpy(np.concatenate([ids for ids, _ in found], dtype=np.int64)),
            "weights": torch.from_numpy(np.concatenate([weights for _, weights in found], dtype=np.float32)),
            "offsets": torch.from_numpy(np.append(0, lengths.cumsum()[:-1])),
        }

    # -- features to vectors ---------------------------------------------------------------------

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Add "sentence_embedding" (b, dimension) to the features."""
        weights = features["weights"].to(self.table.weight.dtype)
        features["sentence_embedding"] = add_rows(
            self.table.weight, features["input_ids"], features["offsets"], weights
        )
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
