"""Comparisons with known values."""

import numpy as np

from sigmax.comparison.contenders import CONTENDERS
from sigmax.comparison.results import Budget, Comparison, Result
from sigmax.data.check import Answers, Check
from sigmax.metrics.registry import METRICS, groups

NONE = [metric.name for metric in groups()["none of these"]]
PRESENCE = [metric.name for metric in groups()["presence"]]
#: Counts of what may be wrong with a data set.
FAULTS = (
    "unused_candidates",
    "untrained_candidates",
    "duplicate_queries",
    "conflicting_queries",
    "leaked_queries",
    "duplicate_candidates",
    "lookalikes",
    "conflicts",
)


def scripted(values, *, spread=0.001, without=(), data="tiny", dev=None, several=0.4, **facts):
    """A comparison of known metrics: 0.5 where nothing is said, each with draws of its own around it."""
    results = []
    for number_, (name, given) in enumerate(values.items()):
        random = np.random.default_rng(number_)
        known = {metric: given.get(metric, 0.5) for metric in METRICS if metric not in without}
        draws = {
            metric: np.append(value, value + spread * random.standard_normal(1000)) for metric, value in known.items()
        }
        on_dev = {**known, **(dev or {}).get(name, {})}
        results.append(Result(CONTENDERS[name], None, [], on_dev, draws, [], 1.25))
    facts = {
        "name": data,
        "fingerprint": "0123456789abcdef",
        "queries": 1234,
        "candidates": 56,
        "pairs": 2000,
        "wrong_pairs": 0,
        "labels": False,
        "splits": {"train": 984, "dev": 125, "test": 125},
        "unanswered": dict.fromkeys(("train", "dev", "test"), 0 if set(NONE) <= set(without) else 20),
        "answers": Answers(1.75, 1.0, 9, several),
        **dict.fromkeys(FAULTS, 0),
        "leaked_queries": 3,
        "lookalike": None,
        "notes": (),
        "false_negatives": {},
        "pictures": None,
        **facts,
    }
    return Comparison(Check(**facts), "ngrams", "map", 100, 128, Budget(), results)
