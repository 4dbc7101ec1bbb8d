"""Scores as tables for the terminal: the weights of columns, and which score is best."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from sigmax.metrics.registry import METRICS, groups
from sigmax.report.tables import cells

if TYPE_CHECKING:
    from sigmax.scores.compare import ScoreComparison
    from sigmax.scores.model import ScoreModel

__all__ = ["score_comparison_table", "weights_table"]


def score_comparison_table(comparison: ScoreComparison) -> Table:
    """Show metrics down and scores across, the interval under each value, the best value bold."""
    from sigmax.scores.compare import SHOWN

    dev, test = comparison.queries["dev"], comparison.queries["test"]
    title = f"{comparison.data}: fitted on {dev:,} queries, measured on {test:,} others, 95% intervals"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("")
    for name in comparison.evaluations:
        table.add_column(Text(name), justify="right", overflow="fold")
    for group, metrics in groups().items():
        shown = [
            metric
            for metric in metrics
            if metric.name in SHOWN and all(metric.name in one.draws for one in comparison.evaluations.values())
        ]
        if shown:
            table.add_row(Text(group, style="italic"))
        for metric in shown:
            values = [one[metric.name] for one in comparison.evaluations.values()]
            table.add_row(Text(f"  {metric.heading}"), *cells(values, METRICS[metric.name]))
    return table


def weights_table(model: ScoreModel) -> Table:
    """Show what each column of scores adds to the logit."""
    table = Table(
        title=Text("weights: logit = sum over scores of weight x (its own logit, log odds of its share, not returned)"),
        title_justify="left",
    )
    for name in ("", "read as", "its logit", "beside its rivals", "not returned"):
        table.add_column(name, justify="left" if name in ("", "read as") else "right")
    combination = model.combination
    for column, a, b, d in zip(
        combination.columns, combination.logit_slopes, combination.share_slopes, combination.absent, strict=True
    ):
        read = ("log odds" if column.odds else "as it is") + (", lower is better" if column.lower else "")
        table.add_row(Text(column.name), read, f"{a:.2f}", f"{b:.2f}", f"{d:+.2f}" if d else "–")
    return table
