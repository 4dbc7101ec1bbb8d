"""Which candidates are accepted: a threshold on presence, chosen on the dev split by a rule with a promise.

A promise is made *with confidence 1 − δ over dev splits*: of 100 dev splits drawn anew, at most 100·δ lead to a
threshold that breaks it. It needs no assumption about the model, and two about the data: dev queries and later ones
come from the same source, one by one, and the model was not chosen by this dev split (training on it would make the
promise void, choosing an epoch by its metrics makes it slightly optimistic). Calibration may see the split, but not the
query whose presences are recorded: a curve that reorders pairs would flatter those that it was fitted on. So what is
recorded of a query are presences of a calibration that was fitted without it (`fit_calibrator`). Of queries that are
nearly the same one is looked at, see `Record.witnesses`.

A promise is made over all dev splits that could have been drawn, those included where none can be made. Where it can
seldom be made, those that are made are broken more often than δ: at the edge of what a world allows, a split that
allows the promise is a lucky one. No test of the split alone can tell: that a promise was made has a chance π, so that
among those made up to δ / π are broken, and π is no more known from one split than the world is. A rule that refused
where π is small would have to look at the same split, and would be as lucky. What bounds it is δ: ask for confidence
0.99 and at most one split in a hundred makes a promise that it breaks.

MAPIE (`mapie.risk_control`) evaluates dense (n, m) predictions at a grid of thresholds fixed in advance, which no grid
of presences is once they were calibrated on the split, and knows no query without an answer: so the tests stand here.

How a threshold is chosen. Let ℓᵢ(t) in [0, 1] be what is lost on query i where presences from t on are accepted, and
a the loss that is allowed. For one t, a p-value of E ℓ(t) ≥ a is

- exact where ℓ is 0 or 1: P(Bin(n, a) ≤ Σᵢ ℓᵢ) (Clopper & Pearson 1934),
- else Hoeffding–Bentkus: min(exp(−n·kl(min(ℓ̄, a), a)), e·P(Bin(n, a) ≤ ⌈Σᵢ ℓᵢ⌉)) (Bates et al. 2021),

and thresholds are tested in a fixed order, one after the other, until one fails (Angelopoulos et al. 2021: learn then
test; with a loss that only rises or falls with t: Bates et al. 2021). The accepted pairs change at the presences of dev
pairs only, so testing there tests every t.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sigmax.arrays import Floats
from sigmax.calibration.p_values import fewest, p_values, queries_needed
from sigmax.calibration.query_losses import contains_loss, false_claims_loss, precision_loss, recall_loss
from sigmax.calibration.record import Record, ThresholdCurve
from sigmax.errors import lookup

__all__ = ["RULES", "Choice", "Decision", "Rule", "certified", "decide", "parse_rule"]


CONFIDENCE = 0.9
#: Testing for precision starts at some number of queries, and again at this many times as many, and so on.
RATIO = 4


#: Thresholds tested at a time.
BLOCK = 4096


def _one_minus(level: float) -> float:
    """Allow what is missing from the level to 1."""
    return 1 - level


def _identity(level: float) -> float:
    """Allow the level itself."""
    return level


@dataclass(frozen=True)
class Population:
    """The queries that a promise is about."""

    words: str
    count: Callable[[ThresholdCurve], int]  #: how many the split has, at most
    fallback: str  #: what happens where it has none: "best-f1", or "nothing" is accepted


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A way to choose a threshold.

    The loss of a query, its average allowed at a level, and which thresholds are tried first make the rule; see the
    module's head.
    """

    name: str
    summary: str  #: one line of help; {level} stands for the level
    chosen: str  #: how, for documentation
    example: str | None = None  #: a level to try; None for a rule that takes none and promises nothing
    population: Population | None = None  #: the queries its promise is about
    loss: Callable[[ThresholdCurve], tuple[Floats, Floats]] | None = None  #: (c,) Σ loss and (c,) number of queries
    allowed: Callable[[float], float] = _identity  #: level -> average loss allowed
    exact: bool = False  #: whether a query's loss is 0 or 1
    rises: bool = False  #: whether the loss rises with the threshold
    each: bool = False  #: whether it gives each candidate a threshold of its own, see `sigmax.calibration.each`
    steady: bool = True  #: whether it rises or falls for every query, so that any threshold may be tested first

    @property
    def takes_level(self) -> bool:
        """Whether a level belongs to the name, as in precision=0.95."""
        return self.loss is not None

    def p_values(self, curve: ThresholdCurve, level: float, places: slice = slice(None)) -> Floats:
        """P-values of `the average loss is not below the one allowed`, one for each t of the curve, or at some."""
        assert self.loss is not None
        total, n = self.loss(curve)
        return p_values(total[places], n[places], self.allowed(level), exact=self.exact)

    def needed(self, level: float, delta: float) -> int:
        """How many queries a promise needs if nothing at all is lost: the least n with (1 − a)ⁿ ≤ δ."""
        return fewest(delta, -math.log1p(-self.allowed(level)))


