"""Are queries those of dev? Without labels: what the model says of them, and a test that may be looked at any time.

Of each query some signs are looked at: its best logit, P(any), how many candidates the default rule accepts, and, of a
model that keeps what it was trained on, how familiar the query is (`sigmax.calibration.Familiar`): that is what tells a
query that is unlike anything in training. Were the queries of use drawn as those of dev, dev's and theirs would be
exchangeable: each new one's rank among dev and all that came before it would be uniform, independently of the others
(Vovk et al. 2005). With p that rank as a part (ties broken at random), the *simple jumper* (Vovk et al. 2021) bets
against it,

    M ← Σ_ε M_ε (1 + ε (p − ½)),   ε ∈ {−1, 0, 1}, a part `JUMP` of each M_ε being shared anew at every step

and so it does for |2p − 1|, which sees what moves into both tails. The mean of both starts at 1 and is a martingale
where nothing has changed, so that it *ever* reaches c with a probability of at most 1/c (Ville 1939). The evidence is
the largest of the signs' stakes over their number; it ever reaches 1/α with a probability of at most α, the false-alarm
rate of the alarm, however long one watches.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Floats
from sigmax.calibration.familiar import FALSE_ALARMS
from sigmax.calibration.record import SIGNS
from sigmax.errors import DataError
from sigmax.model.matches import Rated

if TYPE_CHECKING:  # a server imports this file, and not all of them need PyTorch or Arrow
    from sigmax.model.dual_encoder import DualEncoder
    from sigmax.scores.model import ScoreModel
    from sigmax.scores.table import Scores

__all__ = ["ALPHA", "Drift", "Sign", "bets", "drift", "evidence", "ranks_as_parts", "sign_of", "signs_of"]

#: False-alarm rate of the alarm.
ALPHA = 0.01
#: Part of the stakes that is shared anew at every step.
JUMP = 0.01
#: Queries that are named as most unlike.
NAMED = 10


@dataclass(frozen=True)
class Sign:
    """One sign of queries, then and now."""

    name: str
    dev: tuple[float, float, float]  #: 5%, 50% and 95% quantile on dev
    now: tuple[float, float, float]
    evidence: float  #: highest stake of the bets on this sign: 1 is none, 100 is strong


@dataclass(frozen=True, eq=False)
class Drift:
    """What queries without labels say of change."""

    queries: int
    dev_queries: int
    signs: tuple[Sign, ...]
    evidence: float  #: the highest that the signs' largest stake over their number ever was
    alpha: float
    alarm: int | None  #: the query with which it reached 1/α, from 1; None: never
    unlike: tuple[tuple[str, float], ...]  #: the most unlike queries and how many of dev's are as far out, as a part
    #: Part of the queries that are unlike anything in training; of queries like dev's it is `FALSE_ALARMS`, about. None
    #: for scores, and for a model that keeps nothing of its training queries.
    unlike_training: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            "queries": self.queries,
            "dev_queries": self.dev_queries,
            "alpha": self.alpha,
            "evidence": self.evidence,
            "alarm": self.alarm,
            "unlike_training": self.unlike_training,
            "signs": [vars(sign) for sign in self.signs],
            "unlike": [{"query": query, "part_of_dev": part} for query, part in self.unlike],
        }

    def words(self) -> str:
        """Say what came of it."""
        unlike = ""
        if self.unlike_training is not None:
            unlike = (
                f"{self.unlike_training:.1%} of the queries are unlike anything in training; of queries like dev's it "
                f"is {FALSE_ALARMS:.0%}. "
            )
        if self.alarm is None:
            return (
                f"{unlike}No alarm: evidence of change reached {self.evidence:.3g}; an alarm needs {1 / self.alpha:g}."
            )
        return (
            f"{unlike}Alarm: from query {self.alarm:,} on, these are not the queries of dev (evidence "
            f"{self.evidence:.3g}; of unchanged queries it reaches {1 / self.alpha:g} with a probability of at most "
            f"{self.alpha:g})."
        )


def drift(
    model: DualEncoder | ScoreModel, queries: Sequence[Any] | Scores, *, alpha: float = ALPHA, seed: int = 0
) -> Drift:
    """Compare queries of use, in the order they came, with those of dev.

    Args:
        model: a calibrated model, or calibrated scores.
        queries: texts or pictures; or scores, whose truth need not be known.
        alpha: false-alarm rate.
        seed: of ties.

    Raises:
        DataError: no calibration, or one saved before dev's signs were kept; no queries.
        ValueError: an alpha not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"Expected `alpha` between 0 and 1, both left out, got {alpha}.")
    record = None if model.calibrator is None else model.calibrator.record
    if record is None or record.signs is None:
        raise DataError(
            "What dev's queries looked like was not kept with this model. Calibrate it again: sigmax calibrate."
        )
    names, now, unlike_training = signs_of(model, queries)
    if not len(now):
        raise DataError("No queries to compare with dev.")
    dev = record.signs
    count = min(dev.shape[1], now.shape[1])  # older records do not tell how familiar dev's queries are
    dev, now = dev[:, :count], now[:, :count]
    stakes = evidence(dev, now, np.random.default_rng(seed))
    together = stakes.max(1) / count
    reached = np.flatnonzero(together >= 1 / alpha)
    signs = tuple(
        Sign(name, _three(dev[:, place]), _three(now[:, place]), float(stakes[:, place].max()))
        for place, name in enumerate(SIGNS[:count])
    )
    far, part = _unlike(dev, now)
    return Drift(
        len(now),
        len(dev),
        signs,
        float(together.max()),
        alpha,
        int(reached[0]) + 1 if len(reached) else None,
        tuple((names[place], float(part[place])) for place in far[:NAMED].tolist()),
        unlike_training,
    )


