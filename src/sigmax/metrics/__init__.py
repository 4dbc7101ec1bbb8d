"""Figures: ranking, presence, none-of-these, and their intervals."""

from sigmax.metrics.abstention import NONE_SCORES
from sigmax.metrics.intervals import Difference, Estimate
from sigmax.metrics.presence import PRESENCE
from sigmax.metrics.ranking import RANKING

__all__ = ["NONE_SCORES", "PRESENCE", "RANKING", "Difference", "Estimate"]
