"""Results as tables for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from sigmax.metrics.intervals import Estimate, interval, number
from sigmax.metrics.metric import Metric
from sigmax.metrics.registry import groups

if TYPE_CHECKING:
    from sigmax.calibration.calibrator import Calibrator
    from sigmax.comparison.results import Comparison
    from sigmax.data.check import Check
    from sigmax.evaluation import Evaluation
    from sigmax.model.matches import Matches
    from sigmax.model.measured import Measured

__all__ = [
    "calibration_table",
    "cells",
    "check_table",
    "comparison_table",
    "evaluation_table",
    "index_table",
    "matches_table",
    "threshold_rows",
]


def comparison_table(comparison: Comparison) -> Table:
    """Show metrics down and contenders across, the interval under each value, the best value bold."""
    title = f"{comparison.data.name}: test metrics, mean of seeds, 95% intervals"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("")
    for result in comparison.results:
        table.add_column(result.contender.name.replace("-", "-\n", 1), justify="right", overflow="fold")
    for group, metrics in groups().items():
        shown = [metric for metric in metrics if metric.name in comparison.metrics and metric.shown]
        if shown:
            table.add_row(Text(group, style="italic"))
        for metric in shown:
            values = [result[metric.name] for result in comparison.results]
            table.add_row(Text(f"  {metric.heading}"), *cells(values, metric))
        if shown:
            table.add_section()
    table.add_row("seconds per run", *(f"{result.train_seconds:.1f}" for result in comparison.results))
    return table


def evaluation_table(evaluation: Evaluation) -> Table:
    """Show one model's metrics, one per line."""
    title = (
        f"{evaluation.data}, {evaluation.split}: {evaluation.queries} queries, {evaluation.unanswered} with no answer; "
        f"ranked by {evaluation.order}"
    )
    table = Table(title=Text(title), title_justify="left")
    for name in ("", "value", "95% interval"):
        table.add_column(name, justify="right" if name else "left")
    for group, metrics in groups().items():
        measured = [metric for metric in metrics if metric.name in evaluation.draws]
        if measured:
            table.add_row(Text(group, style="italic"))
        for metric in measured:
            value = evaluation[metric.name]
            table.add_row(Text(f"  {metric.heading}"), number(value.value), interval(value))
    return table


def calibration_table(calibrator: Calibrator) -> Table:
    """Show which calibrations were tried, in the order of their log loss, and which was chosen."""
    about, any_fit = calibrator.about, calibrator.any_fit
    title = f"calibrated on {about['data']}, {about['split']}: {about['queries']} queries"
    if about.get("groups", about["queries"]) < about["queries"]:
        title += f", {about['groups']} that are not nearly the same"
    if "held_out" in about:
        title += f"; rules are decided by {about['held_out']} others"
    table = Table(title=Text(title), title_justify="left")
    for name in ("", "log loss per query ↓", ""):
        table.add_column(name, justify="right" if name else "left")
    parts = [("presence", about["log_loss"] or {about["method"]: math.nan}, about["method"])]
    if any_fit is not None:
        parts.append(("any right", any_fit.log_loss, any_fit.method))
    for title, losses, chosen in parts:
        table.add_row(Text(title, style="italic"))
        for name, loss in sorted(losses.items(), key=lambda item: item[1]):
            table.add_row(f"  {name}", number(loss), "chosen" if name == chosen else "")
    if any_fit is not None and any_fit.reason:
        table.caption = Text(f"any right by {any_fit.method}: {any_fit.reason}.")
        table.caption_justify = "left"
    return table


def threshold_rows(calibrator: Calibrator) -> Table | None:
    """Show what each threshold on presence gave on dev; None for a model saved without its record."""
    from sigmax.calibration.record import threshold_table

    if calibrator.record is None:
        return None
    table = Table(
        title=Text(f"accepting presences from a threshold on, on {calibrator.about.get('split', 'dev')}"),
        title_justify="left",
    )
    columns = {
        "threshold": "from",
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "accepted": "accepted per query",
        "false_claims": "unanswerable answered ↓",
    }
    for title in columns.values():
        table.add_column(title, justify="right")
    for row in threshold_table(calibrator.record):
        table.add_row(*("–" if row[name] is None else f"{row[name]:.2f}" for name in columns))
    return table