def evidence(dev: Floats, now: Floats, random: np.random.Generator) -> Floats:
    """(n, s) signs of dev and (k, s) new ones -> (k, s) the stake of the bets on each sign after each query."""
    parts = [ranks_as_parts(dev[:, place], now[:, place], random) for place in range(dev.shape[1])]
    return bets(np.stack(parts, axis=1))


def signs_of(
    model: DualEncoder | ScoreModel, queries: Sequence[Any] | Scores
) -> tuple[list[str], Floats, float | None]:
    """(n,) names of queries, (n, 3 or 4) their signs, as named in `SIGNS`, and the part that is unlike training."""
    from sigmax.scores.model import ScoreModel
    from sigmax.scores.table import Scores

    assert model.calibrator is not None
    if isinstance(model, ScoreModel):
        if not isinstance(queries, Scores):
            raise DataError("Calibrated scores watch scores, a table with query, candidate and score.")
        found = model.signs(queries)
        known = np.isfinite(found[:, 0])
        return [name for name, one in zip(queries.queries.to_pylist(), known, strict=True) if one], found[known], None
    threshold = model.calibrator.default_threshold
    checked = model.as_queries(queries)  # type: ignore[arg-type]
    rows, unlike = [], []
    for one in model.rate(checked, model.offer()):
        rows.append(sign_of(one, threshold))
        unlike += [] if one.familiar_p is None else [one.familiar_p <= FALSE_ALARMS]
    found = np.array(rows, np.float64).reshape(len(rows), -1)
    return [str(query) for query in checked], found, float(np.mean(unlike)) if unlike else None


def sign_of(rated: Rated, threshold: float) -> tuple[float, ...]:
    """Return the signs of one query that a calibrated model rated, as named in `SIGNS`; the last where it is known."""
    assert rated.presence is not None
    assert rated.any is not None
    found = float(rated.logits.max(initial=-np.inf)), rated.any, float((rated.presence >= threshold).sum())
    return found if rated.familiarity is None else (*found, rated.familiarity)


def ranks_as_parts(dev: Floats, now: Floats, random: np.random.Generator) -> Floats:
    """(n,) dev's and (k,) new values -> (k,) parts of dev and of those before that are lower, ties broken at random.

    Uniform and independent where all come from one source.
    """
    seen = np.sort(dev).tolist()
    parts = np.empty(len(now))
    for place, (value, chance) in enumerate(zip(now.tolist(), random.random(len(now)).tolist(), strict=True)):
        low, high = bisect.bisect_left(seen, value), bisect.bisect_right(seen, value)
        parts[place] = (low + chance * (high - low + 1)) / (len(seen) + 1)
        seen.insert(high, value)
    return parts


def bets(parts: Floats) -> Floats:
    """(k, …) parts, uniform if nothing changed -> (k, …) the stake after each: the mean of two simple jumpers."""
    return (_jumper(parts) + _jumper(np.abs(2 * parts - 1))) / 2


def _jumper(parts: Floats) -> Floats:
    width = parts.shape[1:]
    sides = np.array([-1.0, 0.0, 1.0]).reshape(3, *(1 for _ in width))
    stake = np.full((3, *width), 1 / 3)
    total = np.ones(width)
    found = np.empty(parts.shape)
    for place, part in enumerate(parts):
        stake = ((1 - JUMP) * stake + JUMP / 3) * (1 + sides * (part - 0.5))  # before, they add up to 1
        whole = stake.sum(0)
        stake /= whole  # what has been won is kept apart, so that it neither over- nor underflows
        total = np.minimum(total * whole, 1e300)
        found[place] = total
    return found


def _unlike(dev: Floats, now: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Places of the new queries, the farthest out first, and the part of dev that is as far out in any sign.

    A query that is more familiar than others is not unlike them: of that sign the low end alone is far out.
    """
    middle = np.median(dev, axis=0)
    width = np.maximum(np.subtract(*np.quantile(dev, [0.75, 0.25], axis=0)), 1e-9)
    both = np.arange(dev.shape[1]) < SIGNS.index("familiarity")
    steps = [(one - middle) / width for one in (dev, now)]
    far_dev, far_now = (np.where(both, np.abs(one), -one).max(1) for one in steps)
    part = 1 - np.searchsorted(np.sort(far_dev), far_now, side="left") / len(dev)
    return np.argsort(-far_now, kind="stable"), part


def _three(values: Floats) -> tuple[float, float, float]:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return low, middle, high
