"""Results as tables for the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from sigmax.calibration.calibrator import Calibrator
from sigmax.calibration.rules import threshold_table
from sigmax.comparison.results import Comparison
from sigmax.evaluation import Evaluation, goodness
from sigmax.metrics.abstention import ANY, NONE_FPR95, NONE_SCORES, SELECTION
from sigmax.metrics.intervals import Estimate, interval, number
from sigmax.metrics.presence import PRESENCE
from sigmax.metrics.ranking import RANKING

if TYPE_CHECKING:
    from sigmax.data.check import Check
    from sigmax.model.matches import Matches

__all__ = [
    "GROUPS",
    "LEFT_OUT",
    "TITLES",
    "calibration_table",
    "check_table",
    "comparison_table",
    "evaluation_table",
    "matches_table",
    "threshold_rows",
]

#: Short names for tables and metrics.
TITLES = {
    "map": "MAP",
    "mrr": "MRR",
    "ndcg@10": "nDCG@10",
    "log_loss": "log loss a query ↓",
    "brier": "Brier a query ↓",
    "calibration_error": "calibration error ↓",
    "smooth_calibration_error": "smooth calibration error ↓",
    "calibration_slope": "calibration slope →1",
    "expected_ratio": "right expected / there →1",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "none_auroc_share": "AUROC, largest share",
    "none_auroc_logit": "AUROC, largest logit",
    "none_auroc_presence": "AUROC, largest presence",
    "fpr95_share": "FPR95, largest share ↓",
    "fpr95_logit": "FPR95, largest logit ↓",
    "fpr95_presence": "FPR95, largest presence ↓",
    "none_auroc_any": "AUROC, any",
    "fpr95_any": "FPR95, any ↓",
    "any_log_loss": "log loss, any ↓",
    "any_brier": "Brier, any ↓",
    "any_calibration_error": "calibration error, any ↓",
    "aurc": "area under risk–coverage ↓",
    "excess_aurc": "above the best order's ↓",
}
#: Metrics in the order of tables, by the question they answer.
GROUPS = {
    "ranking": tuple(RANKING),
    "presence": PRESENCE,
    "none of these": (*NONE_SCORES.values(), *NONE_FPR95.values(), *ANY),
    "the surest first": SELECTION,
}
#: What the comparison's table leaves to --json.
LEFT_OUT = {
    *("mrr", "precision@5", "recall@1", "recall@5", "recall@100"),
    *("brier", "smooth_calibration_error", "expected_ratio"),
    *("none_auroc_presence", "fpr95_share", "fpr95_presence", "excess_aurc"),
    *("any_brier", "any_calibration_error"),
}


def comparison_table(comparison: Comparison) -> Table:
    """Metrics down, contenders across; the interval under each value; the best value bold."""
    title = f"{comparison.data['name']}: test metrics, mean of seeds, 95% intervals"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("")
    for result in comparison.results:
        table.add_column(result.contender.name.replace("-", "-\n", 1), justify="right")
    for group, names in GROUPS.items():
        shown = [name for name in names if name in comparison.metrics and name not in LEFT_OUT]
        if shown:
            table.add_row(Text(group, style="italic"))
        for name in shown:
            values = [result[name] for result in comparison.results]
            table.add_row(f"  {TITLES.get(name, name)}", *_cells(values, name))
        if shown:
            table.add_section()
    table.add_row("seconds a training", *(f"{result.train_seconds:.1f}" for result in comparison.results))
    return table


def evaluation_table(evaluation: Evaluation) -> Table:
    """One model's metrics, one a line."""
    title = (
        f"{evaluation.data}, {evaluation.split}: {evaluation.queries} queries, {evaluation.unanswered} with no answer"
    )
    table = Table(title=Text(title), title_justify="left")
    for name in ("", "value", "95% interval"):
        table.add_column(name, justify="right" if name else "left")
    for group, names in GROUPS.items():
        shown = [name for name in names if name in evaluation.draws]
        if shown:
            table.add_row(Text(group, style="italic"))
        for name in shown:
            value = evaluation[name]
            table.add_row(f"  {TITLES.get(name, name)}", number(value.value), interval(value))
    return table


def calibration_table(calibrator: Calibrator) -> Table:
    """What was tried, in the order of its log loss, and which was taken."""
    about, any_fit = calibrator.about, calibrator.any_fit
    table = Table(
        title=Text(f"calibrated on {about['data']}, {about['split']}: {about['queries']} queries"), title_justify="left"
    )
    for name in ("", "log loss a query ↓", ""):
        table.add_column(name, justify="right" if name else "left")
    parts = [("presence", about["log_loss"] or {about["method"]: math.nan}, about["method"])]
    if any_fit is not None:
        parts.append(("any right", any_fit.log_loss, any_fit.method))
    for title, losses, taken in parts:
        table.add_row(Text(title, style="italic"))
        for name, loss in sorted(losses.items(), key=lambda item: item[1]):
            table.add_row(f"  {name}", number(loss), "taken" if name == taken else "")
    return table


def threshold_rows(calibrator: Calibrator) -> Table | None:
    """What thresholds on presence gave where the model was calibrated; None for one saved without its record."""
    if calibrator.record is None:
        return None
    table = Table(
        title=Text(f"presences accepted from a threshold on, on {calibrator.about.get('split', 'dev')}"),
        title_justify="left",
    )
    columns = {
        "threshold": "from",
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "accepted": "accepted a query",
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
        mark = "✓" if one in matches.chosen else ""
        table.add_row(mark, Text(one.candidate), f"{one.logit:.2f}", f"{one.share:.3f}", presence)
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
        (
            "right answers per query (mean, median, maximum)",
            f"{answers['mean']:.1f}, {answers['median']:.0f}, {answers['most']:.0f}",
        ),
        ("queries with several right answers", f"{answers['several']:.0%}"),
    ]
    if check.pictures:
        sides = " × ".join(_span(*check.pictures[side]) for side in ("width", "height"))
        rows += [
            ("size of the pictures (width × height)", sides),
            ("of them grey / in colour", f"{check.pictures['grey']:,} / {check.pictures['colour']:,}"),
        ]
    rows += [
        (f"in-batch false negatives at {size}", f"{share:.1%} of rows") for size, share in check.false_negatives.items()
    ]
    for name, value in rows:
        table.add_row(name, value)
    return table


def _span(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least}–{most}"


def _cells(values: list[Estimate], name: str) -> list[Text]:
    ranks = [goodness(name, value.value) for value in values]
    best = max((rank for rank in ranks if not math.isnan(rank)), default=None)
    return [
        Text.assemble((number(value.value), "bold" if rank == best else ""), "\n", (interval(value), "dim"))
        for value, rank in zip(values, ranks, strict=True)
    ]
