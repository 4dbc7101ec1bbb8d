"""A small data set: words in phrases, and the things they belong to."""

import numpy as np

from sigmax.data.dataset import MatchDataset

THINGS = {
    "moon": ["night", "sky", "lunar", "crescent"],
    "sun": ["day", "sky", "solar", "warm"],
    "fire": ["warm", "hot", "burn", "flame"],
    "sea": ["water", "wave", "salt", "deep"],
    "tree": ["leaf", "wood", "green", "forest"],
    "bird": ["wing", "sky", "feather", "song"],
}


NOTHING = ["invoice", "carpet", "engine", "comma", "ledger", "modem"]


PHRASES = {"train": ["{}", "the {}", "a {}"], "dev": ["my {}"], "test": ["one {}"]}


def things(*, labels: bool = False, unanswered: bool = False) -> MatchDataset:
    """Words, each in five phrases, and the things they belong to: one of six, or several, or (if asked for) none."""
    words = list(dict.fromkeys(word for known in THINGS.values() for word in known)) + NOTHING * unanswered
    rows = [(split, phrase.format(word), word) for word in words for split in PHRASES for phrase in PHRASES[split]]
    return MatchDataset(
        "things",
        queries=[query for _, query, _ in rows],
        candidates=list(THINGS),
        pairs=np.array(
            [(i, j) for i, (_, _, word) in enumerate(rows) for j, known in enumerate(THINGS.values()) if word in known]
        ),
        splits={name: np.array([i for i, row in enumerate(rows) if row[0] == name]) for name in PHRASES},
        labels=labels,
    )
