"""Encoders: queries and candidates to vectors, as sentence-transformers modules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from sigmax.data.batches import OFFER_ALL
from sigmax.data.dataset import MatchDataset
from sigmax.data.pictures import Picture
from sigmax.encoders.frozen import FrozenEncoder
from sigmax.encoders.images import NETWORKS, PictureEncoder
from sigmax.encoders.labels import LabelTable
from sigmax.encoders.ngrams import NgramEmbedding
from sigmax.encoders.plan import Defaults, Encoder, Plan, Towers
from sigmax.encoders.pretrained import is_static, load_pretrained
from sigmax.errors import DataError

__all__ = ["ENCODERS", "build_towers", "default_encoder"]


def _ngrams(data: MatchDataset, plan: Plan) -> Towers:
    if not data.labels:

        def tower() -> NgramEmbedding:
            texts = chain(_training_texts(data), data.candidates)
            return NgramEmbedding.fit(texts, seed=plan.seed, dimension=128)

        return Towers(tower(), tower() if plan.two_towers else None, "cosine")
    dimension = max(256, len(data.candidates))
    query = NgramEmbedding.fit(_training_texts(data), seed=plan.seed, least=2, dimension=dimension, digits_alike=True)
    return Towers(query, _apart(data, query.dimension, plan.seed), "cosine")


def _ngrams_linear(data: MatchDataset, plan: Plan) -> Towers:
    if not data.labels:
        raise DataError("The encoder ngrams-linear has one weight a label: it needs data with columns text and labels.")
    query = NgramEmbedding.fit(
        _training_texts(data), seed=plan.seed, least=2, dimension=len(data.candidates), digits_alike=True
    )
    nn.init.zeros_(query.table.weight)  # logistic regression: an n-gram says only what training taught it
    return Towers(query, LabelTable(data.candidates, torch.eye(len(data.candidates)), frozen=True), "dot")


def _network(name: str) -> Callable[[MatchDataset, Plan], Towers]:
    entry = NETWORKS[name]

    def build(data: MatchDataset, plan: Plan) -> Towers:
        pictures = [query for query in data.queries[:_LOOKED_AT] if isinstance(query, Picture)]
        images = [picture.image() for picture in pictures]
        grey = "L" in entry.modes and all(image.mode == "L" for image in images)
        size = min(entry.size, max(max(image.size) for image in images))
        linear = plan.head == "linear"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            query: nn.Module = PictureEncoder(
                name,
                size=size,
                mode="L" if grey else "RGB",
                augment="none" if plan.frozen else plan.augment or ("upright" if size >= 32 else "none"),
                constant=linear and not plan.frozen,
            )
        return _headed(_frozen(query, data, plan) if plan.frozen else query, data, plan)

    return build


def _pretrained(name: str) -> Callable[[MatchDataset, Plan], Towers]:
    def build(data: MatchDataset, plan: Plan) -> Towers:
        query = load_pretrained(name)
        reads = list(query.modalities)  # type: ignore[arg-type]
        needed = "image" if data.pictures else "text"
        if needed not in reads:
            raise DataError(
                f"The encoder {name} reads {', '.join(map(str, reads))}; {data.name} needs one for {needed}s."
            )
        if not data.labels:
            return Towers(query, load_pretrained(name) if plan.two_towers else None, "cosine")
        label_vectors = _label_vectors(query, data) if "text" in reads else None
        if plan.frozen or plan.head == "linear":
            query = _frozen(query, data, plan)
        if plan.head == "linear" or label_vectors is None:
            return _headed(query, data, plan)
        return Towers(query, LabelTable(data.candidates, label_vectors), "cosine")

    return build


def _frozen(trunk: nn.Module, data: MatchDataset, plan: Plan) -> FrozenEncoder:
    """Keep an encoder as it is, with the vectors of all queries at hand."""
    query = FrozenEncoder(trunk, linear=plan.head == "linear")
    query.learn(data.queries, data.split("train"))
    return query


def _headed(query: nn.Module, data: MatchDataset, plan: Plan) -> Towers:
    """Vectors of the labels that suit the head, from nothing."""
    width: int = query.get_embedding_dimension()  # type: ignore[operator]
    if plan.head == "linear":
        return Towers(query, LabelTable(data.candidates, torch.zeros(len(data.candidates), width)), "dot")
    return Towers(query, _apart(data, width, plan.seed), "cosine")


def _apart(data: MatchDataset, dimension: int, seed: int) -> LabelTable:
    """As far from each other as they can be: no two labels begin alike."""
    vectors = torch.empty(len(data.candidates), dimension)
    nn.init.orthogonal_(vectors, generator=torch.Generator().manual_seed(seed))
    return LabelTable(data.candidates, vectors)


#: Pictures looked at to choose size and colour.
_LOOKED_AT = 200


ENCODERS: dict[str, Encoder] = {
    entry.name: entry
    for entry in (
        Encoder(
            "ngrams",
            "words, word pairs and character n-grams, trained from scratch (default for texts)",
            _ngrams,
            labels=Defaults(15, 0.05, 10.0, epsilon=1e-2, label_rate=0.1),
            texts=Defaults(6, 0.03, 10.0),
        ),
        Encoder(
            "ngrams-linear",
            "the same with one weight a label and n-gram (fixed labels only)",
            _ngrams_linear,
            labels=Defaults(15, 3.0, 1.0, epsilon=1e-2),
        ),
        Encoder(
            "convnet",
            NETWORKS["convnet"].describes + " (default for pictures)",
            _network("convnet"),
            labels=Defaults(3, 0.008, 10.0, threads=None, quick=False),
            pictures=True,
            heads=("cosine", "linear"),
        ),
        Encoder(
            "efficientnet-lite0",
            NETWORKS["efficientnet-lite0"].describes,
            _network("efficientnet-lite0"),
            labels=Defaults(8, 0.001, 10.0, label_rate=5.0, threads=None, quick=False),
            pictures=True,
            pretrained=True,
            heads=("cosine", "linear"),
        ),
    )
}


_STATIC = Defaults(15, 0.005, 10.0)


_TRANSFORMER = Defaults(4, 5e-5, 20.0, label_rate=20.0, scale_rate=100.0, threads=None, quick=False)


#: Where every batch offers all labels, a small one has as many wrong answers, and more steps: fine-tuning needs them.
_TRANSFORMER_LABELS = replace(_TRANSFORMER, epochs=5, learning_rate=1e-4, batch_size=16)


#: What comes after an encoder that stays as it is: one linear layer, or only the labels' vectors.
_FROZEN = Defaults(30, 0.002, 10.0, label_rate=1.0)


def default_encoder(data: MatchDataset) -> str:
    """Return the name of the encoder that data gets if none is asked for."""
    return "convnet" if data.pictures else "ngrams"


def defaults_of(encoder: str, data: MatchDataset, *, frozen: bool = False) -> Defaults:
    """Return the training settings that suit an encoder on a data set."""
    if frozen:
        return _FROZEN
    if encoder not in ENCODERS:
        if is_static(Path(encoder)):
            return _STATIC
        small = data.labels and not data.pictures and len(data.candidates) <= OFFER_ALL
        return _TRANSFORMER_LABELS if small else _TRANSFORMER
    entry = ENCODERS[encoder]
    return entry.labels if data.labels else entry.texts or entry.labels


def build_towers(encoder: str, data: MatchDataset, plan: Plan | None = None) -> Towers:
    """Build the encoders of both sides for a data set.

    Args:
        encoder: a name in `ENCODERS`, or a sentence-transformers model by name or path, or a folder of static vectors.
        data: labels get a table of vectors; texts an encoder, the queries' own unless two towers are asked for.
        plan: what is asked of them.

    Raises:
        DataError: an encoder that does not load or does not fit the data or the plan.
    """
    plan = plan or Plan()
    if plan.two_towers and data.labels:
        raise DataError("Labels have a table of vectors, not an encoder: two towers need candidates that are texts.")
    if (plan.head != "cosine" or plan.frozen) and not data.labels:
        raise DataError("A linear head, or training only what comes after a frozen encoder, needs fixed labels.")
    entry = ENCODERS.get(encoder)
    if entry is None:
        return _pretrained(encoder)(data, plan)
    if entry.pictures != data.pictures:
        fitting = ", ".join(other.name for other in ENCODERS.values() if other.pictures == data.pictures)
        raise DataError(
            f"The encoder {encoder} reads {'pictures' if entry.pictures else 'texts'}, {data.name} holds "
            f"{'pictures' if data.pictures else 'texts'}. Try {fitting}, or a sentence-transformers model."
        )
    if plan.frozen and not entry.pretrained:
        raise DataError(
            f"The encoder {encoder} starts from nothing: kept frozen it would never learn to tell anything."
        )
    if plan.head not in entry.heads:
        raise DataError(f"The encoder {encoder} has the head {' or '.join(entry.heads)}, got {plan.head}.")
    return entry.build(data, plan)


def label_text(name: str) -> str:
    """Return a label's name as text: underscores and camel case become spaces."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-/.]+", " ", name).strip() or name


def _training_texts(data: MatchDataset) -> Iterator[str]:
    return (str(data.queries[i]) for i in data.split("train"))


@torch.no_grad()
def _label_vectors(encoder: nn.Module, data: MatchDataset) -> torch.Tensor:
    encoder.eval()
    features = encoder.preprocess([label_text(name) for name in data.candidates])  # type: ignore[operator]
    vectors: torch.Tensor = encoder(features)["sentence_embedding"].clone()
    encoder.train()
    return F.normalize(vectors, dim=-1)
