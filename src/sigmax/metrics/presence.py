"""Presence of each pair: log loss, Brier score, calibration, F1 at a threshold.

Sums over pairs are kept per query, so that every metric can be bootstrapped over queries without another pass over the
pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sigmax.arrays import Bools, Floats, Ints
from sigmax.metrics.bins import expected_edges, mass_edges, sums_by_place
from sigmax.metrics.intervals import Estimate, Statistic, estimate, mean_statistic
from sigmax.metrics.metric import Better, Metric, Observed
from sigmax.metrics.slope import logistic_slope, on_grid
from sigmax.metrics.smooth import smooth_error, smooth_grid, spread

if TYPE_CHECKING:
    from scipy import sparse

__all__ = ["METRICS", "PRESENCE", "PresenceTally", "ReliabilityBin", "presence_tally"]

#: The group of these metrics.
PRESENCE = "presence"
#: Pairs from which the bins and the grid are chosen, at most.
SAMPLE = 4_000_000
#: Candidates of which macro-F1 keeps a column each, whether or not there is anything in it.
MOST_COLUMNS = 10_000
#: Queries that are added up at a time, at most, and pairs.
BLOCK, PAIRS = 256, 2**18


@dataclass(frozen=True)
class ReliabilityBin:
    """Pairs of similar presence, and how many of them are right."""

    pairs: int
    presence: float  #: mean
    right: Estimate  #: share of right pairs, with its 95% interval over queries

    def as_dict(self) -> dict[str, Any]:
        """Return pairs, presence and right, for JSON."""
        return {"pairs": self.pairs, "presence": self.presence, "right": self.right.as_dict()}


class PresenceTally:
    """Sums over blocks of queries, from which the metrics follow.

    With presence p and truth y of each of N pairs:

    - log_loss: mean over queries of Σⱼ −y log p − (1 − y) log(1 − p), in nats per query;
    - brier: mean over queries of Σⱼ (p − y)²;
    - calibration_error: Σ_b (n_b / N) |mean p − mean y| over `BINS` bins of equally many pairs
      (adaptive ECE: Nixon et al. 2019);
    - smooth_calibration_error: the σ at which ∫₀¹ |Σ (p − y) K_σ(t, p) / N| dt = σ, K_σ(t, p) being the normal density
      at t with mean p and deviation σ, reflected at 0 and 1 (smooth ECE: Błasiok & Nakkiran 2023); p is shared between
      its neighbours on a grid whose steps are about σ/4 or less;
    - calibration_slope: the maximum-likelihood b of P(y) = σ(a + b · logit p) (Cox 1958): 1 where presences are spread
      as they should be, below 1 where they are overconfident, above 1 where underconfident; NaN where right and wrong
      pairs are perfectly separated, or |b| > `STEEPEST`;
    - expected_ratio: Σ p / Σ y, expected over actual right pairs (calibration in the large);
    - micro_f1 and macro_f1 of p ≥ threshold: over all pairs together, and the mean over the candidates that are
      right or claimed at least once.

    Args:
        threshold: presence from which a pair is claimed.
        edges: (BINS − 1,) inner edges of the bins, see `mass_edges`.
        expected_edges: inner edges of the bins of the reliability diagram, see `expected_edges`; None: `edges`.
        grid: steps of [0, 1] for the smooth calibration error, see `smooth_grid`.
    """

    def __init__(
        self, threshold: float, edges: Floats, *, expected_edges: Floats | None = None, grid: int = 2048
    ) -> None:
        self.threshold = threshold
        self.edges = edges
        self.expected_edges = edges if expected_edges is None else expected_edges
        self.grid = grid
        self._blocks: list[dict[str, Floats]] = []
        self._residuals: list[sparse.csr_array] = []
        self._claims: list[tuple[sparse.csr_array, sparse.csr_array, sparse.csr_array]] = []

    @classmethod
    def like(cls, presence: Floats, right: Bools, threshold: float, weights: Floats | None = None) -> PresenceTally:
        """Make a tally whose bins and grid suit pairs like these (k,), each standing for as many as its weight."""
        return cls(
            threshold,
            mass_edges(presence, weights=weights),
            expected_edges=expected_edges(presence, weights),
            grid=smooth_grid(presence, right, weights),
        )

    def add(self, presence: Floats, right: Bools, weights: Floats | None = None, columns: Ints | None = None) -> None:
        """Add a block of queries.

        Args:
            presence: (b, m) in [0, 1].
            right: (b, m).
            weights: (b, m) pairs that each stands for; None: each for itself.
            columns: (b, m) candidate of each pair, −1 where it stands for several, which macro-F1 then leaves out;
                None: the m candidates in their order.
        """
        from scipy import sparse, special

        p = np.clip(presence, 1e-12, 1 - 1e-12)
        z = special.logit(p)
        one: Floats | float = 1.0 if weights is None else weights
        there: Bools | bool = True if weights is None else weights > 0
        accepted = presence >= self.threshold
        self._blocks.append(
            {
                "log_loss": (-np.where(right, np.log(p), np.log1p(-p)) * one).sum(1),
                "brier": ((presence - right) ** 2 * one).sum(1),
                "answers": right.sum(1).astype(float),
                "answer_logits": np.where(right, z, 0).sum(1),
                "logits": on_grid(z, weights),
                "right_range": _range(z, right),
                "wrong_range": _range(z, ~right & there),
                "hits": (accepted & right).sum(1).astype(float),
                "accepted": (accepted * one).sum(1),
                **_in_bins(presence, right, weights, self.edges, ""),
                **_in_bins(presence, right, weights, self.expected_edges, "expected_"),
            }
        )
        rows = np.repeat(np.arange(len(p)), p.shape[1])
        places, parts = spread(presence.ravel(), ((presence - right) * one).ravel(), self.grid)
        some = parts != 0  # pairs of weight 0 fill rows up
        entries = parts[some], (np.tile(rows, 2)[some], places[some])
        self._residuals.append(sparse.csr_array(entries, shape=(len(p), self.grid + 1)))
        self._claims.append(tuple(_by_candidate(part, columns) for part in (accepted & right, accepted & there, right)))

    def metrics(self) -> dict[str, Statistic]:
        """Return the metrics over all that was added, in the order of `METRICS`."""
        total = self._total()
        hits, said, there = _same_columns([_stacked(parts) for parts in zip(*self._claims, strict=True)])
        pairs = total["pairs"].sum(1)
        self._residuals = [_stacked(self._residuals)]  # the parts are not held beside the whole
        residuals = self._residuals[0].T.tocsr()
        start = smooth_error(np.asarray(residuals.sum(1))[None] / pairs.sum(), 4 / self.grid)[0]

        def calibration_error(weights: Floats) -> Floats:
            gap = np.abs(weights @ total["claimed"] - weights @ total["right"]).sum(1)
            error: Floats = gap / (weights @ pairs)
            return error

        def smooth_calibration_error(weights: Floats) -> Floats:
            errors = np.empty(len(weights))
            for at in range(0, len(weights), 50):  # (50, grid) at a time
                block = weights[at : at + 50]
                mean = (residuals @ np.ascontiguousarray(block.T)).T / (block @ pairs)[:, None]
                errors[at : at + 50] = smooth_error(mean, start)
            return errors

        def calibration_slope(weights: Floats) -> Floats:
            sums = weights @ np.stack([total["answers"], total["answer_logits"]], 1)
            slopes = logistic_slope(weights @ total["logits"], sums)
            for row in np.flatnonzero(np.abs(slopes) > 2):  # the grid cannot tell steep from infinitely steep
                drawn = weights[row] > 0
                right, wrong = total["right_range"][drawn], total["wrong_range"][drawn]
                if right[:, 0].min() >= wrong[:, 1].max() or right[:, 1].max() <= wrong[:, 0].min():
                    slopes[row] = np.nan
            return slopes

        def expected_ratio(weights: Floats) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = (weights @ total["claimed"].sum(1)) / (weights @ total["answers"])
            return np.where(np.isfinite(ratio), ratio, np.nan)

        def micro_f1(weights: Floats) -> Floats:
            return _f1(*(weights @ total[name] for name in ("hits", "accepted", "answers")))

        def macro_f1(weights: Floats) -> Floats:
            means = np.empty(len(weights))
            height = max(1, PAIRS // max(1, hits.shape[1]))  # (height, m) at a time
            for start in range(0, len(weights), height):
                block = weights[start : start + height]
                f1 = _f1(*((part.T @ block.T).T for part in (hits, said, there)))
                known = ~np.isnan(f1)
                with np.errstate(invalid="ignore"):
                    means[start : start + height] = np.where(known, f1, 0).sum(1) / known.sum(1)
            return means

        return {
            "log_loss": mean_statistic(total["log_loss"]),
            "brier": mean_statistic(total["brier"]),
            "calibration_error": calibration_error,
            "smooth_calibration_error": smooth_calibration_error,
            "calibration_slope": calibration_slope,
            "expected_ratio": expected_ratio,
            "micro_f1": micro_f1,
            "macro_f1": macro_f1,
        }

    def reliability(self, weights: Floats) -> tuple[ReliabilityBin, ...]:
        """Return the bins of the reliability diagram that hold pairs, by rising presence.

        Args:
            weights: (1 + draws, n), for the intervals.
        """
        total = self._total()
        pairs, claimed, right = (weights @ total[f"expected_{name}"] for name in ("pairs", "claimed", "right"))
        with np.errstate(invalid="ignore"):
            shares = right / pairs
        return tuple(
            ReliabilityBin(int(pairs[0, b]), float(claimed[0, b] / pairs[0, b]), estimate(shares[:, b]))
            for b in np.flatnonzero(pairs[0])
        )

    def _total(self) -> dict[str, Floats]:
        """Name -> (n, …) of all queries."""
        return {name: np.concatenate([block[name] for block in self._blocks]) for name in self._blocks[0]}


def _f1(hits: Floats, said: Floats, right: Floats) -> Floats:
    """2·hits / (said + right); NaN where nothing was said nor right."""
    with np.errstate(invalid="ignore"):
        f1: Floats = 2 * hits / (said + right)
    return f1


def _range(z: Floats, among: Bools) -> Floats:
    """(b, 2) least and largest of the values among each row; +∞ and −∞ where there is none."""
    return np.stack([np.where(among, z, np.inf).min(1), np.where(among, z, -np.inf).max(1)], 1)


def _by_candidate(pairs: Bools, columns: Ints | None) -> sparse.csr_array:
    """(b, candidates) 1 where a candidate is among a query's pairs."""
    from scipy import sparse

    rows, places = np.nonzero(pairs)
    if columns is not None:
        places = columns[rows, places]
        rows, places = rows[places >= 0], places[places >= 0]
    width = pairs.shape[1] if columns is None else int(places.max(initial=-1)) + 1
    return sparse.csr_array((np.ones(len(rows)), (rows, places)), shape=(len(pairs), width))


