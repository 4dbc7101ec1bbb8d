"""Encoders: queries and candidates to vectors, as sentence-transformers modules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from sigmax.data.dataset import MatchDataset
from sigmax.encoders.labels import LabelTable
from sigmax.encoders.ngrams import NgramEmbedding
from sigmax.encoders.pretrained import is_static, load_pretrained
from sigmax.errors import DataError

__all__ = ["ENCODERS", "LabelTable", "NgramEmbedding", "Towers", "build_towers", "load_encoder", "save_encoder"]


@dataclass(frozen=True)
class Towers:
    """Encoders of the two sides, and the similarity that suits their vectors."""

    query: nn.Module
    candidate: nn.Module | None  #: None: the query encoder encodes candidates too
    similarity: str  #: "cosine" or "dot"


@dataclass(frozen=True)
class Defaults:
    """Training settings that suit an encoder, chosen on the dev splits of several data sets."""

    epochs: float
    learning_rate: float
    logit_scale: float
    #: AdamW's ε. Far above the gradients of rare n-grams it keeps their steps small, as in SGD; the usual 1e-8 would
    #: move every n-gram alike, however seldom it was seen.
    epsilon: float = 1e-8
    label_rate: float = 1.0  #: rate of a label table's vectors, as a multiple
    scale_rate: float = 0.1  #: rate of scale and bias, as a multiple
    #: Threads on a CPU, None for PyTorch's choice. The operations on a table are so small that threads wait for each
    #: other: one is as fast on an idle machine and many times faster on a busy one.
    threads: int | None = 1


@dataclass(frozen=True)
class Encoder:
    """A way to build the towers for a data set."""

    name: str
    describes: str
    build: Callable[[MatchDataset, int, bool], Towers]  #: data, seed, two towers
    labels: Defaults  #: for fixed labels
    texts: Defaults | None  #: for candidates that are texts; None: cannot


def _ngrams(data: MatchDataset, seed: int, two_towers: bool) -> Towers:
    texts = _training_texts(data)
    if not data.labels:
        texts += data.candidates
        shared = NgramEmbedding.fit(texts, seed=seed, dimension=128)
        other = NgramEmbedding.fit(texts, seed=seed, dimension=128) if two_towers else None
        return Towers(shared, other, "cosine")
    dimension = max(256, len(data.candidates))
    query = NgramEmbedding.fit(texts, seed=seed, least=2, dimension=dimension, digits_alike=True)
    # As far from each other as they can be: no two labels begin alike.
    vectors = torch.empty(len(data.candidates), query.dimension)
    nn.init.orthogonal_(vectors, generator=torch.Generator().manual_seed(seed))
    return Towers(query, LabelTable(data.candidates, vectors), "cosine")


def _ngrams_linear(data: MatchDataset, seed: int, two_towers: bool) -> Towers:
    if not data.labels:
        raise DataError("The encoder ngrams-linear has one weight a label: it needs data with columns text and labels.")
    query = NgramEmbedding.fit(
        _training_texts(data), seed=seed, least=2, dimension=len(data.candidates), digits_alike=True
    )
    nn.init.zeros_(query.table.weight)  # logistic regression: an n-gram says only what training taught it
    return Towers(query, LabelTable(data.candidates, torch.eye(len(data.candidates)), frozen=True), "dot")


def _pretrained(name: str, data: MatchDataset, seed: int, two_towers: bool) -> Towers:
    query = load_pretrained(name)
    if not data.labels:
        return Towers(query, load_pretrained(name) if two_towers else None, "cosine")
    return Towers(query, LabelTable(data.candidates, _label_vectors(query, data)), "cosine")


ENCODERS: dict[str, Encoder] = {
    entry.name: entry
    for entry in (
        Encoder(
            "ngrams",
            "words, word pairs and character n-grams, trained from scratch (default)",
            _ngrams,
            labels=Defaults(15, 0.05, 10.0, epsilon=1e-2, label_rate=0.1),
            texts=Defaults(6, 0.03, 10.0),
        ),
        Encoder(
            "ngrams-linear",
            "the same with one weight a label and n-gram (fixed labels only)",
            _ngrams_linear,
            labels=Defaults(15, 3.0, 1.0, epsilon=1e-2),
            texts=None,
        ),
    )
}
_STATIC = Defaults(15, 0.005, 10.0)
_TRANSFORMER = Defaults(4, 5e-5, 20.0, label_rate=20.0, scale_rate=100.0, threads=None)


def defaults_of(encoder: str, data: MatchDataset) -> Defaults:
    """Return the training settings that suit an encoder on a data set."""
    if encoder not in ENCODERS:
        return _STATIC if is_static(Path(encoder)) else _TRANSFORMER
    entry = ENCODERS[encoder]
    return entry.labels if data.labels else entry.texts or entry.labels


def build_towers(encoder: str, data: MatchDataset, *, seed: int = 0, two_towers: bool = False) -> Towers:
    """Build the encoders of both sides for a data set.

    Args:
        encoder: a name in `ENCODERS`, or a sentence-transformers model by name or path, or a folder of static vectors.
        data: labels get a table of vectors; texts an encoder, the queries' own unless `two_towers`.
        seed: of vectors that start at random.
        two_towers: give candidates that are texts an encoder of their own.

    Raises:
        DataError: an encoder that does not load or does not fit the data.
    """
    if two_towers and data.labels:
        raise DataError("Labels have a table of vectors, not an encoder: two towers need candidates that are texts.")
    if encoder in ENCODERS:
        return ENCODERS[encoder].build(data, seed, two_towers)
    return _pretrained(encoder, data, seed, two_towers)


def label_text(name: str) -> str:
    """Return a label's name as text: underscores and camel case become spaces."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-/.]+", " ", name).strip() or name


def _training_texts(data: MatchDataset) -> list[str]:
    return [data.queries[i] for i in data.split("train")]


@torch.no_grad()
def _label_vectors(encoder: nn.Module, data: MatchDataset) -> torch.Tensor:
    encoder.eval()
    features = encoder.preprocess([label_text(name) for name in data.candidates])  # type: ignore[operator]
    vectors: torch.Tensor = encoder(features)["sentence_embedding"].clone()
    encoder.train()
    return F.normalize(vectors, dim=-1)


# -- files --------------------------------------------------------------------------------------

_OURS = {f"{module.__module__}.{module.__name__}": module for module in (NgramEmbedding, LabelTable)}


def save_encoder(encoder: nn.Module, folder: Path) -> None:
    """Write an encoder as a sentence-transformers model folder."""
    folder.mkdir(parents=True)
    kind = f"{type(encoder).__module__}.{type(encoder).__name__}"
    if kind not in _OURS:
        encoder.save(str(folder), create_model_card=False)  # type: ignore[operator]
        return
    encoder.save(str(folder))  # type: ignore[operator]
    modules = [{"idx": 0, "name": "0", "path": "", "type": kind}]
    (folder / "modules.json").write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")


def load_encoder(folder: Path) -> nn.Module:
    """Read an encoder that `save_encoder` wrote.

    Raises:
        DataError: not a sentence-transformers model folder.
    """
    listing = folder / "modules.json"
    if not listing.exists():
        raise DataError(f"{folder}: expected a sentence-transformers model folder, got one without modules.json.")
    kind = json.loads(listing.read_text(encoding="utf-8"))[0]["type"]
    if kind in _OURS:
        return _OURS[kind].load(str(folder))
    return load_pretrained(str(folder))
