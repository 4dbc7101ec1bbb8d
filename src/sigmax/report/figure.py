"""A comparison as one figure, and reliability diagrams: every value with its interval."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sigmax.comparison.results import Comparison
from sigmax.errors import extra
from sigmax.evaluation import Evaluation
from sigmax.metrics.intervals import number
from sigmax.metrics.registry import METRICS
from sigmax.report.style import COLOURS, GREY, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "comparison_figure",
    "draw_reliability",
    "draw_values",
    "reliability_figure",
    "reliability_limits",
]

_PANELS = (
    ("map", "Ranking", "mean average precision"),
    ("log_loss", "Presence", "log loss of presences, nats per query"),
    ("none_auroc_logit", "None of these", "AUROC: answerable or not"),
)
_BETTER = {"higher": "better →", "lower": "← better", "closer to one": "best: 1"}
_HOW_TO_READ = (
    "How to read: each dot gathers pairs among which equally many right ones are expected; a line is its 95% interval "
    "over queries. On the diagonal presences are true; below it they are too high, above it too low. Hollow: none or "
    "all of its pairs are right."
)


def comparison_figure(comparison: Comparison, path: Path) -> None:
    """Draw the comparison into a PNG or SVG file.

    Raises:
        ImportError: matplotlib is not there.
    """
    with extra("report"):
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    panels = [panel for panel in _PANELS if panel[0] in comparison.metrics]
    results = comparison.results[::-1]
    style: dict[Any, Any] = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
    }
    with pyplot.rc_context(style):
        figure, axes = pyplot.subplots(
            1, len(panels), figsize=(1.6 + 3.3 * len(panels), 1.9 + 0.42 * len(results)), sharey=True, squeeze=False
        )
        for ax, (name, title, unit) in zip(axes[0], panels, strict=True):
            draw_values(ax, comparison, results, name)
            ax.set_title(title, loc="left", fontweight="bold", fontsize=11)
            ax.set_xlabel(f"{unit}   {_BETTER[METRICS[name].better]}")
        axes[0][0].set_yticks(range(len(results)), [result.contender.name for result in results])
        axes[0][0].set_ylim(-0.6, len(results) - 0.4)
        data = comparison.data
        figure.suptitle(
            f"{data.name}: {data.queries:,} queries, {data.candidates:,} candidates, "
            f"{data.answers.mean:.1f} right answers per query, encoder {Path(comparison.encoder).name}",
            x=0.01,
            ha="left",
            fontsize=10,
            color=GREY,
            parse_math=False,
        )
        read = "How to read: a dot is the mean over seeds on test, a line its 95% interval over queries and seeds."
        if any(name.startswith("none") for name, _, _ in panels):
            read += " Filled: by the largest logit; hollow: by the largest share."
        figure.text(0.01, 0.015, read, fontsize=8.5, color=GREY)
        figure.tight_layout(rect=(0, 0.05, 1, 0.98))
        save_figure(figure, path)
        pyplot.close(figure)


def draw_values(ax: Any, comparison: Comparison, results: list[Any], name: str) -> None:
    """Draw a metric's value and interval of each result, one above the other."""
    for place, result in enumerate(results):
        colour = COLOURS[result.contender.family]
        dots: list[tuple[str, float, bool]] = [(name, place, True)]
        if name == "none_auroc_logit":
            dots = [(name, place + 0.13, True), ("none_auroc_share", place - 0.17, False)]
        for metric, height, filled in dots:
            value = result[metric]
            ax.plot([value.low, value.high], [height, height], color=colour, lw=2.2, alpha=1 if filled else 0.6)
            ax.plot(value.value, height, "o", ms=7, color=colour, mfc=colour if filled else "white", mew=1.6)
    ax.grid(axis="x", color="#e4e4e4", lw=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.12)