def _stacked(parts: Sequence[sparse.csr_array]) -> sparse.csr_array:
    """The rows of all parts, which may differ in width."""
    from scipy import sparse

    width = max(part.shape[1] for part in parts)
    for part in parts:
        part.resize(part.shape[0], width)
    stacked: sparse.csr_array = sparse.vstack(parts).tocsr()
    return stacked


def _same_columns(tables: list[sparse.csr_array]) -> list[sparse.csr_array]:
    """Tables of the same columns; of very many, those alone that one of them has anything in."""
    if len({table.shape[1] for table in tables}) == 1 and tables[0].shape[1] <= MOST_COLUMNS:
        return tables
    from scipy import sparse

    used = np.unique(np.concatenate([table.indices for table in tables]))
    return [
        sparse.csr_array(
            (table.data, np.searchsorted(used, table.indices), table.indptr), shape=(table.shape[0], len(used))
        )
        for table in tables
    ]


def _in_bins(presence: Floats, right: Bools, weights: Floats | None, edges: Floats, prefix: str) -> dict[str, Floats]:
    """(b, bins) of each query: its pairs, the sum of their presences, and how many are right."""
    bins = len(edges) + 1
    places = np.searchsorted(edges, presence, side="right")
    return {
        f"{prefix}pairs": sums_by_place(places, weights, bins),
        f"{prefix}claimed": sums_by_place(places, presence if weights is None else presence * weights, bins),
        f"{prefix}right": sums_by_place(places, right, bins),
    }


