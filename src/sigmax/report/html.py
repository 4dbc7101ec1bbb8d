"""A comparison as one self-contained HTML file: the answer, its evidence, and how to reproduce it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from sigmax.comparison.examples import KINDS
from sigmax.comparison.results import Comparison, Result
from sigmax.errors import extra
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
from sigmax.report.words import FAMILIES, outcome, signed, standings, verdict

__all__ = ["check_report", "report_html"]

MIB = 2**20


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


def check_report() -> None:
    """Make sure before long work that a report can be made after it.

    Raises:
        ImportError: matplotlib or Jinja2 is not there.
    """
    with extra("report"):
        import jinja2
        import matplotlib
    assert jinja2 and matplotlib


def report_html(comparison: Comparison, *, command: str | None = None) -> str:
    """Return the report of a comparison as an HTML page that needs nothing but itself.

    Args:
        comparison: what to report.
        command: the command line that made it, if one did.

    Raises:
        ImportError: matplotlib or Jinja2 is not there.
    """
    with extra("report"):
        import jinja2
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    measured = [result for result in comparison.results if result.evaluations]
    return environment.get_template("report.html.j2").render(
        comparison=comparison,
        data=comparison.data,
        verdict=verdict(comparison),
        standings=standings(comparison),
        families=FAMILIES,
        ranking=_ranking(comparison),
        reliability=_reliability([result for result in measured if result.evaluations[0].reliability]),
        logits=_logits([result for result in measured if result.evaluations[0].logits]),
        risk=_risk([result for result in measured if result.evaluations[0].risk_coverage]),
        curves=_curves([result for result in comparison.results if result.training]),
        costs=_costs(comparison),
        differences=_differences(comparison),
        kinds=KINDS,
        facts=_facts(comparison),
        settings=_settings(comparison),
        search=_search(comparison),
        command=command,
        number=number,
    )


# -- the figures ---------------------------------------------------------------------------------


def _panels(
    name: str, what: str, results: Sequence[Result], draw: Callable[[Any, Result], None], height: float = 3.1
) -> list[Panel]:
    """One picture a contender; its title is the contender's name."""
    return [
        Panel(
            result.contender.name,
            inline_svg(
                lambda ax, result=result: draw(ax, result),  # type: ignore[misc]
                f"{name}-{result.contender.name}",
                f"{what}, {result.contender.name}",
                f"{what} of {result.contender.name}: {result.contender.describes}. The numbers are in the table below.",
                height=height,
            ),
        )
        for result in results
    ]


def _ranking(comparison: Comparison) -> Section:
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


def _reliability(results: Sequence[Result]) -> Section | None:
    if not results:
        return None
    limits = reliability_limits({result.contender.name: result.evaluations[0] for result in results})
    return Section(
        "Each dot gathers pairs among which equally many right ones are expected: on the dashed diagonal presences are "
        "true, below it they claim too much, above it too little (hollow: none or all of its pairs are right; lines: "
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


def _logits(results: Sequence[Result]) -> Section | None:
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
        _panels("logits", "Logits", results, lambda ax, result: draw_logits(ax, result.evaluations[0].logits)),  # type: ignore[arg-type]
        tables,
    )


def _risk(results: Sequence[Result]) -> Section | None:
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


def _curves(results: Sequence[Result]) -> Section | None:
    drawn = [(result, result.training) for result in results if result.training and result.training.curve]
    if not drawn:
        return None
    repeats = any(result.contender.draw == "one-positive" for result, _ in drawn)
    return Section(
        "A line is the mean training loss since the point before, the dashed line the floor below which this loss "
        "cannot go on these batches; only the distance to its own floor means anything, for the losses differ in kind"
        + (
            " (one-positive cannot reach its own: an answer that a batch holds twice is right and wrong at once)."
            if repeats
            else "."
        ),
        _panels(
            "curve",
            "Training loss",
            [result for result, _ in drawn],
            lambda ax, result: draw_curve(ax, result.training, result.contender.family),  # type: ignore[arg-type]
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


# -- the tables ----------------------------------------------------------------------------------


def _costs(comparison: Comparison) -> DataTable:
    def mib(size: int) -> str:
        return f"{size / MIB:,.1f}"

    return DataTable(
        "Time and memory of one training",
        ["", "seconds", "parameters, MiB", "optimizer, MiB"],
        [
            [
                result.contender.name,
                f"{result.train_seconds:.1f}",
                mib(result.training.parameter_bytes) if result.training else "not measured",
                mib(result.training.optimizer_bytes) if result.training else "not measured",
            ]
            for result in comparison.results
        ],
    )


def _differences(comparison: Comparison) -> dict[str, Any]:
    """Every contender less one of reference, and every pair, metric by metric."""
    names = [result.contender.name for result in comparison.results]
    reference = comparison.best("sigmoid", "map") or names[0]
    others = [name for name in names if name != reference]
    shown = [METRICS[name] for name in comparison.metrics if METRICS[name].shown]

    def cell(a: str, b: str, metric: str) -> dict[str, str]:
        gap = comparison.difference(a, b, metric)
        return {
            "value": signed(gap.value),
            "interval": f"{signed(gap.low)} to {signed(gap.high)}",
            "outcome": outcome(metric, gap),
        }

    rows = [(one.meaning, one.heading, [cell(a, reference, one.name) for a in others]) for one in shown]
    cells = [one for _, _, row in rows for one in row]
    return {
        "reference": reference,
        "others": others,
        "rows": rows,
        "all": len(cells),
        "significant": sum(one["outcome"] != "not significant" for one in cells),
        "by_chance": round(len(cells) / 20),
        "pairs": [
            (f"{a} − {b}", [(one.heading, cell(a, b, one.name)) for one in shown]) for a, b in combinations(names, 2)
        ],
    }


def _facts(comparison: Comparison) -> DataTable:
    data = comparison.data
    rows = [
        ["queries", f"{data['queries']:,}"],
        ["labels" if data["labels"] else "candidates", f"{data['candidates']:,}"],
        ["right answers of a query that has any, mean", f"{data['answers_per_query']:.2f}"],
        ["of those queries, with several", f"{data['several_answers']:.0%}"],
        *[
            [f"{split} queries, of them with no right answer", f"{size:,}, {data['unanswered'][split]:,}"]
            for split, size in data["splits"].items()
        ],
    ]
    return DataTable(data["name"], ["", ""], rows)


def _settings(comparison: Comparison) -> DataTable:
    trained = [(result.contender.name, asdict(result.settings)) for result in comparison.results if result.settings]
    names = list(trained[0][1]) if trained else []
    rows = [[name, *(_plain(settings[name]) for _, settings in trained)] for name in names]
    return DataTable("Chosen on dev; the seed is the first one’s", ["", *(name for name, _ in trained)], rows)


def _search(comparison: Comparison) -> DataTable:
    return DataTable(
        f"The search: {comparison.metric} on dev",
        ["", "learning rate", "starting scale", comparison.metric],
        [
            [
                result.contender.name,
                f"{trial.learning_rate:g}",
                f"{trial.logit_scale:g}",
                number(trial.dev[comparison.metric]),
            ]
            for result in comparison.results
            for trial in result.trials
        ],
    )


def _plain(value: Any) -> str:
    """A setting's value for people."""
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)
