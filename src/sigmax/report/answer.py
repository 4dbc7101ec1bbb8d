"""What a comparison answers: which contender to train for which need, chosen on dev and judged on test.

Words, tables and pages only read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sigmax.metrics.intervals import Difference
from sigmax.metrics.registry import METRICS

if TYPE_CHECKING:
    from sigmax.comparison.results import Comparison

__all__ = ["ASPECTS", "FAMILIES", "NEEDS", "Duel", "Point", "Standing", "duels", "outcome", "recommended", "standings"]

#: The families, as a reader calls them.
FAMILIES = {"softmax": "Softmax", "sigmoid": "Sigmoid", "today": "Today’s practice"}
#: What people need, and the metric that says who serves it best.
NEEDS = {"ranking": "map", "presences": "log_loss", "“none of these”": "none_auroc_any"}
#: What one family may do better than another, and the metric that shows it.
ASPECTS = {
    "Ranking": "map",
    "The best candidate": "precision@1",
    "Presences": "log_loss",
    "Calibration": "smooth_calibration_error",
    "Accepting from a threshold on": "micro_f1",
    "“None of these” by the largest logit": "none_auroc_logit",
    "“None of these” by the probability that any is right": "none_auroc_any",
    "Answering the surest first": "aurc",
}


def outcome(metric: str, gap: Difference) -> str:
    """Return what a difference a − b says of a: better, worse, or not significant.

    Of a metric that is best at 1 a difference alone does not tell: "differs".
    """
    if not gap.significant:
        return "not significant"
    better = METRICS[metric].better
    if better == "closer to one":
        return "differs"
    return "better" if (gap.low > 0) == (better == "higher") else "worse"


# -- which to train ------------------------------------------------------------------------------


def recommended(comparison: Comparison) -> dict[str, str]:
    """Return the contender to use for each need that could be measured.

    One contender for all of them where nothing tried is shown to be better at any: the first such in the order of dev
    by the metric that chose the settings. Else, need by need, the one of ours that did best on dev, unless something of
    today's practice is better on test.
    """
    needs = _measured(comparison)
    ours = [result.contender.name for result in comparison.results if result.contender.family != "today"]
    ours = ours or [result.contender.name for result in comparison.results]
    for name in _by_dev(comparison, ours, comparison.metric):
        if not any(_better(comparison, name, metric) for metric in needs.values()):
            return dict.fromkeys(needs, name)
    chosen = {}
    for need, metric in needs.items():
        (first, *_) = _by_dev(comparison, ours, metric)
        ahead = [name for name in _better(comparison, first, metric) if name not in ours]
        chosen[need] = next(iter(_by_dev(comparison, ahead, metric)), first)
    return chosen


def _measured(comparison: Comparison) -> dict[str, str]:
    return {need: metric for need, metric in NEEDS.items() if metric in comparison.metrics}


def _by_dev(comparison: Comparison, names: Sequence[str], metric: str) -> list[str]:
    """Contenders in the order of a dev metric, the best first; those without it last."""

    def key(name: str) -> tuple[bool, float]:
        value = comparison[name].dev.get(metric)
        goodness = float("nan") if value is None else METRICS[metric].goodness(value)
        return (True, 0.0) if goodness != goodness else (False, -goodness)

    return sorted(names, key=key)


def _better(comparison: Comparison, name: str, metric: str) -> list[str]:
    """Contenders that are significantly better on test."""
    others = [result.contender.name for result in comparison.results if result.contender.name != name]
    return [other for other in others if outcome(metric, comparison.difference(other, name, metric)) == "better"]


# -- softmax against sigmoid ---------------------------------------------------------------------


@dataclass(frozen=True)
class Duel:
    """Softmax against sigmoid for one need: the best of each on dev, and their difference on test."""

    need: str  #: a key of `NEEDS`
    metric: str
    softmax: str
    sigmoid: str
    gap: Difference  #: softmax − sigmoid

    @property
    def title(self) -> str:
        """The need, as a line begins."""
        return self.need.replace("n", "N", 1) if self.need.startswith("“") else self.need.capitalize()

    @property
    def winner(self) -> str | None:
        """The contender that is significantly better; None if there is none."""
        return {"better": self.softmax, "worse": self.sigmoid}.get(outcome(self.metric, self.gap))


def duels(comparison: Comparison) -> list[Duel]:
    """Return softmax against sigmoid for each need that could be measured; none where a family is missing."""
    found = []
    for need, metric in _measured(comparison).items():
        softmax, sigmoid = comparison.best("softmax", metric), comparison.best("sigmoid", metric)
        if softmax is not None and sigmoid is not None:
            found.append(Duel(need, metric, softmax, sigmoid, comparison.difference(softmax, sigmoid, metric)))
    return found


# -- what each family does better and worse ------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """One contender against another in one aspect."""

    aspect: str
    metric: str
    one: str
    other: str
    gap: Difference  #: one − other


@dataclass(frozen=True)
class Standing:
    """What a family does better and worse than the others on this data, and nothing beyond it."""

    family: str
    better: list[Point]
    worse: list[Point]
    same: list[Point]  #: where no difference is shown


def standings(comparison: Comparison) -> list[Standing]:
    """Return each family against each other one: by `ASPECTS`, both by their best on dev, measured on test.

    An advantage or disadvantage is a difference whose 95% interval excludes 0.
    """
    families = [family for family in FAMILIES if comparison.best(family, "map")]
    found = []
    for family in families:
        points: dict[str, list[Point]] = {"better": [], "worse": [], "not significant": []}
        for aspect, metric in ASPECTS.items():
            for other in families:
                one, rival = comparison.best(family, metric), comparison.best(other, metric)
                if metric not in comparison.metrics or one is None or rival is None or one == rival:
                    continue
                gap = comparison.difference(one, rival, metric)
                points[outcome(metric, gap)].append(Point(aspect, metric, one, rival, gap))
        found.append(Standing(family, points["better"], points["worse"], points["not significant"]))
    return found
