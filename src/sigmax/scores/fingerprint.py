"""What the scores of a calibration looked like, to tell when others come that it was not made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sigmax.arrays import Floats
from sigmax.scores.table import Scores

__all__ = ["Fingerprint"]

#: Quantiles that are kept.
STEPS = 100
#: Rows that quantiles are taken of, about, at most.
SAMPLE = 200_000
#: How far two distributions may lie apart (Kolmogorov–Smirnov) beside what chance explains.
FAR = 0.25
#: Queries from which on anything is said.
FEWEST = 20


@dataclass(frozen=True)
class Fingerprint:
    """Quantiles of each column's scores, of its best score per query, and of the lengths of lists."""

    queries: int
    scores: dict[str, tuple[float, ...]]  #: column -> (STEPS + 1,) quantiles over rows
    best: dict[str, tuple[float, ...]]  #: column -> of the best (or lowest) score of each query
    missing: dict[str, float]  #: column -> part of the rows that it did not return
    lengths: tuple[float, ...]  #: of lists

    @classmethod
    def of(cls, scores: Scores) -> Fingerprint:
        """Look at scores."""
        grid = np.linspace(0, 1, STEPS + 1)
        of_rows, of_best, missing = {}, {}, {}
        filled = np.flatnonzero(scores.lengths)
        for place, name in enumerate(scores.columns):
            x = scores.values[:, place]
            known = x[:: max(1, len(x) // SAMPLE)]
            known = known[~np.isnan(known)]
            missing[name] = float(np.isnan(x).mean()) if len(x) else 0.0
            if not len(known):
                continue
            best = np.maximum.reduceat(np.where(np.isnan(x), -np.inf, x), scores.starts[filled])
            best = best[np.isfinite(best)]
            of_rows[name], of_best[name] = (tuple(np.quantile(part, grid).tolist()) for part in (known, best))
        lengths = tuple(np.quantile(scores.lengths[filled], grid).tolist()) if len(filled) else ()
        return cls(len(filled), of_rows, of_best, missing, lengths)

    def unlike(self, scores: Scores) -> list[str]:
        """Say what of other scores is unlike those that the calibration was made for; nothing for few queries.

        Two distributions are unlike where they lie further apart than `FAR` and what chance does to so many queries:
        FAR + 1.63 √(1/n + 1/m), the second part being the 1% point of the Kolmogorov–Smirnov test; or where a larger
        part than that lies outside of 98% of the scores then.
        """
        other = Fingerprint.of(scores)
        if other.queries < FEWEST:
            return []
        bound = FAR + 1.63 * float(np.sqrt(1 / max(self.queries, 1) + 1 / other.queries))
        said = []
        lengths = bool(self.lengths) and _distance(self.lengths, other.lengths) > bound
        for name, mine in self.scores.items():
            if name not in other.scores:
                continue
            theirs = other.scores[name]
            apart = max(_distance(mine, theirs), _outside(mine, theirs))
            if not lengths:  # the best of few are lower than the best of many
                apart = max(apart, _distance(self.best[name], other.best[name]))
            if apart > bound:
                said.append(
                    f"scores of {name!r} are unlike those calibrated on: {_span(other.scores[name])} now, "
                    f"{_span(mine)} then. Do they come from the same scorer? If not, calibrate anew"
                )
            if abs(other.missing[name] - self.missing[name]) > bound:
                said.append(
                    f"{name!r} returned {1 - other.missing[name]:.0%} of the rows now, {1 - self.missing[name]:.0%} "
                    "then: presences presume the same lists"
                )
        if lengths:
            said.append(
                f"lists hold {other.lengths[STEPS // 2]:g} candidates now (median), {self.lengths[STEPS // 2]:g} then: "
                "shares, and so presences, are among what is on the list"
            )
        return said

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Fingerprint:
        """Inverse of `as_dict`."""
        scores, best = ({name: tuple(values) for name, values in saved[part].items()} for part in ("scores", "best"))
        return cls(saved["queries"], scores, best, dict(saved["missing"]), tuple(saved["lengths"]))


def _distance(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the largest gap between two distribution functions, known by their quantiles."""
    a, b = np.array(one), np.array(other)
    places = np.concatenate([a, b])
    return float(np.abs(_below(a, places) - _below(b, places)).max())


def _outside(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return the part of a distribution that lies outside of the middle 98% of another, known by their quantiles."""
    return float(np.mean((np.array(other) < one[1]) | (np.array(other) > one[-2])))


def _below(quantiles: Floats, places: Floats) -> Floats:
    below: Floats = np.searchsorted(quantiles, places, side="right") / len(quantiles)
    return below


def _span(quantiles: tuple[float, ...]) -> str:
    return f"{quantiles[5]:.3g} to {quantiles[-6]:.3g} (90% of them)"
