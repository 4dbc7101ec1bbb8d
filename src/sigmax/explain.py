"""The activation table: what softmax and sigmoid make of the same logits, and what a common shift does to each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sigmax.calibration.familiar import FALSE_ALARMS
from sigmax.errors import check_least
from sigmax.model.matches import Match

if TYPE_CHECKING:
    from sigmax.arrays import Floats
    from sigmax.calibration.calibrator import Calibrator
    from sigmax.data.pictures import Item, Picture, Query
    from sigmax.model.dual_encoder import DualEncoder
    from sigmax.model.matches import Rated

__all__ = [
    "BOUNDS",
    "Activation",
    "Explanation",
    "common_shift",
    "explain",
    "explain_logits",
    "explain_rated",
    "parse_logits",
]

#: A probability below the first is *absent*, from the second on *present*, between them *perhaps*. Symmetric about even
#: odds: one to three against, three to one for.
BOUNDS = (0.25, 0.75)
#: Rows are hidden only if more than this many would be: a table with "one more" is no shorter.
_SPARE = 2
#: What rounding a share to three decimals may hide.
_SHARE_TOLERANCE = 0.0005


@dataclass(frozen=True)
class Activation(Match):
    """One candidate of one item: a row of the table. Its logit s is the activation."""

    exp: float  #: eˢ; infinite where a float cannot hold it
    binary: float  #: σ(s) = 1 / (1 + e⁻ˢ)
    verdict: str  #: "present", "perhaps" or "absent", by `probability`
    #: What each word that the item shares with the candidate adds to the logit, the most first; empty where they share
    #: none, None for a model without a lexical view.
    shared: Mapping[str, float] | None = None

    @property
    def probability(self) -> float:
        """What the verdict goes by: the presence where calibrated, else binary."""
        return self.binary if self.presence is None else self.presence


@dataclass(frozen=True)
class Explanation:
    """The activations of one item.

    There is no P(any) without a calibration: noisy-or over candidates would multiply their errors.
    """

    item: str  #: its text, or its picture's name; empty for bare activations
    activations: tuple[Activation, ...]  #: the rows shown
    offered: int  #: candidates that the shares are over, shown or not
    expected: float  #: Σ of the probabilities of all of them: how many are expected to be right
    any: float | None  #: probability that at least one of them is right; None without a calibration
    bounds: tuple[float, float]
    calibrated: bool
    #: P-value of "drawn as the dev queries were", see `sigmax.model.Matches`.
    familiar_p: float | None = None
    competition: float | None = None  #: how much it counts in presences, see `sigmax.calibration.Calibrator`
    picture: Picture | None = None  #: what to draw at the head

    @property
    def unlike_training(self) -> bool | None:
        """Whether the item is unlike anything in training, see `sigmax.model.Matches`."""
        return None if self.familiar_p is None else self.familiar_p <= FALSE_ALARMS

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the picture, for JSON; an exp that no float holds is None."""
        return {
            "item": self.item,
            "offered": self.offered,
            "expected": self.expected,
            "any": self.any,
            "familiar_p": self.familiar_p,
            "unlike_training": self.unlike_training,
            "bounds": list(self.bounds),
            "calibrated": self.calibrated,
            "competition": self.competition,
            "activations": [
                {**asdict(one), "exp": one.exp if math.isfinite(one.exp) else None} for one in self.activations
            ],
        }


class Calibrated(Protocol):
    """What is read of whatever rates: of a model, and of calibrated scores, which have no words and no second look."""

    @property
    def calibrator(self) -> Calibrator | None:
        """What made presences of logits."""


