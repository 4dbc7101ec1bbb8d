"""Metrics: ranking, presence, none of these, answering only when sure, and their intervals."""

from sigmax.metrics.intervals import Difference, Estimate, Statistic
from sigmax.metrics.metric import Metric, Observed
from sigmax.metrics.registry import METRICS

__all__ = ["METRICS", "Difference", "Estimate", "Metric", "Observed", "Statistic"]
