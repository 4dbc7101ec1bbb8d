"""The parts of a data set: what people call them, and making those that are missing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from sigmax.data.dataset import SPLITS, Indices, seeded_split
from sigmax.errors import DataError, nearest

__all__ = ["SPLIT_NAMES", "complete", "split_in", "split_of"]

#: How people name the parts of a data set, in any case, and what we call them.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "valid": "dev",
    "val": "dev",
    "validation": "dev",
    "test": "test",
    "testing": "test",
}


def split_in(name: str) -> str | None:
    """Return our name of the split that one of the words in a name stands for, as in Train, test_set or train2017.

    None where no word does, or words of several splits.
    """
    words = re.findall("[a-z]+", name.lower())
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def split_of(name: Any, where: str) -> str:
    """Return our name of a split.

    Raises:
        DataError: a name that is not in `SPLIT_NAMES`; says where and the nearest.
    """
    known = name.strip().lower() if isinstance(name, str) else ""
    if known not in SPLIT_NAMES:
        raise DataError(
            f"{where}: expected split to be one of {', '.join(SPLIT_NAMES)}, got {name!r}."
            f"{nearest(str(name), SPLIT_NAMES)}"
        )
    return SPLIT_NAMES[known]


def complete(parts: Sequence[str | None], keys: Sequence[str], seed: int) -> dict[str, Indices]:
    """Given splits where they are complete; where one is missing, made from the queries by seed.

    Without any, all queries are split; with one alone (as many retrieval sets come, and tables called train), it is
    split; without dev, a tenth of train becomes dev; without test, half of dev becomes test.

    Args:
        parts: of each query its split, or None.
        keys: equal for equal queries, which stay together in what is made.
        seed: of what is made.
    """
    part = np.fromiter((-1 if one is None else SPLITS.index(one) for one in parts), dtype=np.int8, count=len(parts))
    given = {name: np.flatnonzero(part == number) for number, name in enumerate(SPLITS)}
    free = np.flatnonzero(part < 0)

    def divide(name: str, into: str, share: float) -> None:
        """Leave a share of a given split there and move the rest."""
        whole = given[name]
        made = seeded_split((keys[i] for i in whole.tolist()), seed=seed, shares=(share, 1 - share))
        given[name] = whole[made["train"]]
        given[into] = whole[np.concatenate([made["dev"], made["test"]])]

    has = {name: len(indices) > 0 for name, indices in given.items()}
    if sum(has.values()) == 1 and not (has["train"] and len(free)):
        free, given = np.arange(len(parts)), {name: part[:0].astype(np.int64) for name in SPLITS}
    elif has["train"] and not has["dev"]:
        divide("train", "dev", 0.9)
    elif has["train"] and not has["test"] and not len(free):
        divide("dev", "test", 0.5)
    if len(free):
        made = seeded_split((keys[i] for i in free.tolist()), seed=seed)
        for name in SPLITS:
            given[name] = np.concatenate([given[name], free[made[name]]])
    return {name: np.sort(indices) for name, indices in given.items()}
