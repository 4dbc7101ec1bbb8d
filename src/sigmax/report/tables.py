"""Results as tables for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from sigmax.comparison import Comparison
from sigmax.evaluation import LOWER_IS_BETTER, Evaluation
from sigmax.metrics.abstention import NONE_SCORES
from sigmax.metrics.intervals import Estimate
from sigmax.metrics.presence import PRESENCE
from sigmax.metrics.ranking import RANKING
from sigmax.report.words import number

__all__ = ["TITLES", "comparison_table", "evaluation_table"]

#: Short names for tables and figures.
TITLES = {
    "map": "MAP",
    "mrr": "MRR",
    "ndcg@10": "nDCG@10",
    "log_loss": "log loss a query ↓",
    "brier": "Brier a query ↓",
    "calibration_error": "calibration error ↓",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "none_auroc_share": "AUROC, largest share",
    "none_auroc_logit": "AUROC, largest logit",
    "none_auroc_presence": "AUROC, largest presence",
}
_GROUPS = {"ranking": tuple(RANKING), "presence": PRESENCE, "none of these": tuple(NONE_SCORES.values())}
#: What the comparison's table leaves to --json.
_LEFT_OUT = {"mrr", "precision@5", "recall@1", "recall@5", "recall@100", "brier", "none_auroc_presence"}


def comparison_table(comparison: Comparison) -> Table:
    """Figures down, contenders across; the interval under each value; the best value bold."""
    title = f"{comparison.data['name']}: test figures, mean of seeds, 95% intervals"
    table = Table(title=Text(title), title_justify="left")
    table.add_column("")
    for result in comparison.results:
        table.add_column(result.contender.name.replace("-", "-\n", 1), justify="right")
    for group, names in _GROUPS.items():
        shown = [name for name in names if name in comparison.figures and name not in _LEFT_OUT]
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
    """One model's figures, one a line."""
    title = (
        f"{evaluation.data}, {evaluation.split}: {evaluation.queries} queries, {evaluation.unanswered} with no answer"
    )
    table = Table(title=Text(title), title_justify="left")
    for name in ("", "value", "95% interval"):
        table.add_column(name, justify="right" if name else "left")
    for group, names in _GROUPS.items():
        shown = [name for name in names if name in evaluation.draws]
        if shown:
            table.add_row(Text(group, style="italic"))
        for name in shown:
            value = evaluation[name]
            table.add_row(f"  {TITLES.get(name, name)}", number(value.value), _interval(value))
    return table


def _cells(values: list[Estimate], name: str) -> list[Text]:
    sign = -1 if name in LOWER_IS_BETTER else 1
    best = max(sign * value.value for value in values)
    return [
        Text.assemble(
            (number(value.value), "bold" if sign * value.value == best else ""), "\n", (_interval(value), "dim")
        )
        for value in values
    ]


def _interval(value: Estimate) -> str:
    return f"{number(value.low)}–{number(value.high)}"
