"""A comparison in plain words: which family this data prefers, and where nothing can be said."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sigmax.comparison.results import Comparison
from sigmax.metrics.intervals import Difference, difference, number
from sigmax.metrics.registry import METRICS

if TYPE_CHECKING:
    from sigmax.model.matches import Matches

__all__ = [
    "ASPECTS",
    "FAMILIES",
    "QUESTIONS",
    "Standing",
    "matches_words",
    "outcome",
    "signed",
    "standings",
    "verdict",
]

#: The families, as a reader calls them.
FAMILIES = {"softmax": "Softmax", "sigmoid": "Sigmoid", "today": "Today’s practice"}

#: What people want to know, and the metric that answers it.
QUESTIONS = {
    "ranking": ("map", "MAP"),
    "presence": ("log_loss", "log loss"),
    "saying “none of these”": ("none_auroc_logit", "AUROC of the largest logit"),
}
#: What one family may do better than another, and the metric that shows it.
ASPECTS = {
    "map": "Ranking, by MAP",
    "precision@1": "The best candidate, by precision@1",
    "log_loss": "Presence, by log loss a query",
    "smooth_calibration_error": "Calibration, by its smooth error",
    "micro_f1": "Accepting from a threshold on, by micro-F1",
    "none_auroc_logit": "“None of these” by the largest logit, AUROC",
    "none_auroc_any": "“None of these” by the probability of any, AUROC",
    "aurc": "Answering the surest first, by the area under risk–coverage",
}
#: Below this many test queries a bootstrap interval is too narrow to trust.
FEW_QUERIES = 50


def verdict(comparison: Comparison) -> str:
    """Return one paragraph: softmax against sigmoid, question by question, then today's practice.

    Today's practice is compared with whichever of ours ranked best on dev.
    The softmax is represented by its variant that did better on dev; the difference is measured on test.
    """
    data = comparison.data
    sentences = [
        f"On {data['name']} ({data['queries']:,} queries, {data['candidates']:,} candidates, "
        f"{data['answers_per_query']:.1f} right answers each where there are any):"
    ]
    for question, (metric, title) in QUESTIONS.items():
        if metric not in comparison.metrics:
            if metric.startswith("none"):
                sentences.append(
                    "Every test query has a right answer, so saying “none of these” could not be measured."
                )
            continue
        softmax = comparison.best("softmax", metric)
        sigmoid = comparison.best("sigmoid", metric)
        if softmax is None or sigmoid is None:
            continue
        sentences.append(_sentence(comparison, question, metric, title, softmax, sigmoid))
    sentences.extend(_shares(comparison))
    sentences.extend(_today(comparison))
    sentences.extend(_labels(comparison))
    if data["splits"]["test"] < FEW_QUERIES:
        sentences.append(
            f"With {data['splits']['test']} test queries the intervals are rough and another split may say otherwise: "
            "gather more before you decide."
        )
    return " ".join(sentences)


def _labels(comparison: Comparison) -> list[str]:
    """What fixed labels mean for the softmax, whatever was measured: one of them, several, or none."""
    data = comparison.data
    if not data["labels"] or comparison.best("softmax", "map") is None:
        return []
    unanswered = any(data["unanswered"].values())
    if not data["several_answers"]:
        have = "at most one label, and some have none" if unanswered else "exactly one label"
        return [
            f"Every item has {have}: where one is always there, softmax with cross-entropy is the textbook choice. Of "
            "an item that has none of the labels its shares add up to 1 all the same; logits and presences can say so."
        ]
    return [
        f"{data['several_answers']:.0%} of the items with a label have several: the averaged softmax is at its best "
        "when each of k right labels has a share of 1/k, so that with two none should have more than 0.5. Read "
        "presences, not shares."
    ]


@dataclass(frozen=True)
class Standing:
    """What a family does better and worse than the others on this data, each with its numbers; nothing beyond them."""

    family: str
    better: list[str]
    worse: list[str]
    same: list[str]  #: where no difference is shown


def standings(comparison: Comparison) -> list[Standing]:
    """Each family against each other one: by `ASPECTS`, both by their best on dev, measured on test.

    An advantage or disadvantage is a difference whose 95% interval excludes 0.
    """
    families = [family for family in FAMILIES if comparison.best(family, "map")]
    found = []
    for family in families:
        said: dict[str, list[str]] = {"better": [], "worse": [], "not significant": []}
        for metric, aspect in ASPECTS.items():
            for other in families:
                one, rival = comparison.best(family, metric), comparison.best(other, metric)
                if metric not in comparison.metrics or one is None or rival is None or one == rival:
                    continue
                gap = comparison.difference(one, rival, metric)
                values = (number(comparison[name][metric].value) for name in (one, rival))
                numbers = "{} for {one}, {} for {rival}; ".format(*values, one=one, rival=rival)
                said[outcome(metric, gap)].append(f"{aspect}: {numbers}{_gap(gap)}.")
        found.append(Standing(family, said["better"], said["worse"], said["not significant"]))
    return found


def outcome(metric: str, gap: Difference) -> str:
    """What a difference a − b says of a: better, worse, or not significant.

    Of a metric that is best at 1 a difference alone does not tell: "differs".
    """
    if not gap.significant:
        return "not significant"
    better = METRICS[metric].better
    if better == "closer to one":
        return "differs"
    return "better" if (gap.low > 0) == (better == "higher") else "worse"


def signed(value: float) -> str:
    """Print a difference: +0.026, -0.004, and never as 0 what is not."""
    if math.isnan(value):
        return "–"
    return f"{value:+.3f}" if not value or abs(value) >= 0.0005 else f"{value:+.1g}"


def matches_words(matches: Matches) -> str | None:
    """Say what the rule made of one query; None without calibration."""
    if matches.any is None or matches.decision is None:
        return None
    if not matches.accepted:
        return f"none of these (any right: {matches.any:.3f})"
    more = matches.accepted_count - sum(bool(matches.accepts(one)) for one in matches)
    return f"any right: {matches.any:.3f}" + (f"; {more} more accepted (--top-k shows them)" if more else "")


def _sentence(comparison: Comparison, question: str, metric: str, title: str, softmax: str, sigmoid: str) -> str:
    gap = comparison.difference(softmax, sigmoid, metric)
    one, other = comparison[softmax][metric], comparison[sigmoid][metric]
    detail = f"{title} {number(one.value)} for {softmax}, {number(other.value)} for {sigmoid}; {_gap(gap)}"
    if not gap.significant:
        return f"For {question} the difference is not significant ({detail})."
    softmax_wins = METRICS[metric].goodness(one.value) > METRICS[metric].goodness(other.value)
    return f"For {question} it prefers the {'softmax' if softmax_wins else 'sigmoid'} ({detail})."


def _shares(comparison: Comparison) -> list[str]:
    """What a share alone would have told about none-of-these."""
    if "none_auroc_share" not in comparison.metrics:
        return []
    softmax = comparison.best("softmax", "none_auroc_logit")
    if softmax is None:
        return []
    share, logit = (comparison[softmax].draws[f"none_auroc_{score}"] for score in ("share", "logit"))
    gap = difference(share, logit)
    says = _says(gap, "tells more than", "tells less than", "is not shown to differ from")
    return [
        f"Of {softmax}, the largest share {says} the largest logit about whether anything is right "
        f"(AUROC {number(float(share[0]))} against {number(float(logit[0]))}; {_gap(gap)})."
    ]


def _today(comparison: Comparison) -> list[str]:
    """The better family against one positive a row, in ranking."""
    names = {result.contender.name for result in comparison.results}
    ours = [result for result in comparison.results if result.contender.family != "today"]
    sentences = []
    if not ours:
        return []
    best = max(ours, key=lambda result: result.dev["map"]).contender.name
    for name, what in (
        ("one-positive", "the usual in-batch softmax with one positive a row"),
        ("tfidf-lr", "tf-idf with logistic regression"),
    ):
        if name in names:
            gap = comparison.difference(best, name, "map")
            says = _says(gap, "ranks better than", "ranks worse than", "ranks not significantly better or worse than")
            one, other = comparison[best]["map"], comparison[name]["map"]
            sentences.append(
                f"{best} {says} {what} (MAP {number(one.value)} against {number(other.value)}; {_gap(gap)})."
            )
    return sentences


def _says(gap: Difference, above: str, below: str, neither: str) -> str:
    """Choose the words by the side of 0 that the whole interval is on."""
    if not gap.significant:
        return neither
    return above if gap.low > 0 else below


def _gap(gap: Difference) -> str:
    return f"difference {signed(gap.value)}, 95% interval {signed(gap.low)} to {signed(gap.high)}"
