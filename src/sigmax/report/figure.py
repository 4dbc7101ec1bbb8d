"""A comparison as one figure: ranking, presence and none-of-these, each contender with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sigmax.comparison import Comparison
from sigmax.errors import extra
from sigmax.evaluation import LOWER_IS_BETTER

__all__ = ["comparison_figure"]

_COLOURS = {"softmax": "#c2571a", "sigmoid": "#1f6f8b", "today": "#7a7a7a"}
_PANELS = (
    ("map", "Ranking", "mean average precision"),
    ("log_loss", "Presence", "log loss of presences, nats a query"),
    ("none_auroc_logit", "None of these", "AUROC: answerable or not"),
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
    panels = [panel for panel in _PANELS if panel[0] in comparison.figures]
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
            _panel(ax, comparison, results, name)
            better = "← better" if name in LOWER_IS_BETTER else "better →"
            ax.set_title(title, loc="left", fontweight="bold", fontsize=11)
            ax.set_xlabel(f"{unit}   {better}")
        axes[0][0].set_yticks(range(len(results)), [result.contender.name for result in results])
        axes[0][0].set_ylim(-0.6, len(results) - 0.4)
        data = comparison.data
        figure.suptitle(
            f"{data['name']}: {data['queries']:,} queries, {data['candidates']:,} candidates, "
            f"{data['answers_per_query']:.1f} right answers a query, encoder {Path(comparison.encoder).name}",
            x=0.01,
            ha="left",
            fontsize=10,
            color="#444444",
            parse_math=False,
        )
        read = "How to read: a dot is the mean over seeds on test, a line its 95% interval over queries and seeds."
        if any(name.startswith("none") for name, _, _ in panels):
            read += " Filled: by the largest logit; hollow: by the largest share."
        figure.text(0.01, 0.015, read, fontsize=8.5, color="#444444")
        figure.tight_layout(rect=(0, 0.05, 1, 0.98))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160, facecolor="white")
        pyplot.close(figure)


def _panel(ax: Any, comparison: Comparison, results: list[Any], name: str) -> None:
    for place, result in enumerate(results):
        colour = _COLOURS[result.contender.family]
        dots: list[tuple[str, float, bool]] = [(name, place, True)]
        if name == "none_auroc_logit":
            dots = [(name, place + 0.13, True), ("none_auroc_share", place - 0.17, False)]
        for figure, height, filled in dots:
            value = result[figure]
            ax.plot([value.low, value.high], [height, height], color=colour, lw=2.2, alpha=1 if filled else 0.6)
            ax.plot(value.value, height, "o", ms=7, color=colour, mfc=colour if filled else "white", mew=1.6)
    ax.grid(axis="x", color="#e4e4e4", lw=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.12)
