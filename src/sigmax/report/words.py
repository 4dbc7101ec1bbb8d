"""Results in plain words: what a comparison advises, and what a rule made of a query."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sigmax.calibration.familiar import UNLIKE
from sigmax.metrics.intervals import Difference, difference, number
from sigmax.metrics.registry import METRICS
from sigmax.report.answer import NEEDS, Duel, duels, recommended

if TYPE_CHECKING:
    from sigmax.comparison.results import Comparison
    from sigmax.model.matches import Matches

__all__ = ["gap_words", "headline", "matches_words", "notes", "signed", "verdict"]

#: Below this many test queries a bootstrap interval is too narrow to trust.
FEW_QUERIES = 50


# -- a comparison --------------------------------------------------------------------------------


def verdict(comparison: Comparison) -> str:
    """Return the headline and under it, line by line, what it rests on.

    The softmax is represented by its variant that did better on dev; differences are measured on test.
    """
    lines = [
        *(duel_words(comparison, duel) for duel in duels(comparison)),
        *_today(comparison),
        *_shares(comparison),
        *notes(comparison),
    ]
    return "\n".join([headline(comparison), *(f"• {line}" for line in lines)])


def headline(comparison: Comparison) -> str:
    """Return one sentence to act on: what to train for which need."""
    names = [result.contender.name for result in comparison.results]
    if len(names) == 1:
        return f"{names[0]} had no contender to be compared with."
    needs: dict[str, list[str]] = {}
    for need, name in recommended(comparison).items():
        needs.setdefault(name, []).append(need)
    if len(needs) == 1:
        ((name, served),) = needs.items()
        return f"{_do(comparison, name)}: nothing tried is shown to be better at {_listed(served, 'or')}."
    (first, served), *others = needs.items()
    parts = [f"{_do(comparison, first)} for {_listed(served)}"]
    for name, served in others:
        if served[0] == "presences":
            parts.append(f"take {_listed(served)} from {_named(comparison, name)}")
        else:
            parts.append(f"for {_listed(served)} use {_named(comparison, name)}")
    return "; ".join(parts) + "."


def duel_words(comparison: Comparison, duel: Duel) -> str:
    """Say which of softmax and sigmoid serves a need better, with the numbers."""
    names = (duel.sigmoid, duel.softmax) if duel.winner == duel.sigmoid else (duel.softmax, duel.sigmoid)
    one, other = (number(comparison[name][duel.metric].value) for name in names)
    gap = comparison.difference(*names, duel.metric)
    measured = f"{METRICS[duel.metric].title} {one} against {other}: {gap_words(gap)}"
    if duel.winner is None:
        return f"{duel.title}: no significant difference between {names[0]} and {names[1]} ({measured})."
    return f"{duel.title}: {names[0]} is better than {names[1]} ({measured})."


def notes(comparison: Comparison) -> list[str]:
    """Return what a reader should know beside the numbers: of labels, of what could not be measured, of few queries."""
    data = comparison.data
    found = [*_labels(comparison), *_competition(comparison)]
    if NEEDS["“none of these”"] not in comparison.metrics:
        found.append("Every test query has a right answer, so “none of these” could not be measured.")
    if data.splits["test"] < FEW_QUERIES:
        found.append(
            f"With {data.splits['test']} test queries the intervals are rough and another split may say otherwise: "
            "gather more before you decide."
        )
    return found


def _do(comparison: Comparison, name: str) -> str:
    return f"{'Use' if comparison[name].contender.loss is None else 'Train'} {_named(comparison, name)}"


def _named(comparison: Comparison, name: str) -> str:
    known_as = comparison[name].contender.known_as
    return f"{name} ({known_as})" if known_as else name


def _listed(items: list[str], word: str = "and") -> str:
    return f" {word} ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


def _labels(comparison: Comparison) -> list[str]:
    """What fixed labels mean for the softmax, whatever was measured: one of them, several, or none."""
    data = comparison.data
    if not data.labels or comparison.best("softmax", "map") is None:
        return []
    unanswered = any(data.unanswered.values())
    if not data.answers.several:
        have = "at most one label, and some have none" if unanswered else "exactly one label"
        return [
            f"Every item has {have}: where one is always there, softmax with cross-entropy is the textbook choice. "
            "For an item that has none of the labels its shares add up to 1 all the same; read logits and presences."
        ]
    return [
        f"{data.answers.several:.0%} of the items with a label have several: the averaged softmax is at its best "
        "when each of k right labels has a share of 1/k, so with two none should have more than 0.5. Read presences, "
        "not shares."
    ]


def _competition(comparison: Comparison) -> list[str]:
    """How much competition counts in the presences of each contender, first seed."""
    parts = [
        f"{result.contender.name} {one.competition:.0%}"
        for result in comparison.results
        for one in result.evaluations[:1]
        if one.competition is not None
    ]
    if not parts:
        return []
    return [
        f"How much competition counts in presences: {_listed(parts)}. At 0% a candidate is judged by itself, as a "
        "sigmoid does, at 100% only against the others, as a softmax does; dev chose it."
    ]


def _shares(comparison: Comparison) -> list[str]:
    """What a share alone would have told about none-of-these."""
    softmax = comparison.best("softmax", "none_auroc_logit")
    if "none_auroc_share" not in comparison.metrics or softmax is None:
        return []
    share, logit = (comparison[softmax].draws[f"none_auroc_{score}"] for score in ("share", "logit"))
    gap = difference(share, logit)
    says = "tells more than" if gap.low > 0 else "tells less than"
    says = says if gap.significant else "is not shown to differ from"
    return [
        f"Of {softmax}, the largest share {says} the largest logit about whether anything is right "
        f"(AUROC {number(float(share[0]))} against {number(float(logit[0]))}: {gap_words(gap)})."
    ]


def _today(comparison: Comparison) -> list[str]:
    """Today's practice against the contender to rank with."""
    names = [result.contender.name for result in comparison.results]
    ours = [result.contender.name for result in comparison.results if result.contender.family != "today"]
    if not ours:
        return []
    best = max(ours, key=lambda name: comparison[name].dev["map"])
    lines = []
    for name in names:
        if not comparison[name].contender.known_as:
            continue
        what = comparison[name].contender.known_as
        gap = comparison.difference(best, name, "map")
        says = "better than" if gap.low > 0 else "worse than"
        says = says if gap.significant else "neither significantly better nor worse than"
        one, other = (number(comparison[each]["map"].value) for each in (best, name))
        lines.append(f"Today’s practice: {best} ranks {says} {what} (MAP {one} against {other}: {gap_words(gap)}).")
    return lines


# -- a query -------------------------------------------------------------------------------------


def matches_words(matches: Matches) -> str | None:
    """Say what the rule made of one query; None without calibration."""
    if matches.outcome is None:
        return None
    unlike = f"; {UNLIKE} (p = {matches.familiar_p:.2g})" if matches.unlike_training else ""
    if not matches.accepted_count:
        return f"{matches.outcome} (any right: {matches.any:.3f}){unlike}"
    more = matches.accepted_count - sum(bool(matches.accepts(one)) for one in matches)
    return f"any right: {matches.any:.3f}" + (f"; {more} more accepted (--top-k shows them)" if more else "") + unlike


# -- numbers -------------------------------------------------------------------------------------


def gap_words(gap: Difference) -> str:
    """Print a difference and its interval."""
    return f"{signed(gap.value)}, 95% interval {signed(gap.low)} to {signed(gap.high)}"


def signed(value: float) -> str:
    """Print a difference: +0.026, -0.004, and never as 0 what is not."""
    if math.isnan(value):
        return "–"
    return f"{value:+.3f}" if not value or abs(value) >= 0.0005 else f"{value:+.1g}"
