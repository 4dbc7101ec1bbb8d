"""What the last queries looked like, for /metrics: three or four numbers per query, and nothing else of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from sigmax.arrays import Floats
from sigmax.calibration.calibrator import Calibrator
from sigmax.server.metrics import Metrics

__all__ = ["QUERIES", "Window"]

#: Queries that a window holds.
QUERIES = 1000
#: Part of dev's queries that count as far out, by either end of any sign.
FAR = 0.05


class Window:
    """Signs of the last queries of a model, beside those of dev.

    Args:
        model: its name.
        metrics: where the window is told.
        size: queries that it holds.
    """

    def __init__(self, model: str, metrics: Metrics, *, size: int = QUERIES) -> None:
        self._seen: deque[tuple[float, ...]] = deque(maxlen=size)
        self._lock = threading.Lock()
        self._ends: Floats | None = None
        told: dict[str, Callable[[], float]] = {
            "queries": lambda: float(len(self._seen)),
            "best_logit": lambda: self._mean(0),
            "any_right": lambda: self._mean(1),
            "accepted": lambda: self._mean(2),
            "familiarity": lambda: self._mean(3),
            "unlike_dev": self.unlike,
        }
        for name, value in told.items():
            metrics.window.labels(model, name).set_function(value)

    def compare_with(self, calibrator: Calibrator | None) -> None:
        """Take a calibrator's dev queries for comparison; another model's queries are forgotten."""
        record = None if calibrator is None else calibrator.record
        signs = None if record is None else record.signs
        with self._lock:
            self._seen.clear()
            self._ends = None if signs is None else np.quantile(signs, [FAR / 2, 1 - FAR / 2], axis=0)

    def add(self, *signs: float) -> None:
        """Count a query by its signs, as named in `sigmax.calibration.record.SIGNS`."""
        with self._lock:
            if self._seen and len(self._seen[-1]) != len(signs):  # another model's
                self._seen.clear()
            self._seen.append(signs)

    def unlike(self) -> float:
        """Part of the queries of which a sign lies where 2.5% of dev's do at either end; NaN without dev's signs."""
        with self._lock:
            seen = np.array(self._seen)
            if self._ends is None or not len(seen):
                return float("nan")
            count = min(seen.shape[1], self._ends.shape[1])
            low, high = self._ends[:, :count]
        return float(((seen[:, :count] < low) | (seen[:, :count] > high)).any(1).mean())

    def _mean(self, place: int) -> float:
        with self._lock:
            seen = [one[place] for one in self._seen if place < len(one)]
        return float(np.mean(seen)) if seen else float("nan")
