"""The sections of the report that hold pictures: how to read them, the pictures, and their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sigmax.comparison.label_promises import RULE
from sigmax.comparison.results import Comparison, Result
from sigmax.metrics.abstention import NONE
from sigmax.metrics.intervals import interval, number
from sigmax.metrics.registry import METRICS, groups
from sigmax.report.figure import draw_reliability, reliability_limits
from sigmax.report.panels import (
    draw_curve,
    draw_logits,
    draw_none,
    draw_ranking_and_presence,
    draw_risk_coverage,
    inline_svg,
)
from sigmax.report.style import COLOURS

__all__ = [
    "DataTable",
    "Panel",
    "Section",
    "curves_section",
    "label_promises_table",
    "logits_section",
    "ranking_section",
    "reliability_section",
    "risk_section",
]


@dataclass(frozen=True)
class DataTable:
    """Numbers for people: the first cell of each row names it."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Panel:
    """One picture of a section."""

    title: str
    svg: str


@dataclass(frozen=True)
class Section:
    """Pictures that are read alike, how to read them, and their numbers."""

    read: str
    panels: Sequence[Panel]
    tables: Sequence[DataTable]


def _draw_logits(ax: Any, result: Result) -> None:
    logits = result.evaluations[0].logits
    assert logits is not None
    draw_logits(ax, logits)


def _draw_curve(ax: Any, result: Result) -> None:
    assert result.training is not None
    draw_curve(ax, result.training, result.contender.family)


def _of(draw: Callable[[Any, Result], None], result: Result) -> Callable[[Any], None]:
    return lambda ax: draw(ax, result)


def _panels(
    name: str, what: str, results: Sequence[Result], draw: Callable[[Any, Result], None], height: float = 3.1
) -> list[Panel]:
    """One picture per contender; its title is the contender's name."""
    return [
        Panel(
            result.contender.name,
            inline_svg(
                _of(draw, result),
                f"{name}-{result.contender.name}",
                f"{what}, {result.contender.name}",
                f"{what} of {result.contender.name}: {result.contender.describes}. The numbers are in the table below.",
                height=height,
            ),
        )
        for result in results
    ]


def ranking_section(comparison: Comparison) -> Section:
    """Return ranking against presences, and none-of-these, of all contenders."""
    panels = []
    of_none = [metric.name for metric in groups()[NONE]]
    names = [name for name in ("map", "log_loss", *of_none) if name in comparison.metrics]
    read = []
    if {"map", "log_loss"} <= set(names):
        title = "Ranking against presence"
        svg = inline_svg(
            lambda ax: draw_ranking_and_presence(ax, comparison),
            "ranking-presence",
            title,
            "Mean average precision across and log loss of presences up, for each contender: " + _values(comparison),
            height=3.6,
        )
        panels.append(Panel(title, svg))
        read.append("left, further right ranks better and further up has better presences")
    if {"none_auroc_logit", "none_auroc_share"} <= set(names):
        title = "None of these"
        svg = inline_svg(
            lambda ax: draw_none(ax, comparison),
            "none",
            title,
            "AUROC between queries with and without a right answer, by the largest logit and the largest share.",
            height=3.6,
        )
        panels.append(Panel(title, svg))
        read.append("filled is by the largest logit, hollow by the largest share; 0.5 would be chance")
    table = DataTable(
        "Means over seeds on test, 95% intervals over queries and seeds",
        ["", *(METRICS[name].heading for name in names)],
        [
            [result.contender.name, *(f"{number(result[name].value)} ({interval(result[name])})" for name in names)]
            for result in comparison.results
        ],
    )
    return Section(
        f"Each mark is the mean over seeds on test and each line its 95% interval: {'; '.join(read)}.", panels, [table]
    )


def _values(comparison: Comparison) -> str:
    return "; ".join(
        f"{result.contender.name} {number(result['map'].value)} and {number(result['log_loss'].value)}"
        for result in comparison.results
    )


def reliability_section(results: Sequence[Result]) -> Section | None:
    """Return a reliability diagram per contender; None if there is none."""
    if not results:
        return None
    limits = reliability_limits({result.contender.name: result.evaluations[0] for result in results})
    return Section(
        "Each dot gathers pairs among which equally many right ones are expected: on the dashed diagonal presences are "
        "true, below it they are too high, above it too low (hollow: none or all of its pairs are right; lines: "
        "95% intervals over queries).",
        _panels(
            "reliability",
            "Reliability of presences",
            results,
            lambda ax, result: _labelled_reliability(ax, result, limits),
            height=3.8,
        ),
        [
            DataTable(
                result.contender.name,
                ["presence claimed", "share right", "95% interval", "pairs"],
                [
                    [f"{one.presence:.3g}", f"{one.right.value:.3g}", interval(one.right), f"{one.pairs:,}"]
                    for one in result.evaluations[0].reliability
                ],
            )
            for result in results
        ],
    )


