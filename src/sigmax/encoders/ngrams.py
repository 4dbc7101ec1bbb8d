"""Hashed words, word pairs and character n-grams, weighted as in tf-idf and summed to a vector as in fastText.

Trained from scratch in seconds on a CPU; nothing to download. The features are scikit-learn's; only the sum is ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from sigmax.data.texts import digest
from sigmax.encoders.places import module_folder

__all__ = ["NgramEmbedding"]

#: Buckets of the hash, for words and for characters each: so many that collisions are rare.
BUCKETS = 2**20
#: Bytes of features that are kept for the next epoch.
CACHED_BYTES = 2**30
#: Bytes of a dict's entry with a text and two arrays, beside what is in them.
ENTRY_BYTES = 512
#: Texts whose n-grams are counted at a time.
BLOCK = 2**14


class NgramEmbedding(nn.Module):
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
    """

    modalities = ("text",)
    save_in_root = True
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
        self.dimension = dimension
        self.words = tuple(words)
        self.characters = tuple(characters)
        self.digits_alike = digits_alike
        self.register_buffer("buckets", torch.as_tensor(buckets, dtype=torch.int64))
        self.register_buffer("idf", torch.as_tensor(idf, dtype=torch.float32))
        # One more row for the constant: a text without any known n-gram still has a vector.
        self.table = nn.EmbeddingBag(len(self.buckets) + 1, dimension, mode="sum")
        self._cache: dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}
        self._cached = 0  # bytes

    @classmethod
    def fit(cls, texts: Iterable[str], *, seed: int = 0, least: int = 1, **settings: Any) -> NgramEmbedding:
        """Make the vocabulary of the n-grams in `texts`, with their document frequencies.

        Vectors start from a normal distribution of length about 1.

        Args:
            texts: the training queries and the candidates; read once, some at a time.
            seed: of the starting vectors.
            least: texts that an n-gram must occur in.
            settings: dimension, words, characters, digits_alike.
        """
        empty = cls(np.empty(0, np.int64), np.empty(0, np.float32), **settings)
        seen: set[bytes] = set()
        frequency = np.zeros(2 * BUCKETS, dtype=np.int64)
        source = iter(texts)
        while block := {digest(text): text for text in islice(source, BLOCK)}:
            new = [text for key, text in block.items() if key not in seen]
            seen.update(block)
            if new:
                frequency += np.bincount(empty._counts(new).indices, minlength=2 * BUCKETS)
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
        counts = self._counts(texts)
        known = self.buckets.cpu().numpy()
        place = np.searchsorted(known, counts.indices)
        hit = np.append(known, -1)[place] == counts.indices
        rows = np.repeat(np.arange(len(texts)), np.diff(counts.indptr))[hit]
        ids, tf, is_word = place[hit], counts.data[hit], counts.indices[hit] < BUCKETS
        weights = (1 + np.log(tf)) * self.idf.cpu().numpy()[ids]
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

    def _counts(self, texts: Sequence[str]) -> sparse.csr_array:
        """(b, 2 · BUCKETS): how often each hashed n-gram occurs; words first, then characters."""
        if self.digits_alike:
            texts = [re.sub(r"\d", "0", text) for text in texts]
        blocks = [vectorizer.transform(texts) for vectorizer in self._vectorizers]
        counts = sparse.csr_array(sparse.hstack(blocks, format="csr"))
        counts.sort_indices()
        return counts

    @cached_property
    def _vectorizers(self) -> tuple[Any, Any]:
        from sklearn.feature_extraction.text import HashingVectorizer

        shared = {"n_features": BUCKETS, "alternate_sign": False, "norm": None}
        return (
            HashingVectorizer(analyzer="word", token_pattern=r"(?u)\b\w+\b", ngram_range=self.words, **shared),
            HashingVectorizer(analyzer="char_wb", ngram_range=self.characters, **shared),
        )

    # -- features to vectors ---------------------------------------------------------------------

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Add "sentence_embedding" (b, dimension) to the features."""
        weights = features["weights"].to(self.table.weight.dtype)
        features["sentence_embedding"] = self.table(features["input_ids"], features["offsets"], weights)
        return features

    def get_embedding_dimension(self) -> int:
        """Return the width of the vectors."""
        return self.dimension

    # -- files -----------------------------------------------------------------------------------

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write config.json and model.safetensors."""
        from safetensors.torch import save_file

        names = ("dimension", "words", "characters", "digits_alike")
        config = {name: getattr(self, name) for name in names}
        Path(output_path, "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_file(self.state_dict(), str(Path(output_path, "model.safetensors")))

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **given: Any) -> NgramEmbedding:
        """Read what `save` wrote; the arguments are those sentence-transformers gives its modules."""
        from safetensors.torch import load_file

        folder = module_folder(model_name_or_path, subfolder, **given)
        state = load_file(str(folder / "model.safetensors"))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        made = cls(state["buckets"], state["idf"], **config)
        made.load_state_dict(state)
        return made
