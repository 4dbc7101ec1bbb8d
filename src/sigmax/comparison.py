"""Every contender on one data set, treated alike: same encoder, same budget, same search, same seeds."""

from __future__ import annotations

import gc
import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations, product
from typing import Any

import numpy as np

from sigmax.baselines import TfidfBaseline
from sigmax.data.batches import Batches
from sigmax.data.check import check
from sigmax.data.dataset import SPLITS, MatchDataset
from sigmax.encoders import default_encoder, defaults_of
from sigmax.errors import DataError, lookup
from sigmax.evaluation import FIGURES, Evaluation, Scorer, calibrate, evaluate, goodness, quick_figures
from sigmax.examples import Answers, Example, best_answers, choose_examples
from sigmax.metrics.intervals import Difference, Estimate, Floats, combine_seeds, difference, estimate
from sigmax.model import DualEncoder
from sigmax.training import Settings, check_answers, loss_floor, train

__all__ = [
    "CONTENDERS",
    "Budget",
    "Comparison",
    "Contender",
    "Result",
    "Training",
    "Trial",
    "compare",
    "contenders_for",
]


log = logging.getLogger("sigmax")

#: Points of a training curve, at most.
POINTS = 200


@dataclass(frozen=True)
class Contender:
    """One way to train, compared with the others."""

    name: str
    family: str  #: "softmax", "sigmoid" or "today": what is done without Sigmax
    describes: str
    loss: str | None = None  #: objective; None for the scikit-learn baseline
    draw: str = "known-positives"
    none_candidate: bool = False  #: train *none of these* as a candidate
    texts: bool = False  #: reads only texts


CONTENDERS: dict[str, Contender] = {
    entry.name: entry
    for entry in (
        Contender("softmax-average", "softmax", "softmax + CE, target 1/k for each right answer", "softmax-average"),
        Contender(
            "softmax-decoupled", "softmax", "softmax + CE, each right answer against wrong ones", "softmax-decoupled"
        ),
        Contender(
            "softmax-none",
            "softmax",
            "softmax-decoupled with *none of these* as one more candidate, right where nothing else is",
            "softmax-decoupled",
            none_candidate=True,
        ),
        Contender("sigmoid", "sigmoid", "sigmoid + BCE, every pair on its own", "sigmoid"),
        Contender(
            "one-positive",
            "today",
            "in-batch softmax: one right answer a row, everything else in the batch wrong",
            "softmax-average",
            "one-positive",
        ),
        Contender("tfidf-lr", "today", "scikit-learn tf-idf + one-against-rest logistic regression", texts=True),
    )
}


@dataclass(frozen=True)
class Budget:
    """What every contender may spend.

    Args:
        rates: learning rates tried, as multiples of the encoder's default.
        scales: starting scales tried, as multiples of the encoder's default.
        seeds: trainings with the best of these, each with a seed of its own; the search uses the first.
    """

    rates: tuple[float, ...] = (0.3, 1.0)
    scales: tuple[float, ...] = (0.5, 1.0)
    seeds: int = 3

    @classmethod
    def of(cls, settings: Settings, data: MatchDataset) -> Budget:
        """Return what suits the encoder: a network over pictures or tokens gets one training, without a search."""
        quick = defaults_of(settings.encoder or default_encoder(data), data, frozen=settings.frozen).quick
        return cls() if quick else cls((1.0,), (1.0,), 1)

    def __post_init__(self) -> None:
        """Check that there is something to do."""
        if not (self.rates and self.scales and self.seeds >= 1):
            raise ValueError(f"Expected at least one rate, one scale and one seed, got {self}.")

    @property
    def runs(self) -> int:
        """Trainings of one contender."""
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
    dev: dict[str, float]  #: dev figures of the chosen setting, mean over seeds
    draws: dict[str, Floats]  #: figure -> (1 + draws,) on test, seeds combined
    evaluations: list[Evaluation]  #: one a seed
    train_seconds: float  #: mean of one training
    training: Training | None = None  #: None for the scikit-learn baseline

    def __getitem__(self, figure: str) -> Estimate:
        """Return a figure, mean over seeds, with its 95% interval over queries and seeds."""
        return estimate(self.draws[figure])