def _labelled_reliability(ax: Any, result: Result, limits: tuple[float, float]) -> None:
    draw_reliability(ax, result.evaluations[0], limits, COLOURS[result.contender.family])
    ax.set_xlabel("presence claimed")
    ax.set_ylabel("share right")


def label_promises_table(results: Sequence[Result]) -> DataTable | None:
    """Return for how many labels a precision is promised, and what came of it on test; None where none is asked of."""
    found = [(result.contender.name, result.label_promises) for result in results if result.label_promises]
    if not found:
        return None
    first = found[0][1]
    return DataTable(
        f"{RULE}={first.level:g}, first seed, with confidence {first.confidence:g} for all labels at once",
        ["", "labels promised", "test queries that get one", "of what they get, right", "labels below it on test"],
        [
            [
                name,
                f"{one.promised} of {one.labels}",
                f"{one.claimed:,} of {one.queries:,}",
                f"{one.right:,} of {one.accepted:,}",
                f"{one.below} of {one.promised}",
            ]
            for name, one in found
        ],
    )


def logits_section(results: Sequence[Result]) -> Section | None:
    """Return a histogram of logits per contender; None if there is none."""
    if not results:
        return None
    tables = []
    for result in results:
        one = result.evaluations[0].logits
        assert one is not None
        bins = zip(one.edges, one.edges[1:], one.right, one.wrong, one.unanswered, strict=False)
        rows = [[f"{low:.2f} to {high:.2f}", *(f"{count:,}" for count in counts)] for low, high, *counts in bins]
        tables.append(
            DataTable(result.contender.name, ["logit", "right pairs", "wrong pairs", "no answer: largest"], rows)
        )
    return Section(
        "The less the three kinds overlap, the better a threshold on the logit can tell them apart; each kind’s bars "
        "add up to 1, and of a query with no right answer only the largest logit counts.",
        _panels("logits", "Logits", results, _draw_logits),
        tables,
    )


def risk_section(results: Sequence[Result]) -> Section | None:
    """Return the risk–coverage curves of all contenders; None if there are none."""
    if not results:
        return None
    return Section(
        "Going left, only the surest queries are answered, by the presence of the best candidate: the lower the line, "
        "the fewer of those answers are wrong (a query with no right answer is always answered wrongly).",
        [
            Panel(
                "",
                inline_svg(
                    lambda ax: draw_risk_coverage(ax, results),
                    "risk",
                    "Risk against coverage",
                    "Share of wrong best candidates when only the surest queries are answered: "
                    + "; ".join(
                        f"{result.contender.name} {number(points[-1].risk.value)} when all are"
                        for result in results
                        for points in [result.evaluations[0].risk_coverage]
                    ),
                ),
            )
        ],
        [
            DataTable(
                result.contender.name,
                ["answered", "wrong", "95% interval"],
                [
                    [f"{point.coverage:.1%}", number(point.risk.value), interval(point.risk)]
                    for point in result.evaluations[0].risk_coverage
                ],
            )
            for result in results
        ],
    )


def curves_section(results: Sequence[Result]) -> Section | None:
    """Return a training curve and its floor per contender; None if there is none."""
    drawn = [(result, result.training) for result in results if result.training and result.training.curve]
    if not drawn:
        return None
    repeats = any(result.contender.draw == "one-positive" for result, _ in drawn)
    return Section(
        "The line is the mean training loss since the previous point, the dashed line the floor below which this loss "
        "cannot go on these batches. Losses differ in kind: compare each with its own floor only"
        + (
            " (one-positive cannot reach its own: an answer that a batch holds twice is right and wrong at once)."
            if repeats
            else "."
        ),
        _panels(
            "curve",
            "Training loss",
            [result for result, _ in drawn],
            _draw_curve,
        ),
        [
            DataTable(
                f"{result.contender.name}, floor {number(training.floor)}",
                ["steps", "loss", "above the floor"],
                [[f"{step:,}", number(loss), number(loss - training.floor)] for step, loss in training.curve],
            )
            for result, training in drawn
        ],
    )