def matches_table(matches: Matches) -> Table:
    """List the best candidates of one query; ✓ marks those that the rule accepts."""
    table = Table(title=Text(str(matches.query)), title_justify="left")
    for name in ("", "candidate", "logit", "share", "presence"):
        table.add_column(name, justify="left" if name in ("", "candidate") else "right")
    for one in matches:
        presence = "–" if one.presence is None else f"{one.presence:.3f}"
        mark = "✓" if matches.accepts(one) else ""
        table.add_row(mark, Text(one.candidate), f"{one.logit:.2f}", f"{one.share:.3f}", presence)
    return table


def index_table(about: Mapping[str, Any], measured: Measured) -> Table:
    """Show what an index or a database is, and how it does beside the scan of all."""
    title = f"{about['kind']} over {about['size']:,} candidates"
    table = Table(title=Text(title), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("measured on", f"{measured.queries:,} {measured.what}")
    table.add_row("of the best 10 of all, found", f"{measured.recall:.3f}")
    table.add_row("of the best 100 of all, found", f"{measured.recall_all:.3f}")
    if measured.presence_error is not None:
        table.add_row("largest difference from the exact presence", f"{measured.presence_error:.1e}")
    table.add_row("standard error of shares, as a part of them", f"{measured.share_error:.1%}")
    for metric, name in (("precision", "precision"), ("recall", "recall"), ("f1", "F1")):
        values = [rule[metric] for rule in measured.rules.values()]
        if values:
            shown = ", ".join(
                f"{'–' if value is None else format(value, '.3f')} ({by})"
                for by, value in zip(measured.rules, values, strict=True)
            )
            table.add_row(f"best-f1 on dev: {name}", shown)
    return table


def check_table(check: Check) -> Table:
    """Show the sizes of a data set and what a plain in-batch loss would see in it."""
    table = Table(title=Text(check.name), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    answers = check.answers
    rows = [
        ("queries (train / dev / test)", " / ".join(f"{count:,}" for count in check.splits.values())),
        ("of them with no right answer", " / ".join(f"{count:,}" for count in check.unanswered.values())),
        ("labels" if check.labels else "candidates", f"{check.candidates:,}"),
        ("of them right for no query", f"{check.unused_candidates:,}"),
        ("right pairs", f"{check.pairs:,}"),
        ("pairs known to be wrong", f"{check.wrong_pairs:,}"),
        *([("right and wrong at once", f"{check.conflicts:,}")] if check.conflicts else []),
        (
            "right answers per query (mean, median, maximum)",
            f"{answers.mean:.1f}, {answers.median:.0f}, {answers.most}",
        ),
        ("queries with several right answers", f"{answers.several:.0%}"),
    ]
    if check.pictures:
        sides = " × ".join(_span(*side) for side in (check.pictures.width, check.pictures.height))
        rows += [
            ("size of the pictures (width × height)", sides),
            ("of them grey / in colour", f"{check.pictures.grey:,} / {check.pictures.colour:,}"),
        ]
    rows += [
        (f"in-batch false negatives at {size}", f"{share:.1%} of rows") for size, share in check.false_negatives.items()
    ]
    for name, value in rows:
        table.add_row(name, value)
    return table


def _span(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least}–{most}"


def cells(values: list[Estimate], metric: Metric) -> list[Text]:
    """Return a cell for each value, its interval below it, the best one bold."""
    ranks = [metric.goodness(value.value) for value in values]
    best = max((rank for rank in ranks if not math.isnan(rank)), default=None)
    return [
        Text.assemble((number(value.value), "bold" if rank == best else ""), "\n", (interval(value), "dim"))
        for value, rank in zip(values, ranks, strict=True)
    ]
