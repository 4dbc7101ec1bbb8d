"""A scorer with fixed logits, and data whose texts are numbers."""

import numpy as np

from sigmax.calibration.calibrator import Calibrator
from sigmax.data.dataset import MatchDataset
from sigmax.metrics.registry import METRICS
from sigmax.scan import Logits

#: Metrics that do not need what a model keeps of its training queries.
MEASURED = [name for name in METRICS if name not in ("none_auroc_familiarity", "false_alarms")]


class Scripted:
    """Fixed logits: the query's name is its row, the candidate's its column."""

    def __init__(self, logits, calibration=None, threshold=None):
        self.table = np.asarray(logits, np.float32)
        self.calibrator = None if calibration is None else Calibrator(calibration, (), threshold=threshold)
        self.asked = []

    @property
    def calibration(self):
        return self.calibrator.calibration

    @property
    def threshold(self):
        return self.calibrator.default_threshold

    def logits(self, queries, candidates):
        self.asked.append((list(queries), list(candidates)))
        return Logits(self.table[np.ix_([int(name) for name in queries], [int(name) for name in candidates])])


def numbered(right, splits=None):
    """A data set whose queries and candidates are named after their places."""
    right = np.asarray(right, bool)
    n, m = right.shape
    names = ("train", "dev", "test")
    return MatchDataset(
        "numbered",
        queries=[str(i) for i in range(n)],
        candidates=[str(j) for j in range(m)],
        pairs=np.argwhere(right),
        splits=splits or dict(zip(names, np.array_split(np.arange(n), 3), strict=True)),
    )


def random_case(n=90, m=12, unanswered=0.2, seed=0):
    random = np.random.default_rng(seed)
    right = random.random((n, m)) < 0.2
    right[random.random(n) < unanswered] = False
    if not unanswered:
        right[~right.any(1), 0] = True
    return numbered(right), random.normal(size=(n, m)) + 1.5 * right, right