def presence_tally(observed: Observed) -> PresenceTally | None:
    """Add up the presences of a split; None for a model that was not calibrated."""
    presence, right, weights, columns = observed.presence, observed.right, observed.weights, observed.columns
    if presence is None or observed.threshold is None:
        return None
    sample = slice(None, None, max(1, presence.size // SAMPLE))
    tally = PresenceTally.like(
        presence.ravel()[sample],
        right.ravel()[sample],
        observed.threshold,
        None if weights is None else weights.ravel()[sample],
    )
    height = max(1, min(BLOCK, PAIRS // max(1, presence.shape[1])))
    for start in range(0, len(presence), height):
        part = slice(start, start + height)
        tally.add(
            presence[part],
            right[part],
            None if weights is None else weights[part],
            None if columns is None else columns[part],
        )
    return tally


def _statistics(observed: Observed) -> dict[str, Statistic]:
    tally = observed.shared(presence_tally)
    return {} if tally is None else tally.metrics()


def _metric(name: str, title: str, meaning: str, better: Better, *, shown: bool = True) -> Metric:
    def compute(observed: Observed) -> Statistic | None:
        return observed.shared(_statistics).get(name)

    return Metric(name, title, meaning, PRESENCE, better, compute, shown=shown)


METRICS = (
    _metric("log_loss", "log loss per query", "log loss of presences, nats per query, summed over candidates", "lower"),
    _metric(
        "brier", "Brier per query", "squared error of presences per query, summed over candidates", "lower", shown=False
    ),
    _metric(
        "calibration_error",
        "calibration error",
        "mean gap between presence and truth, equal-mass bins over all pairs",
        "lower",
    ),
    _metric(
        "smooth_calibration_error",
        "smooth calibration error",
        "mean gap between presence and truth, smoothed instead of binned",
        "lower",
        shown=False,
    ),
    _metric(
        "calibration_slope",
        "calibration slope",
        "slope of truth on the presences' logits: 1 is perfect, below 1 overconfident, above 1 underconfident",
        "closer to one",
    ),
    _metric(
        "expected_ratio",
        "expected / actual right pairs",
        "sum of presences over number of right pairs: 1 is perfect",
        "closer to one",
        shown=False,
    ),
    _metric("micro_f1", "micro-F1", "F1 over all pairs, at the threshold chosen on dev", "higher"),
    _metric("macro_f1", "macro-F1", "mean of the candidates' F1, at the threshold chosen on dev", "higher"),
)
