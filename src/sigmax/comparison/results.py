"""What a comparison found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from sigmax.arrays import Floats
from sigmax.comparison.contenders import Contender
from sigmax.comparison.examples import Example
from sigmax.comparison.label_promises import LabelPromises
from sigmax.data.check import Check
from sigmax.data.dataset import MatchDataset
from sigmax.errors import lookup
from sigmax.evaluation import Evaluation
from sigmax.metrics.intervals import Difference, Estimate, difference, estimate
from sigmax.metrics.registry import METRICS
from sigmax.training.settings import Settings

__all__ = ["Budget", "Comparison", "Result", "Training", "Trial"]


@dataclass(frozen=True)
class Budget:
    """What every contender may spend.

    Args:
        rates: learning rates tried, as multiples of the encoder's default.
        scales: starting scales tried, as multiples of the encoder's default.
        seeds: runs of the best of these, each with a seed of its own; the search uses the first.
    """

    rates: tuple[float, ...] = (0.3, 1.0)
    scales: tuple[float, ...] = (0.5, 1.0)
    seeds: int = 3

    @classmethod
    def of(cls, settings: Settings, data: MatchDataset) -> Budget:
        """Return what suits the encoder: a network over pictures or tokens gets one training, without a search."""
        return cls() if settings.filled(data).defaults.quick else cls((1.0,), (1.0,), 1)

    def __post_init__(self) -> None:
        """Check that there is something to do."""
        if not (self.rates and self.scales and self.seeds >= 1):
            raise ValueError(f"Expected at least one rate, one scale and one seed, got {self}.")

    @property
    def runs(self) -> int:
        """Return the runs of one contender."""
        return len(self.rates) * len(self.scales) + self.seeds - 1


@dataclass(frozen=True)
class Trial:
    """One setting of the search and how it did on dev."""

    learning_rate: float
    logit_scale: float
    dev: dict[str, float]


@dataclass(frozen=True)
class Training:
    """How the chosen setting was trained with the first seed."""

    curve: tuple[tuple[int, float], ...]  #: steps done, mean loss over the steps since the point before
    floor: float  #: see `loss_floor`
    parameter_bytes: int
    optimizer_bytes: int  #: the two moments that AdamW keeps of each parameter it trains


@dataclass(frozen=True, eq=False)
class Result:
    """What one contender reached on test."""

    contender: Contender
    settings: Settings | None
    trials: list[Trial]
    dev: dict[str, float]  #: dev metrics of the chosen setting, mean over seeds
    draws: dict[str, Floats]  #: metric -> (1 + draws,) on test, seeds combined
    evaluations: list[Evaluation]  #: one per seed
    train_seconds: float  #: of one run, mean
    training: Training | None = None  #: None for the scikit-learn baseline
    label_promises: LabelPromises | None = None  #: of the first seed; None where candidates are no labels

    def __getitem__(self, metric: str) -> Estimate:
        """Return a metric, mean over seeds, with its 95% interval over queries and seeds."""
        return estimate(self.draws[metric])


@dataclass(frozen=True, eq=False)
class Comparison:
    """All results on one data set. Tables, metrics and text only read it."""

    data: Check
    encoder: str
    metric: str
    steps: int
    batch_size: int
    budget: Budget
    results: list[Result]
    versions: dict[str, str] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()  #: test queries with the answers of each family's best, first seed
    peak_bytes: int | None = None  #: peak memory of the whole process; None where the system does not tell

    def __getitem__(self, name: str) -> Result:
        """Return a contender's result."""
        return lookup({result.contender.name: result for result in self.results}, name, "contender")

    @property
    def metrics(self) -> list[str]:
        """Return the names of the metrics that this data set allows."""
        return [name for name in METRICS if all(name in result.draws for result in self.results)]

    def difference(self, a: str, b: str, metric: str) -> Difference:
        """Return the paired difference a − b on test with its 95% interval over queries and seeds."""
        return difference(self[a].draws[metric], self[b].draws[metric])

    def best(self, family: str, metric: str) -> str | None:
        """Return the family's contender that did best on dev in a metric; None for a family without any."""
        of_family = [result for result in self.results if result.contender.family == family]
        known = [result for result in of_family if not math.isnan(result.dev.get(metric, math.nan))] or of_family
        found = max(known, key=lambda result: METRICS[metric].goodness(result.dev.get(metric, 0.0)), default=None)
        return None if found is None else found.contender.name

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON; curves and bins are those of the first seed."""
        return {
            "data": self.data.as_dict(),
            "encoder": self.encoder,
            "metric": self.metric,
            "steps": self.steps,
            "batch_size": self.batch_size,
            "budget": asdict(self.budget),
            "versions": self.versions,
            "peak_bytes": self.peak_bytes,
            "examples": [example.as_dict() for example in self.examples],
            "results": [
                {
                    **result.contender.as_dict(),
                    "settings": None if result.settings is None else result.settings.as_dict(),
                    "train_seconds": result.train_seconds,
                    "training": None if result.training is None else asdict(result.training),
                    "label_promises": None if result.label_promises is None else result.label_promises.as_dict(),
                    **{
                        name: evaluation[name]
                        for evaluation in [one.as_dict() for one in result.evaluations[:1]]
                        for name in ("competition", "reliability", "risk_coverage", "logits")
                    },
                    "dev": {name: _known(value) for name, value in result.dev.items()},
                    "test": {name: result[name].as_dict() for name in result.draws},
                    "test_by_seed": [
                        {name: _known(values[0]) for name, values in evaluation.draws.items()}
                        for evaluation in result.evaluations
                    ],
                    "trials": [asdict(trial) for trial in result.trials],
                }
                for result in self.results
            ],
            "differences": [
                {"a": a, "b": b, "metric": metric, **self.difference(a, b, metric).as_dict()}
                for a, b in combinations([result.contender.name for result in self.results], 2)
                for metric in self.metrics
            ],
        }


def _known(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if np.isnan(value) else float(value)
