"""A comparison as one self-contained HTML file: the answer, its evidence, and how to reproduce it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

from sigmax.comparison.examples import KINDS
from sigmax.comparison.results import Comparison
from sigmax.errors import extra
from sigmax.metrics.intervals import Difference, interval, number
from sigmax.metrics.registry import METRICS
from sigmax.report.answer import FAMILIES, Point, Standing, duels, outcome, recommended, standings
from sigmax.report.sections import (
    DataTable,
    curves_section,
    label_promises_table,
    logits_section,
    ranking_section,
    reliability_section,
    risk_section,
)
from sigmax.report.words import gap_words, headline, notes, signed

__all__ = ["check_report", "report_html"]

MIB = 2**20


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
        headline=headline(comparison),
        duels=_duels(comparison),
        notes=notes(comparison),
        standings=[_standing(comparison, one) for one in standings(comparison)],
        ranking=ranking_section(comparison),
        reliability=reliability_section([result for result in measured if result.evaluations[0].reliability]),
        label_promises=label_promises_table(comparison.results),
        logits=logits_section([result for result in measured if result.evaluations[0].logits]),
        risk=risk_section([result for result in measured if result.evaluations[0].risk_coverage]),
        curves=curves_section([result for result in comparison.results if result.training]),
        costs=_costs(comparison),
        differences=_differences(comparison),
        kinds=KINDS,
        facts=_facts(comparison),
        settings=_settings(comparison),
        search=_search(comparison),
        command=command,
        number=number,
    )


# -- the answer ----------------------------------------------------------------------------------


def _duels(comparison: Comparison) -> list[dict[str, Any]]:
    """What is recommended for each need, and softmax against sigmoid."""
    chosen = recommended(comparison)

    def cell(side: str, name: str, metric: str) -> dict[str, str]:
        value = comparison[name][metric]
        return {"side": side, "name": name, "value": number(value.value), "interval": interval(value)}

    return [
        {
            "need": duel.title,
            "title": METRICS[duel.metric].heading,
            "meaning": METRICS[duel.metric].meaning,
            "cells": [
                cell(side, name, duel.metric)
                for side, name in (
                    ("recommended", chosen[duel.need]),
                    ("softmax", duel.softmax),
                    ("sigmoid", duel.sigmoid),
                )
            ],
            "gap": _gap(duel.metric, duel.gap),
            "winner": None if duel.winner is None else "softmax" if duel.winner == duel.softmax else "sigmoid",
        }
        for duel in duels(comparison)
    ]


def _standing(comparison: Comparison, one: Standing) -> dict[str, Any]:
    """A family's card: aspect by aspect, its contender against those of the other families."""

    def lines(points: Sequence[Point]) -> list[dict[str, Any]]:
        return [
            {
                "aspect": aspect,
                "title": METRICS[first.metric].title,
                "one": f"{first.one} {number(comparison[first.one][first.metric].value)}",
                "others": [
                    f"{point.other} {number(comparison[point.other][point.metric].value)}: {gap_words(point.gap)}"
                    for point in (first, *others)
                ],
            }
            for aspect, group in groupby(points, key=lambda point: point.aspect)
            for first, *others in [list(group)]
        ]

    return {
        "family": one.family,
        "name": FAMILIES[one.family],
        "better": lines(one.better),
        "worse": lines(one.worse),
        "same": lines(one.same),
    }


def _gap(metric: str, gap: Difference) -> dict[str, str]:
    return {
        "value": signed(gap.value),
        "interval": f"{signed(gap.low)} to {signed(gap.high)}",
        "outcome": outcome(metric, gap),
    }


# -- the tables ----------------------------------------------------------------------------------


def _costs(comparison: Comparison) -> DataTable:
    def mib(size: int) -> str:
        return f"{size / MIB:,.1f}"

    return DataTable(
        "Time and memory per run",
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
    """Every contender minus a reference, and every pair, metric by metric."""
    names = [result.contender.name for result in comparison.results]
    reference = comparison.best("sigmoid", "map") or names[0]
    others = [name for name in names if name != reference]
    shown = [METRICS[name] for name in comparison.metrics if METRICS[name].shown]

    def cell(a: str, b: str, metric: str) -> dict[str, str]:
        return _gap(metric, comparison.difference(a, b, metric))

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
        ["queries", f"{data.queries:,}"],
        ["labels" if data.labels else "candidates", f"{data.candidates:,}"],
        ["right answers per query that has any, mean", f"{data.answers.mean:.2f}"],
        ["of those queries, with several", f"{data.answers.several:.0%}"],
        *[
            [f"{split} queries, of them with no right answer", f"{size:,}, {data.unanswered[split]:,}"]
            for split, size in data.splits.items()
        ],
    ]
    return DataTable(data.name, ["", ""], rows)


def _settings(comparison: Comparison) -> DataTable:
    trained = [(result.contender.name, asdict(result.settings)) for result in comparison.results if result.settings]
    names = list(trained[0][1]) if trained else []
    rows = [[name, *(_plain(settings[name]) for _, settings in trained)] for name in names]
    return DataTable("Chosen on dev; the seed is the first of each", ["", *(name for name, _ in trained)], rows)


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