def explain_logits(logits: Mapping[str, float], *, item: str = "", bounds: tuple[float, float] = BOUNDS) -> Explanation:
    """Explain bare activations: share = eˢ / Σ eˢ, binary = 1 / (1 + e⁻ˢ).

    Args:
        logits: label -> activation, of all labels offered, in the order to show.
        item: what they are of.
        bounds: absent below the first, present from the second on.

    Raises:
        ValueError: no logits, one that is not finite, or bounds that are not 0 ≤ low ≤ high ≤ 1.

    Example:
        >>> rows = explain_logits({"cat": 0, "fish": 2}).activations
        >>> [f"{one.share:.3f} {one.binary:.3f} {one.verdict}" for one in rows]
        ['0.119 0.500 perhaps', '0.881 0.881 present']
    """
    _check_bounds(bounds)
    if not logits:
        raise ValueError("Expected at least one activation, got none.")
    for label, logit in logits.items():
        if not math.isfinite(logit):
            raise ValueError(f"Expected a finite activation of {label!r}, got {logit}.")
    largest = max(logits.values())
    weights = [math.exp(logit - largest) for logit in logits.values()]
    total = math.fsum(weights)
    rows = tuple(
        _activation(Match(label, label, float(logit), weight / total, None), bounds)
        for (label, logit), weight in zip(logits.items(), weights, strict=True)
    )
    return Explanation(item, rows, len(rows), math.fsum(row.probability for row in rows), None, bounds, False)


def explain(
    model: DualEncoder, items: Sequence[Item], *, top_k: int = 10, bounds: tuple[float, float] = BOUNDS
) -> list[Explanation]:
    """Explain what a model makes of items; every explanation has the same rows, in the same order.

    Args:
        model: its logits, scale · similarity + bias, are the activations.
        items: texts, or for a model of pictures what `sigmax.data.pictures.as_picture` reads, such as file names.
        top_k: candidates of each item that are shown; those of any item are shown for all, the largest share first.
            All are shown where this would leave out no more than two.
        bounds: absent below the first, present from the second on.

    Returns:
        One explanation for each item.

    Raises:
        ValueError: what `DualEncoder.match` refuses, one text instead of a list, `top_k` below 1, or bounds that are
            not 0 ≤ low ≤ high ≤ 1.
        DataError: a picture that cannot be read.
    """
    _check_bounds(bounds)
    if isinstance(items, str):
        raise ValueError(f"Expected a list of items, got the text {items!r}. Try [{items!r}].")
    check_least(1, top_k=top_k)
    queries = model.as_queries(items)
    rated = list(model.rate(queries, model.offer()))
    return explain_rated(queries, rated, model, top_k=top_k, bounds=bounds)


def explain_rated(
    items: Sequence[Query],
    rated: Sequence[Rated],
    model: Calibrated,
    *,
    top_k: int,
    bounds: tuple[float, float] = BOUNDS,
) -> list[Explanation]:
    """Explain items from the ratings that a model or calibrated scores gave them, all over one offer; see `explain`."""
    calibrator = model.calibrator
    offered = len(rated[0].logits) if rated else 0
    shown = offered if offered <= top_k + _SPARE else top_k
    largest: dict[int, float] = {}
    for one in rated:
        for place in one.best(shown).tolist():
            largest[place] = max(float(one.shares[place]), largest.get(place, 0.0))
    order = sorted(largest, key=lambda place: -largest[place])
    return [
        Explanation(
            str(item),
            tuple(
                _activation(one.match(place), bounds, _shared(model, item, one.candidates[place])) for place in order
            ),
            offered,
            float((_binary(one.logits.astype(np.float64)) if one.presence is None else one.presence).sum()),
            one.any,
            bounds,
            one.presence is not None,
            one.familiar_p,
            None if calibrator is None else calibrator.competition,
            None if isinstance(item, str) else item,
        )
        for item, one in zip(items, rated, strict=True)
    ]


def common_shift(a: Explanation, b: Explanation) -> float | None:
    """Return c where b's logits are a's plus c, as far as shares of three decimals can tell; None where they are not.

    With sᵇⱼ = sᵃⱼ + c + εⱼ and all |εⱼ| ≤ t, the log odds of every share move by at most 2t, and the share, a σ of
    slope at most ¼, by at most t/2. Three decimals hide 0.0005, so t = 0.001, about the midpoint c of the differences.
    Of candidates that are not shown only the sum is known, through the shares: those must agree within 0.0005 as well.
    """
    ours = {one.candidate_id: one for one in a.activations}
    theirs = {one.candidate_id: one for one in b.activations}
    if ours.keys() != theirs.keys() or a.offered != b.offered:
        return None
    gaps = [theirs[key].logit - ours[key].logit for key in ours]
    low, high = min(gaps), max(gaps)
    alike = all(abs(theirs[key].share - ours[key].share) <= _SHARE_TOLERANCE for key in ours)
    # Logits such as 0.02 are no binary fractions: differences of 0.002 come out a little above.
    return (low + high) / 2 if alike and (high - low) / 2 <= 2 * _SHARE_TOLERANCE * (1 + 1e-9) else None