@dataclass(frozen=True, eq=False)
class Comparison:
    """All results on one data set. Tables, figures and text only read it."""

    data: dict[str, Any]
    encoder: str
    metric: str
    steps: int
    batch_size: int
    budget: Budget
    results: list[Result]
    versions: dict[str, str] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()  #: test queries with the answers of each family's best, first seed
    peak_bytes: int | None = None  #: most memory the whole process ever held; None where the system does not tell

    def __getitem__(self, name: str) -> Result:
        """Return a contender's result."""
        return lookup({result.contender.name: result for result in self.results}, name, "contender")

    @property
    def figures(self) -> list[str]:
        """Names of the figures this data set allows."""
        return [name for name in FIGURES if all(name in result.draws for result in self.results)]

    def difference(self, a: str, b: str, figure: str) -> Difference:
        """Paired difference a − b on test with its 95% interval over queries and seeds."""
        return difference(self[a].draws[figure], self[b].draws[figure])

    def best(self, family: str, figure: str) -> str | None:
        """Name of a family's contender that did best on dev in a figure; None for a family without any."""
        of_family = [result for result in self.results if result.contender.family == family]
        known = [result for result in of_family if not math.isnan(result.dev.get(figure, math.nan))] or of_family
        found = max(known, key=lambda result: goodness(figure, result.dev.get(figure, 0.0)), default=None)
        return None if found is None else found.contender.name

    def as_dict(self) -> dict[str, Any]:
        """Return everything, for JSON; curves and bins are those of the first seed."""
        return {
            "data": self.data,
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
                    **asdict(result.contender),
                    "settings": None if result.settings is None else asdict(result.settings),
                    "train_seconds": result.train_seconds,
                    "training": None if result.training is None else asdict(result.training),
                    **{
                        name: evaluation[name]
                        for evaluation in [one.as_dict() for one in result.evaluations[:1]]
                        for name in ("reliability", "risk_coverage", "logits")
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
                {"a": a, "b": b, "figure": figure, **self.difference(a, b, figure).as_dict()}
                for a, b in combinations([result.contender.name for result in self.results], 2)
                for figure in self.figures
            ],
        }


#: Called with (fraction done in [0, 1], what is being done).
Advance = Callable[[float, str], None]
#: Steps done and mean loss over the steps since the point before.
Curve = list[tuple[int, float]]


def contenders_for(data: MatchDataset) -> list[str]:
    """Names of the contenders that make sense on a data set."""
    unanswered = data.unanswered("train") > 0
    return [
        name
        for name, entry in CONTENDERS.items()
        if (entry.loss is not None or data.labels)
        and (unanswered or not entry.none_candidate)
        and not (entry.texts and data.pictures)
    ]


def compare(
    data: MatchDataset,
    settings: Settings | None = None,
    *,
    contenders: Sequence[str] | None = None,
    budget: Budget | None = None,
    advance: Advance | None = None,
) -> Comparison:
    """Train every contender with the same encoder, number of steps, search and seeds; measure on test.

    Each contender's learning rate and starting scale are searched on dev by `settings.metric`; the best setting is
    trained with each seed. Test is looked at once a seed, after everything was chosen.

    Args:
        data: the data set.
        settings: what all share; their loss, draw, seed, learning rate and scale are set by the comparison.
        contenders: names in `CONTENDERS`; None: all that fit the data.
        budget: search and seeds; None: what suits the encoder, see `Budget.of`.
        advance: called as work goes on.

    Raises:
        DataError: data without a right answer in one of the splits.
        ValueError: an unknown contender.
    """
    shared = (settings or Settings()).filled(data)
    budget = budget or Budget.of(shared, data)
    names = list(dict.fromkeys(contenders or contenders_for(data)))
    entries = [lookup(CONTENDERS, name, "contender") for name in names]
    for entry in entries:
        if entry.none_candidate and not data.unanswered("train"):
            raise DataError(f"{entry.name} needs training queries with no right answer; {data.name} has none.")
        if entry.name not in contenders_for(data):
            raise DataError(f"{entry.name} needs texts with fixed labels: data with columns text and labels.")
    steps = Batches(data, batch_size=shared.batch_size or 1, epochs=shared.epochs or 1).steps
    shared = replace(shared, steps=shared.steps or steps)
    check_answers(data, SPLITS)
    gc.collect()
    gc.freeze()  # Trainer collects garbage at each start: 0.2 s with all imports, 5 ms without them
    if any(entry.family == "softmax" for entry in entries):
        _tell(data)
    trained = [entry for entry in entries if entry.loss is not None]
    total = budget.runs * len(trained) + (len(entries) - len(trained))
    done = 0
    results, answers = [], {}
    for entry in entries:
        step = _part(advance, entry.name, done, total)
        run = _run(entry, data, shared, budget, step) if entry.loss else _run_baseline(entry, data, step)
        results.append(run[0])
        answers[entry.name] = run[1]
        done += budget.runs if entry.loss else 1
    comparison = Comparison(
        data=facts(data),
        encoder=shared.encoder or "",
        metric=shared.metric,
        steps=shared.steps or steps,
        batch_size=shared.batch_size or 1,
        budget=budget,
        results=results,
        versions=_versions(),
        peak_bytes=_peak_bytes(),
    )
    families = ("softmax", "sigmoid") if trained else ("today",)
    shown = [name for name in (comparison.best(family, shared.metric) for family in families) if name]
    return replace(comparison, examples=choose_examples(data, {name: answers[name] for name in shown or names}))


def _tell(data: MatchDataset) -> None:
    """Say once what each training would say."""
    unanswered = data.unanswered("train")
    if unanswered:
        log.info(
            "%d of %d training queries have no right answer: the softmax leaves them out, the sigmoid learns from "
            "them.",
            unanswered,
            len(data.split("train")),
        )


