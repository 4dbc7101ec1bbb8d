"""Every metric, in the order of tables.

A new metric is one `Metric`, defined beside the function that computes it. One from another package is added with
`METRICS[metric.name] = metric`: evaluations, tables, reports, messages and `Settings.metric` then know it.
"""

from __future__ import annotations

from sigmax.metrics import abstention, presence, ranking
from sigmax.metrics.metric import Metric

__all__ = ["METRICS", "groups", "watched"]

METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (*ranking.METRICS, *presence.METRICS, *abstention.METRICS)
}


def groups() -> dict[str, list[Metric]]:
    """Return the metrics by the question they answer, both in the order of tables."""
    found: dict[str, list[Metric]] = {}
    for metric in METRICS.values():
        found.setdefault(metric.group, []).append(metric)
    return found


def watched() -> dict[str, Metric]:
    """Return the metrics by which training and search may choose."""
    return {name: metric for name, metric in METRICS.items() if metric.watched}