def reliability_figure(evaluations: Mapping[str, Evaluation]) -> Figure:
    """Draw reliability diagrams side by side, on logit axes because most presences are tiny.

    Args:
        evaluations: name -> evaluation of a calibrated model.

    Raises:
        ImportError: matplotlib is not there.
        ValueError: no evaluation, or one of a model that was not calibrated.
    """
    with extra("report"):
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    bare = [name for name, one in evaluations.items() if not one.reliability]
    if bare or not evaluations:
        raise ValueError(
            f"Expected evaluations of calibrated models, got {bare or 'none'}. Try sigmax.calibrate first."
        )
    columns = 2 if len(evaluations) in (2, 4) else min(3, len(evaluations))
    rows = -(-len(evaluations) // columns)
    limits = reliability_limits(evaluations)
    with rc_context({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(max(6.2, 1 + 3.5 * columns), 1.3 + 3.6 * rows))
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, (name, evaluation) in zip(axes, evaluations.items(), strict=False):
            draw_reliability(ax, evaluation, limits, COLOURS["sigmoid"])
            ax.set_title(name, loc="left", fontweight="bold", fontsize=11, parse_math=False)
        for place, ax in enumerate(axes):
            ax.set_visible(place < len(evaluations))
            if place + columns >= len(evaluations):
                ax.set_xlabel("presence claimed")
                ax.tick_params(labelbottom=True)
            if place % columns == 0:
                ax.set_ylabel("share right")
        figure.text(
            0.01,
            0.01,
            textwrap.fill(_HOW_TO_READ, int(15 * figure.get_figwidth())),
            fontsize=8.5,
            color=GREY,
        )
        figure.tight_layout(rect=(0, 0.65 / figure.get_figheight(), 1, 1))
    return figure


def reliability_limits(evaluations: Mapping[str, Evaluation]) -> tuple[float, float]:
    """Return presences between which all dots lie, away from 0 and 1, where a logit axis has no end."""
    values = [value for one in evaluations.values() for b in one.reliability for value in (b.presence, b.right.value)]
    inside = [value for value in values if 1e-6 < value < 1 - 1e-6] or [0.5]
    return min(0.1, min(inside) / 2), max(0.9, 1 - (1 - max(inside)) / 2)


def draw_reliability(ax: Any, evaluation: Evaluation, limits: tuple[float, float], colour: str) -> None:
    """Draw a reliability diagram on logit axes that end at the limits, in (0, 1)."""
    low, high = limits
    ticks = [10.0**-k for k in range(6, 0, -1)] + [0.5] + [1 - 10.0**-k for k in range(1, 7)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    for set_scale, set_limits, set_ticks in (
        (ax.set_xscale, ax.set_xlim, ax.set_xticks),
        (ax.set_yscale, ax.set_ylim, ax.set_yticks),
    ):
        set_scale("logit")
        set_limits(low, high)
        set_ticks(
            ticks, [f"{tick:g}" if tick > 1e-3 else f"10⁻{'⁰¹²³⁴⁵⁶'[round(-math.log10(tick))]}" for tick in ticks]
        )
        set_ticks([], minor=True)
    ax.set_aspect("equal")
    ax.grid(color="#ececec", lw=0.8)
    ax.set_axisbelow(True)
    ax.plot([low, high], [low, high], color="#9a9a9a", lw=1, ls=(0, (4, 3)))
    for one in evaluation.reliability:
        x, y = min(max(one.presence, low), high), min(max(one.right.value, low), high)
        if one.right.low < one.right.high:  # not without draws either
            ax.plot([x, x], [max(one.right.low, low), min(one.right.high, high)], color=colour, lw=2.2, alpha=0.55)
        inside = low <= one.right.value <= high
        ax.plot(x, y, "o", ms=5.5, color=colour, mfc=colour if inside else "white", mew=1.4, clip_on=False)
    said = [
        f"{title} {number(evaluation[name].value)}"
        for name, title in (("smooth_calibration_error", "smooth error"), ("calibration_slope", "slope"))
        if name in evaluation.draws
    ]
    ax.text(0.03, 0.97, "\n".join(said), transform=ax.transAxes, va="top", fontsize=9, color=GREY)