def facts(data: MatchDataset) -> dict[str, Any]:
    """Return the data set's sizes and faults, for people."""
    counts = data.answer_counts
    answered = counts[counts > 0]
    return {
        "name": data.name,
        "fingerprint": data.fingerprint,
        "queries": len(data.queries),
        "candidates": len(data.candidates),
        "labels": data.labels,
        "answers_per_query": float(answered.mean()) if len(answered) else 0.0,
        "several_answers": float((answered > 1).mean()) if len(answered) else 0.0,
        "splits": {name: len(data.split(name)) for name in SPLITS},
        "unanswered": {name: data.unanswered(name) for name in SPLITS},
        "findings": check(data).findings,
    }


def _known(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return None if np.isnan(value) else float(value)


def _part(advance: Advance | None, name: str, done: int, total: int) -> Advance:
    """Progress of one contender, in runs, as progress of the whole."""

    def step(runs: float, what: str) -> None:
        if advance is not None:
            advance(min(1.0, (done + runs) / total), f"{name}: {what}")

    return step


def _run(
    entry: Contender, data: MatchDataset, shared: Settings, budget: Budget, advance: Advance
) -> tuple[Result, list[Answers]]:
    seconds: list[float] = []

    def fit(rate: float, scale: float, seed: int, what: str) -> tuple[DualEncoder, Curve]:
        curve: Curve = []

        def logged(at: int, figures: dict[str, float]) -> None:
            if "loss" in figures:
                curve.append((at, figures["loss"]))

        settings = _settings(entry, shared, rate, scale, seed)
        number = len(seconds)
        begin = time.perf_counter()
        model = train(
            data,
            settings,
            stop_early=False,
            tell=False,
            calibrated=False,
            progress=lambda at, of, _: advance(number + at / of, what),
            logged=logged,
        )
        seconds.append(time.perf_counter() - begin)
        return model, curve

    trials: list[Trial] = []
    first: dict[tuple[float, float], tuple[DualEncoder, Curve]] = {}
    for rate, scale in product(budget.rates, budget.scales):
        settings = _settings(entry, shared, rate, scale, shared.seed)
        model, curve = fit(
            rate, scale, shared.seed, f"search {len(trials) + 1} of {len(budget.rates) * len(budget.scales)}"
        )
        figures = quick_figures(model, data, split="dev")
        trials.append(Trial(settings.learning_rate or 0.0, settings.logit_scale or 0.0, figures))
        if not first or figures[shared.metric] >= max(trial.dev[shared.metric] for trial in trials):
            first = {(rate, scale): (model, curve)}
    (((rate, scale), (model, curve)),) = first.items()
    models = [model]
    for seed in range(1, budget.seeds):
        models.append(fit(rate, scale, shared.seed + seed, f"seed {seed + 1} of {budget.seeds}")[0])
    chosen = _settings(entry, shared, rate, scale, shared.seed)
    training = _training(model, curve, chosen, data)
    return _measured(entry, chosen, trials, models, data, float(np.mean(seconds)), training)


def _training(model: DualEncoder, curve: Curve, settings: Settings, data: MatchDataset) -> Training:
    places = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), POINTS)).round().astype(int)).tolist()
    sizes = [(parameter.nbytes, parameter.requires_grad) for parameter in model.parameters()]
    return Training(
        tuple(curve[place] for place in places),
        loss_floor(data, settings),
        sum(size for size, _ in sizes),
        2 * sum(size for size, trained in sizes if trained),
    )


def _run_baseline(entry: Contender, data: MatchDataset, advance: Advance) -> tuple[Result, list[Answers]]:
    advance(0.0, "fit")
    begin = time.perf_counter()
    model = TfidfBaseline(data)
    seconds = time.perf_counter() - begin
    return _measured(entry, None, [], [model], data, seconds)


def _measured(
    entry: Contender,
    settings: Settings | None,
    trials: list[Trial],
    models: Sequence[Scorer],
    data: MatchDataset,
    seconds: float,
    training: Training | None = None,
) -> tuple[Result, list[Answers]]:
    for model in models:
        calibrate(model, data)
    dev = [evaluate(model, data, split="dev", draws=0) for model in models]
    test = [evaluate(model, data, split="test") for model in models]
    result = Result(
        contender=entry,
        settings=settings,
        trials=trials,
        dev={name: float(np.mean([one.draws[name][0] for one in dev])) for name in dev[0].draws},
        draws={name: combine_seeds([one.draws[name] for one in test]) for name in test[0].draws},
        evaluations=test,
        train_seconds=seconds,
        training=training,
    )
    return result, best_answers(models[0], data)


def _settings(entry: Contender, shared: Settings, rate: float, scale: float, seed: int) -> Settings:
    return replace(
        shared,
        loss=entry.loss or shared.loss,
        draw=entry.draw,
        none_candidate=entry.none_candidate,
        seed=seed,
        learning_rate=(shared.learning_rate or 1.0) * rate,
        logit_scale=(shared.logit_scale or 1.0) * scale,
    )


def _peak_bytes() -> int | None:
    """Largest resident size of this process since it started."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _versions() -> dict[str, str]:
    import platform
    from importlib.metadata import version

    return {"python": platform.python_version()} | {
        name: version(name) for name in ("sigmax", "torch", "sentence-transformers", "transformers", "scikit-learn")
    }