def parse_logits(text: str) -> dict[str, float]:
    """Read "label=number,label=number", or a JSON object where labels hold commas.

    A label may hold spaces, and "=": the last one counts. A minus may be "-" or "−".

    Raises:
        ValueError: no pairs, a pair without label or number, a number that is not finite, a label given twice.

    >>> parse_logits("cat=0.02, a = b=-2")
    {'cat': 0.02, 'a = b': -2.0}
    >>> parse_logits('{"a, b": 1}')
    {'a, b': 1.0}
    """
    text = text.strip()
    if not text:
        raise ValueError("Expected label=number pairs such as cat=0.02,dog=-2.49, got nothing.")
    logits: dict[str, float] = {}
    for label, given in _pairs(text):
        if not label:
            raise ValueError(f"Expected a label before the number, got {f'={given}'!r}.")
        if label in logits:
            raise ValueError(f"Expected each label once, got {label!r} twice.")
        try:
            logits[label] = float(str(given).replace("−", "-"))
        except ValueError:
            raise ValueError(f"Expected a number for {label!r}, got {given!r}.") from None
        if not math.isfinite(logits[label]):
            raise ValueError(f"Expected a finite number for {label!r}, got {given}.")
    return logits


def _pairs(text: str) -> list[tuple[str, Any]]:
    if text.startswith("{"):
        try:
            # Pairs, not a dict: a label given twice must be seen.
            pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list, parse_int=float)
        except ValueError as error:
            raise ValueError(f'Expected JSON such as {{"a, b": 1.0}}, got {text!r} ({error}).') from None
        if not pairs:
            raise ValueError('Expected JSON such as {"a, b": 1.0}, got no pairs.')
        for label, given in pairs:
            if not isinstance(given, float):
                raise ValueError(f"Expected a number for {label!r}, got {json.dumps(given)}.")
        return pairs
    pairs = []
    for part in text.split(","):
        label, equals, given = part.rpartition("=")
        if not equals:
            raise ValueError(
                f'Expected label=number, got {part.strip()!r}. A label with a comma needs JSON: {{"a, b": 1.0}}.'
            )
        pairs.append((label.strip(), given.strip()))
    return pairs


def _shared(model: Calibrated, item: Query, candidate: str) -> dict[str, float] | None:
    lexical, reranker = getattr(model, "lexical", None), getattr(model, "reranker", None)
    if lexical is None or not isinstance(item, str):
        return None
    weight = 1.0 if reranker is None else reranker.first
    return {word: weight * added for word, added in lexical.shared(item, candidate).items()}


def _activation(match: Match, bounds: tuple[float, float], shared: Mapping[str, float] | None = None) -> Activation:
    try:
        exp = math.exp(match.logit)
    except OverflowError:
        exp = math.inf
    binary = float(_binary(np.float64(match.logit)))
    probability = binary if match.presence is None else match.presence
    low, high = bounds
    verdict = "present" if probability >= high else "perhaps" if probability >= low else "absent"
    return Activation(**vars(match), exp=exp, binary=binary, verdict=verdict, shared=shared)


def _binary(logits: Floats | np.float64) -> Floats:
    """σ(s)."""
    binary: Floats = np.exp(-np.logaddexp(0.0, -logits))
    return binary


def _check_bounds(bounds: tuple[float, float]) -> None:
    if not 0 <= bounds[0] <= bounds[1] <= 1:
        raise ValueError(f"Expected bounds with 0 ≤ low ≤ high ≤ 1, got {bounds}.")
