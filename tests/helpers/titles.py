"""A data set of made titles, for what searches candidates."""

import numpy as np

from sigmax.data import MatchDataset

WORDS = [
    "moon",
    "sun",
    "fire",
    "sea",
    "tree",
    "stone",
    "comet",
    "cloud",
    "river",
    "light",
    "night",
    "day",
    "wind",
    "rain",
]


def made(m=400, queries=120, seed=0):
    """Titles of three words, and queries of two of them; one in five of other words."""
    random = np.random.default_rng(seed)
    titles = [" ".join(random.choice(WORDS, 3, replace=False)) + f" {j}" for j in range(m)]
    right = random.integers(m, size=queries)
    answered = random.random(queries) < 0.8
    texts = [
        " ".join(titles[j].split()[1:]) if there else " ".join(random.choice(WORDS, 2)) + " nothing"
        for j, there in zip(right, answered, strict=True)
    ]
    pairs = np.array([(i, j) for i, (j, there) in enumerate(zip(right, answered, strict=True)) if there])
    splits = {"train": np.arange(1), "dev": np.arange(1, queries // 2), "test": np.arange(queries // 2, queries)}
    return MatchDataset("made", texts, titles, pairs, splits, candidate_ids=[f"t{j}" for j in range(m)])
