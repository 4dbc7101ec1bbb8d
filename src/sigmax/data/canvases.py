"""Canvases of several small pictures, or of none: multi-label data made from any set of labelled small pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sigmax.data.dataset import SPLITS, Indices, MatchDataset
from sigmax.data.pictures import Picture

__all__ = ["EMPTY", "bundled_digits", "canvases", "digits"]

#: Share of canvases with nothing on them.
EMPTY = 0.08
#: Most pictures on a canvas: two rows of two.
MOST = 4


def canvases(
    name: str,
    images: NDArray[np.uint8],
    kinds: Indices,
    labels: Sequence[str],
    parts: Mapping[str, Indices],
    sizes: Mapping[str, int],
    *,
    slack: int,
    seed: int = 0,
) -> MatchDataset:
    """Make canvases of 0 to 4 pictures each; a canvas is labelled with the set of what is on it.

    A canvas is two by two cells; a picture lies anywhere inside its cell. `EMPTY` of the canvases have none, the
    others 1, 2, 3 or 4 with equal chance. A kind may be there twice, which counts once.

    Args:
        name: of the data set.
        images: (n, h, w) white on black.
        kinds: (n,) place in `labels`.
        labels: names of the kinds.
        parts: "train", "dev", "test" -> places of the images that its canvases are made of.
        sizes: "train", "dev", "test" -> number of canvases.
        slack: by how many pixels a cell is wider and higher than a picture.
        seed: of everything drawn.
    """
    random = np.random.default_rng(seed)
    height, width = images.shape[1] + slack, images.shape[2] + slack
    queries: list[Picture] = []
    pairs: list[tuple[int, int]] = []
    splits: dict[str, Indices] = {}
    for part in SPLITS:
        splits[part] = np.arange(len(queries), len(queries) + sizes[part])
        for number in range(sizes[part]):
            canvas = np.zeros((2 * height, 2 * width), np.uint8)
            count = 0 if random.random() < EMPTY else int(random.integers(1, MOST + 1))
            cells = random.permutation(4)[:count]
            drawn = random.choice(parts[part], count)
            for cell, place in zip(cells.tolist(), drawn.tolist(), strict=True):
                down = cell // 2 * height + int(random.integers(slack + 1))
                right = cell % 2 * width + int(random.integers(slack + 1))
                canvas[down : down + images.shape[1], right : right + images.shape[2]] = images[place]
            pairs += [(len(queries), int(kind)) for kind in np.unique(kinds[drawn])]
            queries.append(Picture(f"{part} {number + 1}", canvas))
    return MatchDataset(name, queries, list(labels), np.array(pairs), splits, labels=True)


def bundled_digits() -> tuple[NDArray[np.uint8], Indices, dict[str, Indices]]:
    """Return scikit-learn's handwritten digits (8 × 8; Alpaydin and Kaynak 1998), what each is, and their parts.

    The file holds the digits of 13 writers one writer after the other: train, dev and test are its first 9, next 2 and
    last 2 thirteenths, so that test is in hands that training has not seen.
    """
    from sklearn.datasets import load_digits

    bundled: Any = load_digits()
    images = np.rint(bundled.images * (255 / 16)).astype(np.uint8)
    bounds = (len(images) * np.array([9, 11]) // 13).tolist()
    parts = dict(zip(SPLITS, np.split(np.arange(len(images)), bounds), strict=True))
    return images, bundled.target.astype(np.int64), parts


def digits(sizes: Mapping[str, int] | None = None) -> MatchDataset:
    """Canvases of `bundled_digits`, each part of its own writers'."""
    images, kinds, parts = bundled_digits()
    sizes = sizes or {"train": 6000, "dev": 1000, "test": 2000}
    return canvases("digits", images, kinds, "0123456789", parts, sizes, slack=2)