@dataclass(frozen=True)
class Choice:
    """A rule with its level."""

    name: str
    level: float | None = None

    def __post_init__(self) -> None:
        rule = lookup(RULES, self.name, "rule")
        if rule.takes_level and self.level is None:
            raise ValueError(f"Expected a level for {self.name}, got none. Try {self.name}={rule.example}.")
        if not rule.takes_level and self.level is not None:
            raise ValueError(f"Expected no level for {self.name}, got {self.level}. Try {self.name}.")
        if self.level is not None and not 0 < self.level < 1:
            raise ValueError(
                f"Expected the level of {self.name} between 0 and 1, both left out, got {self.level:g}. "
                f"Try {self.name}={rule.example}."
            )

    @property
    def rule(self) -> Rule:
        """The rule itself."""
        return RULES[self.name]

    def __str__(self) -> str:
        return self.name if self.level is None else f"{self.name}={self.level:g}"


@dataclass(frozen=True)
class Decision:
    """A threshold, and what it promises."""

    choice: Choice
    threshold: float  #: presences from here on are accepted; `NOTHING` accepts none
    promised: bool  #: whether the level holds with this confidence
    confidence: float
    reason: str | None  #: why nothing is promised, and what the threshold is instead
    needed: int | None  #: estimated number of such queries that would suffice; None if not known
    achieved: dict[str, float | None]  #: metrics on the split that it was chosen on
    thresholds: Mapping[str, float] | None = None  #: by candidate id, where each has its own; `threshold` for others

    def threshold_of(self, candidate_id: str) -> float:
        """Presence from which a candidate is accepted."""
        return self.threshold if self.thresholds is None else self.thresholds.get(candidate_id, self.threshold)

    @property
    def promise(self) -> str | None:
        """The promise in words; None where there is none."""
        if not self.promised or self.choice.level is None:
            return None
        return f"With confidence {self.confidence:g}: {self.choice.rule.summary.format(level=f'{self.choice.level:g}')}"

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        kept = {k: dict(v) if isinstance(v, Mapping) else v for k, v in vars(self).items() if k != "choice"}
        return {"rule": str(self.choice), **kept}


ANSWERED = Population("answered queries", lambda curve: curve.answered, fallback="nothing")
UNANSWERED = Population("queries without an answer", lambda curve: curve.unanswered, fallback="best-f1")
CLAIMED = Population("queries that get a candidate", lambda curve: int(curve.claims.max(initial=0)), fallback="best-f1")


#: Rules by name.
RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            name="best-f1",
            summary="the best F1 over all pairs of the dev split; promises nothing",
            chosen="2·hits / (accepted + right) is largest on dev.",
        ),
        Rule(
            name="precision",
            summary="of the candidates accepted for a query, at least {level} are right, averaged over queries that "
            "get any",
            chosen="Loss: share of wrong ones among the accepted of a query, over queries that get any. Averaged over "
            "queries and not over pairs, because no sample excludes the rare query that accepts hundreds of wrong "
            "candidates; where a query accepts at most one, both are the same. Hoeffding–Bentkus; thresholds from high "
            "to low, starting anew at four times as many queries, each start with its part of δ, which a run of "
            "successes carries on to the next (fallback procedure: Wiens 2003). Presumes that precision, once it fell "
            "below the level at so high a threshold that no test was possible there, stays below.",
            example="0.95",
            population=CLAIMED,
            loss=precision_loss,
            allowed=_one_minus,
            steady=False,
        ),
        Rule(
            name="recall",
            summary="of a query's right answers, at least {level} are accepted, averaged over queries that have any",
            chosen="Loss: share of the right answers of a query that is missed. Hoeffding–Bentkus, thresholds from low "
            "to high.",
            example="0.9",
            population=ANSWERED,
            loss=recall_loss,
            allowed=_one_minus,
            rises=True,
        ),
        Rule(
            name="contains",
            summary="of the queries that have a right answer, at least {level} get one (or more) accepted",
            chosen="Loss: whether every right answer of a query is missed. Exact, thresholds from low to high; in the "
            "words of conformal prediction a set whose coverage holds with confidence, not only on average over dev "
            "splits (Vovk 2012).",
            example="0.9",
            population=ANSWERED,
            loss=contains_loss,
            allowed=_one_minus,
            exact=True,
            rises=True,
        ),
        Rule(
            name="false-claims",
            summary="of the queries that have no right answer, at most {level} get any candidate accepted",
            chosen="Loss: whether a query without an answer gets a candidate. Exact, thresholds from high to low.",
            example="0.05",
            population=UNANSWERED,
            loss=false_claims_loss,
            exact=True,
        ),
        Rule(
            name="label-precision",
            summary="for each candidate that is ever accepted, at least {level} of the queries that get it are right",
            chosen="Loss: whether a query that gets the candidate gets it wrongly. Exact; thresholds for each "
            "candidate as for precision, all promises together with confidence 1 − δ: each of the L candidates that "
            "can have enough queries is tested with δ / L (Bonferroni), the others are never accepted.",
            example="0.9",
            population=CLAIMED,
            loss=precision_loss,
            allowed=_one_minus,
            exact=True,
            each=True,
            steady=False,
        ),
        Rule(
            name="macro-f1",
            summary="for each candidate, the best F1 that its presences on the dev split expect; promises nothing",
            chosen="2·Σ presence of the accepted / (accepted + Σ presence of all) is largest. Presences and not the "
            "truth choose: no threshold is picked for its luck, however many candidates and thresholds there are.",
            each=True,
        ),
    )
}


