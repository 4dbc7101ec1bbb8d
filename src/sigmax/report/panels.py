"""The figures of the HTML report, each small enough for a phone, as inline SVG in the page's own colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np

from sigmax.comparison.results import Comparison, Result, Training
from sigmax.errors import extra
from sigmax.metrics.histogram import LogitHistogram
from sigmax.report.figure import draw_values
from sigmax.report.style import COLOURS

__all__ = [
    "draw_curve",
    "draw_logits",
    "draw_none",
    "draw_ranking_and_presence",
    "draw_risk_coverage",
    "inline_svg",
]

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_INK, _MUTED, _FADED, _RIGHT, _NONE = "#222222", "#444444", "#9a9a9a", "#2e7d4f", "#8254b4"
#: Colours as they are drawn -> custom properties of the page, which know light and dark.
_PROPERTIES = {
    _INK: "--ink",
    "#ffffff": "--paper",
    _MUTED: "--muted",
    _FADED: "--faded",
    "#e4e4e4": "--grid",
    "#ececec": "--grid",
    _RIGHT: "--right",
    _NONE: "--none",
    **{colour: f"--{family}" for family, colour in COLOURS.items()},
}
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "svg.fonttype": "none",
    "svg.hashsalt": "sigmax",
    "text.parse_math": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    **dict.fromkeys(("axes.facecolor", "figure.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
}
#: What tells the contenders of one family apart.
_MARKERS = "osD^vP"
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


def inline_svg(draw: Callable[[Any], None], name: str, title: str, description: str, *, height: float = 3.1) -> str:
    """Return a figure as an SVG element for an HTML page: no namespaces, no links outside, ids of its own.

    Args:
        draw: draws it on the axes it is given.
        name: what all its ids begin with.
        title: what a screen reader calls it.
        description: what it shows, in words.
        height: in inches; the width is 4.

    Raises:
        ImportError: matplotlib is not there.
    """
    with extra("report"):
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    written = io.StringIO()
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.0, height), layout="constrained")
        draw(figure.subplots())
        figure.savefig(written, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(written.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        if _LINK in element.attrib:
            element.set("href", element.attrib.pop(_LINK))
        for key, value in element.attrib.items():
            element.set(key, _for_page(key, value, name))
    for key in ("width", "height", "version"):
        del root.attrib[key]
    for tag, text in (("desc", description), ("title", title)):
        child = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        child.text = text
        root.insert(0, child)
    root.attrib.update({"role": "img", "aria-labelledby": f"{name}-title {name}-desc"})
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _for_page(key: str, value: str, name: str) -> str:
    """An attribute with the colours and font of the page, and ids of its own."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value.removeprefix('#')}"
    value = value.replace("url(#", f"url(#{name}-")
    if key == "style":
        value = re.sub(r"font: ([\d.]+)px [^;]*", r"font-size: \1px", value)
        value = re.sub(r"#[0-9a-f]{6}", lambda found: f"var({_PROPERTIES[found[0]]})", value)
    return value


def draw_ranking_and_presence(ax: Any, comparison: Comparison) -> None:
    """Draw MAP across and log loss of presences up, better to the top right, with both intervals."""
    for result, marker, _ in _told_apart(comparison.results):
        x, y, colour = result["map"], result["log_loss"], COLOURS[result.contender.family]
        ax.plot([x.low, x.high], [y.value, y.value], color=colour, lw=1.4, alpha=0.55)
        ax.plot([x.value, x.value], [y.low, y.high], color=colour, lw=1.4, alpha=0.55)
        ax.plot(x.value, y.value, marker, color=colour, ms=8, label=result.contender.name, ls="none")
    ax.invert_yaxis()
    _grid(ax)
    ax.set_xlabel("ranking: MAP   better →")
    ax.set_ylabel("presences: log loss per query   better →")
    _legend(ax)


def draw_none(ax: Any, comparison: Comparison) -> None:
    """Draw the AUROC of the largest logit (filled) and of the largest share (hollow) of each contender."""
    results = comparison.results[::-1]
    draw_values(ax, comparison, results, "none_auroc_logit")
    ax.set_yticks(range(len(results)), [result.contender.name for result in results])
    ax.set_ylim(-0.6, len(results) - 0.4)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("none of these: AUROC   better →")


def draw_logits(ax: Any, histogram: LogitHistogram) -> None:
    """Draw histograms of logits: wrong pairs filled, right pairs a line, queries with no right answer dashed."""
    edges = histogram.edges
    for counts, colour, style in (
        (histogram.wrong, _FADED, {"fill": True, "alpha": 0.55, "lw": 0}),
        (histogram.right, _RIGHT, {"lw": 1.8}),
        (histogram.unanswered, _NONE, {"lw": 1.8, "ls": (0, (4, 1.5))}),
    ):
        if counts.sum():
            ax.stairs(counts / counts.sum(), edges, color=colour, **style)
    ax.set_xlabel("logit")
    ax.set_ylabel("share of its kind")
    ax.set_ylim(bottom=0)


def draw_risk_coverage(ax: Any, results: Sequence[Result]) -> None:
    """Draw the share of wrong answers against the share of queries answered, first seed of each contender."""
    for result, _, dashes in _told_apart(results):
        points = result.evaluations[0].risk_coverage
        x, y = [point.coverage for point in points], [point.risk.value for point in points]
        ax.plot(x, y, color=COLOURS[result.contender.family], ls=dashes, lw=1.8, label=result.contender.name)
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    _grid(ax)
    ax.set_xlabel("share of queries answered, surest first")
    ax.set_ylabel("share of them wrong")
    _legend(ax)


def draw_curve(ax: Any, training: Training, family: str) -> None:
    """Draw the loss against steps, and its floor."""
    steps, losses = np.array(training.curve).reshape(-1, 2).T
    ax.plot(steps, losses, color=COLOURS[family], lw=1.8, marker="o" if len(steps) < 8 else None, ms=4)
    ax.axhline(training.floor, color=_INK, lw=1.2, ls=(0, (4, 3)))
    ax.annotate(
        f"floor {training.floor:.3g}",
        (1, training.floor),
        xycoords=("axes fraction", "data"),
        xytext=(0, -4),
        textcoords="offset points",
        ha="right",
        va="top",
    )
    ax.margins(y=0.16)
    ax.set_xlim(left=0)
    _grid(ax)
    ax.set_xlabel("steps")
    ax.set_ylabel("training loss, nats")


def _told_apart(results: Sequence[Result]) -> list[tuple[Result, str, Any]]:
    """Each result with its marker, unlike any other's, and its dashes, unlike any other's of its family."""
    of_family: dict[str, int] = {}
    found = []
    for place, result in enumerate(results):
        number = of_family[result.contender.family] = of_family.get(result.contender.family, -1) + 1
        found.append((result, _MARKERS[place % len(_MARKERS)], _DASHES[number % len(_DASHES)]))
    return found


def _grid(ax: Any) -> None:
    ax.grid(color="#ececec", lw=0.8)
    ax.set_axisbelow(True)


def _legend(ax: Any) -> None:
    ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, fontsize=9, handlelength=2.2, borderpad=0.2)
