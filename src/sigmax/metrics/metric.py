"""What a metric is, and what metrics are computed from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from sigmax.arrays import Bools, Floats, Ints
from sigmax.metrics.intervals import Statistic

__all__ = ["Better", "Metric", "Observed", "Ranks"]

Better = Literal["higher", "lower", "closer to one"]
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Ranks:
    """Where the right answers of n queries stand among all candidates."""

    queries: Ints  #: (p,) query of each right pair, rising
    ranks: Ints  #: (p,) 1 for the highest logit of the query; of equal logits the first candidate comes first
    n: int


@dataclass(frozen=True, eq=False)
class Observed:
    """The scored queries of a split beside the truth: all that a metric may look at.

    The columns are the m candidates; or, where these are very many, pairs of each query's own, see
    `sigmax.metrics.condense`: then `weights`, `columns` and `ranks` are given.

    Args:
        logits: (n, m) of n queries over m candidates.
        right: (n, m) which pairs are right.
        presence: (n, m) probability of each pair to be right; None for a model that was not calibrated.
        any_right: (n,) probability that at least one candidate is right; None as above.
        threshold: presence from which a pair is accepted; None as above.
        order: what candidates are ordered by, see `sigmax.metrics.ranking.ORDERS`.
        weights: (n, m) pairs that each stands for; None: each for itself.
        columns: (n, m) candidate of each pair, −1 where it stands for several; None: the m candidates in their order.
        ranks: of the right answers; None: those that the logits give.
        familiarity: (n,) how familiar each query is, larger the more; None for a model that keeps nothing of its
            training queries.
        alarms: (n,) whether it is flagged as unlike anything in training; None as above.
    """

    logits: NDArray[np.float32]
    right: Bools
    presence: Floats | None = None
    any_right: Floats | None = None
    threshold: float | None = None
    order: str = "presence"
    weights: Floats | None = None
    columns: Ints | None = None
    ranks: Ranks | None = None
    familiarity: Floats | None = None
    alarms: Bools | None = None
    _shared: dict[Callable[..., Any], Any] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def answered(self) -> Bools:
        """(n,) whether a query has a right answer."""
        answered: Bools = np.asarray(self.right.any(1))
        return answered

    @property
    def order_presence(self) -> Floats | None:
        """(n, m) presences to order candidates by; None to order them by logit."""
        return self.presence if self.order == "presence" else None

    def shared(self, build: Callable[[Observed], _T]) -> _T:
        """Return build(self), built once for all metrics that ask for it."""
        if build not in self._shared:
            self._shared[build] = build(self)
        found: _T = self._shared[build]
        return found


@dataclass(frozen=True)
class Metric:
    """A number that is measured on a split: how it is computed, and all that tables, pages and messages say of it.

    Args:
        name: as in JSON, in `Evaluation[name]` and for `metric`.
        title: its short name in tables, without a sign for which way is better.
        meaning: what it is, in one line.
        group: the question it answers: tables gather metrics by it.
        better: which way is better.
        compute: `Observed` -> the metric as a function of the queries' weights, see `Statistic`; None where the data
            or the model cannot give it.
        shown: whether the table of a comparison holds it; JSON and the table of one model always do.
        watched: whether training and search may choose by it: it needs nothing but logits and the right pairs.

    Raises:
        ValueError: a watched metric that is neither better higher nor better lower.
    """

    name: str
    title: str
    meaning: str
    group: str
    better: Better
    compute: Callable[[Observed], Statistic | None]
    shown: bool = True
    watched: bool = False

    def __post_init__(self) -> None:
        """Check that checkpoints can be ordered by a watched metric."""
        if self.watched and self.better not in ("higher", "lower"):
            raise ValueError(
                f'Expected `better` of {self.name}, a watched metric, to be "higher" or "lower", got {self.better!r}.'
            )

    @property
    def heading(self) -> str:
        """The title for a table, with a sign where higher is not better."""
        return self.title + {"higher": "", "lower": " ↓", "closer to one": " →1"}[self.better]

    def goodness(self, value: float) -> float:
        """Return a number that is higher the better the value is; NaN of NaN."""
        if self.better == "closer to one":
            return -abs(value - 1)
        return -value if self.better == "lower" else value