def parse_rule(text: str) -> Choice:
    """Read `name` or `name=level`, as in "precision=0.95".

    Raises:
        UnknownNameError: no such rule.
        ValueError: a level that is missing, not needed, no number, or not between 0 and 1.
    """
    name, sign, level = (part.strip() for part in text.partition("="))
    if not sign:
        return Choice(name)
    rule = lookup(RULES, name, "rule")
    if not rule.takes_level:
        raise ValueError(f"Expected no level for {name}, got {level!r}. Try {name}.")
    try:
        number = float(level)
    except ValueError as error:
        raise ValueError(
            f"Expected {name}=LEVEL with a number as the level, got {level!r}. Try {name}={rule.example}."
        ) from error
    return Choice(name, number)


def decide(choice: Choice | str, record: Record, *, confidence: float = CONFIDENCE) -> Decision:
    """Choose the threshold.

    Where the split is too small or too hard for the promise, the threshold is the one that meets the level on the
    split itself, and `promised` is false.

    Args:
        choice: a rule with its level, or its text such as "precision=0.95".
        record: of the dev split.
        confidence: 1 − δ, the share of dev splits whose threshold keeps the promise.

    Raises:
        ValueError: a rule that cannot be read, a confidence not between 0 and 1.
    """
    choice = parse_rule(choice) if isinstance(choice, str) else choice
    if choice.rule.each:
        raise ValueError(f"Expected candidates for {choice}, which has a threshold for each. Try Calibrator.decide.")
    if not 0 < confidence < 1:
        raise ValueError(f"Expected a confidence between 0 and 1, both left out, got {confidence}. Try {CONFIDENCE}.")
    rule, level, curve = choice.rule, choice.level, record.curve
    reason, needed = None, None
    promised = False
    if level is None:
        threshold = curve.threshold(_best_f1(curve))
        reason = None if curve.pairs else "The dev split has no right pair, so nothing is accepted."
    else:
        delta = 1 - confidence
        tested = record.witnesses.curve
        found = certified(rule, tested, level, delta)
        promised = found is not None
        if found is not None:
            threshold = tested.threshold(found)
        else:
            place, reason, needed = _without_promise(choice, record, delta)
            threshold = curve.threshold(place)
    return Decision(choice, threshold, promised, confidence, reason, needed, curve.at(threshold))


def certified(rule: Rule, curve: ThresholdCurve, level: float, delta: float) -> int | None:
    """Place of the threshold whose promise holds with confidence 1 − δ, −1 for `NOTHING`; None if there is none."""
    if not rule.steady:
        return _chains(rule, curve, level, delta)

    def failed(place: int) -> bool:
        return bool(rule.p_values(curve, level, slice(place, place + 1))[0] > delta)

    # Failures are on one side: p rises, or falls, with every place.
    places = range(len(curve.t) if rule.rises else curve.recorded)
    if rule.rises:
        place = bisect.bisect_left(places, True, key=lambda place: not failed(place))
        return place if place < len(places) else None
    place = bisect.bisect_left(places, True, key=failed) - 1
    return place if place >= 0 or curve.unanswered >= rule.needed(level, delta) else None


def _starts(rule: Rule, level: float, delta: float, n: int) -> list[int]:
    """Numbers of queries from which on to test: as many starts as fit into n queries, each with δ / starts."""
    starts: list[int] = []
    while True:
        first = rule.needed(level, delta / (len(starts) + 1))
        more = [first * RATIO**step for step in range(len(starts) + 1)]
        if more[-1] >= n:  # there must be a query that comes next, see `_chains`
            return starts
        starts = more


