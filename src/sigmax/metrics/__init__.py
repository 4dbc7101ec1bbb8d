"""Metrics: ranking, presence, none-of-these, answering only when sure, and their intervals."""

from sigmax.metrics.abstention import NONE_FPR95, NONE_SCORES, SELECTION
from sigmax.metrics.intervals import Difference, Estimate
from sigmax.metrics.presence import PRESENCE
from sigmax.metrics.ranking import RANKING

__all__ = ["NONE_FPR95", "NONE_SCORES", "PRESENCE", "RANKING", "SELECTION", "Difference", "Estimate"]