def _chains(rule: Rule, curve: ThresholdCurve, level: float, delta: float) -> int | None:
    """Last place that is rejected when p-values are tested in order from every start (Wiens 2003).

    A start is the lowest threshold at which its number of queries get a candidate: what lies above the query that
    comes next is a sample of its own.
    """
    starts = _starts(rule, level, delta, curve.answered + curve.unanswered)
    places = []
    for start in starts:
        place = int(np.searchsorted(curve.claims, start, side="right")) - 1
        if place < 0 or curve.claims[place] < start:
            place += 1  # equal presences: more queries at once
        if place < curve.recorded:
            places.append(place)
    last, carried = None, 0.0
    for place, end in zip(places, [*places, curve.recorded][1:], strict=True):
        carried += delta / len(starts)
        failed = np.zeros(0, np.int64)
        while place < end and not len(failed):
            part = slice(place, min(place + BLOCK, end))
            failed = np.flatnonzero(rule.p_values(curve, level, part) > carried)
            place = part.start + int(failed[0]) if len(failed) else part.stop
            if place > part.start:
                last = place - 1
        if len(failed):
            carried = 0.0
    return last


def _without_promise(choice: Choice, record: Record, delta: float) -> tuple[int, str, int | None]:
    """Place that meets the level on the split, why it is no promise, and how many queries would do."""
    curve, tested = record.curve, record.witnesses.curve
    rule, level = choice.rule, choice.level
    assert rule.loss is not None
    assert rule.population is not None
    assert level is not None
    allowed = rule.allowed(level)
    total, n = rule.loss(curve)
    available = rule.population.count(tested)
    words, once = rule.population.words, "" if record.groups is None else " (near-duplicates count once)"
    least = rule.needed(level, delta) + (not rule.steady)  # and the query that comes next, see `_chains`
    if not available:
        place = _best_f1(curve) if rule.population.fallback == "best-f1" else -1
        what = "nothing is accepted" if place < 0 else "the threshold is that of best F1 instead"
        return place, f"The dev split has no {words}; {least} would be needed at least; {what}.", least
    usable = len(curve.t) if rule.rises else curve.recorded
    meets = np.flatnonzero(total[:usable] <= allowed * n[:usable] + 1e-9)
    place = int(meets[0 if rule.rises else -1]) if len(meets) else -1
    what = "the threshold meets the level on the dev split only" if len(meets) else "nothing is accepted"
    best = _best_level(rule, tested, delta)
    if best is not None:
        what += f"; {rule.name}={best:g} can be promised with these {available} {words}{once}"
    if available < least:
        why = f"needs at least {least} {words}, the dev split has {available}{once}"
        return place, f"{choice} {why}; {what}.", least
    usable = len(tested.t) if rule.rises else tested.recorded
    total, n = (sums[:usable] for sums in rule.loss(tested))
    needed = queries_needed(total, n, allowed, delta, available)
    if needed is None:
        why = f"is not reached at any threshold that can be tested{_must_refuse(rule, tested, allowed)}"
        return place, f"{choice} {why}; {what}.", None
    why = f"cannot be promised from {available} {words}{once} with so many errors; about {needed} might do"
    return place, f"{choice} {why}; {what}.", needed


def _best_level(rule: Rule, curve: ThresholdCurve, delta: float) -> float | None:
    """Return the strictest level, in steps of a hundredth, that can be promised; None for none at all."""
    levels = [step / 100 for step in range(1, 100)]
    if rule.allowed(0.9) > rule.allowed(0.1):
        levels.reverse()  # now each is stricter than the one before
    count = bisect.bisect_left(levels, True, key=lambda level: certified(rule, curve, level, delta) is None)
    return levels[count - 1] if count else None


def _must_refuse(rule: Rule, curve: ThresholdCurve, allowed: float) -> str:
    """Say how many queries any rule would have to refuse, where that is the reason.

    Let the best candidate be wrong for a part μ of queries, and c be the part that gets one. At most 1 − c of the wrong
    ones are refused, so that μ − (1 − c) ≤ allowed · c: at least (μ − allowed) / (1 − allowed) are to be refused.
    """
    if rule.steady or not curve.recorded:
        return ""
    wrong = float(curve.missed[curve.recorded - 1] / curve.claims[curve.recorded - 1])
    part = (wrong - allowed) / (1 - allowed)
    if part <= 0:
        return ""
    return f": the best candidate is wrong for {wrong:.0%} of queries, so that any rule must refuse {part:.0%} or more"


def _best_f1(curve: ThresholdCurve) -> int:
    if not curve.pairs or not curve.recorded:
        return -1
    return int((2 * curve.hits / (curve.accepted + curve.pairs))[: curve.recorded].argmax())
