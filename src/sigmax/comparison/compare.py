"""Every contender on one data set, treated alike: same encoder, same budget, same search, same seeds."""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from sigmax.arrays import Ints
from sigmax.comparison.contenders import CONTENDERS, Contender, contenders_for
from sigmax.comparison.examples import Answers, best_answers, choose_examples
from sigmax.comparison.label_promises import label_promises
from sigmax.comparison.results import Budget, Comparison, Result, Training, Trial
from sigmax.data.alike import groups_of
from sigmax.data.batches import Batches
from sigmax.data.check import check
from sigmax.data.dataset import SPLITS, MatchDataset
from sigmax.data.pictures import Advance
from sigmax.errors import DataError, lookup
from sigmax.evaluation import calibrate_logits, evaluate_logits, quick_metrics
from sigmax.metrics.intervals import combine_seeds
from sigmax.metrics.registry import watched
from sigmax.model.dual_encoder import DualEncoder
from sigmax.model.remembered import remember
from sigmax.scan import Scorer, scan
from sigmax.training.settings import Filled, Settings
from sigmax.training.train import loss_floor, train

__all__ = ["compare"]


log = logging.getLogger(__name__)


#: Points of a training curve, at most.
POINTS = 200


#: Steps done and mean loss over the steps since the point before.
Curve = list[tuple[int, float]]


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
    trained with each seed. Test is looked at once per seed, after everything was chosen.

    Args:
        data: the data set.
        settings: what all share; their loss, draw, seed, learning rate and scale are set by the comparison.
        contenders: names in `CONTENDERS`; None: all that fit the data.
        budget: search and seeds; None: what suits the encoder, see `Budget.of`.
        advance: called as the work proceeds.

    Raises:
        DataError: data without a right answer in one of the splits.
        ValueError: an unknown contender.
    """
    shared = (settings or Settings()).filled(data)
    budget = budget or Budget.of(shared, data)
    names = list(dict.fromkeys(contenders or contenders_for(data, shared)))
    entries = [lookup(CONTENDERS, name, "contender") for name in names]
    for entry in entries:
        reason = entry.missing(data, shared)
        if reason is not None:
            raise DataError(f"{data.name}: {entry.name} {reason}.")
    steps = Batches(data, batch_size=shared.batch_size, epochs=shared.epochs).steps
    steps = shared.steps or steps
    shared = replace(shared, steps=steps)
    data.check_answers(SPLITS)
    if any(entry.family == "softmax" for entry in entries):
        _tell(data)
    trained = [entry for entry in entries if entry.loss is not None]
    total = budget.runs * len(trained) + (len(entries) - len(trained))
    done = 0
    groups = groups_of(data, "dev")
    results, answers = [], {}
    with _set_aside():
        for entry in entries:
            step = _part(advance, entry.name, done, total)
            if entry.loss:
                run = _run(entry, data, groups, shared, budget, step)
            else:
                run = _run_baseline(entry, data, groups, shared, step)
            results.append(run[0])
            answers[entry.name] = run[1]
            done += budget.runs if entry.loss else 1
    comparison = Comparison(
        data=check(data),
        encoder=shared.encoder,
        metric=shared.metric,
        steps=steps,
        batch_size=shared.batch_size,
        budget=budget,
        results=results,
        versions=_versions(),
        peak_bytes=_peak_bytes(),
    )
    families = ("softmax", "sigmoid") if trained else ("today",)
    shown = [name for name in (comparison.best(family, shared.metric) for family in families) if name]
    return replace(comparison, examples=choose_examples(data, {name: answers[name] for name in shown or names}))


@contextlib.contextmanager
def _set_aside() -> Iterator[None]:
    """Leave what is there out of the collections of garbage that Trainer makes, one for every training.

    A million objects of imported packages would take longer than some trainings do.
    """
    if gc.get_freeze_count():  # who called has done so
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _tell(data: MatchDataset) -> None:
    """Log once what every run would log."""
    unanswered = data.unanswered("train")
    if unanswered:
        log.info(
            "%d of %d training queries have no right answer: the softmax leaves them out, the sigmoid learns from "
            "them.",
            unanswered,
            len(data.split("train")),
        )


def _part(advance: Advance | None, name: str, done: int, total: int) -> Advance:
    """Progress of one contender, in runs, as progress of the whole."""

    def step(runs: float, what: str) -> None:
        if advance is not None:
            advance(min(1.0, (done + runs) / total), f"{name}: {what}")

    return step


def _run(
    entry: Contender, data: MatchDataset, groups: Ints, shared: Filled, budget: Budget, advance: Advance
) -> tuple[Result, list[Answers]]:
    seconds: list[float] = []

    def fit(rate: float, scale: float, seed: int, what: str) -> tuple[DualEncoder, Curve]:
        curve: Curve = []

        def logged(at: int, metrics: dict[str, float]) -> None:
            if "loss" in metrics:
                curve.append((at, metrics["loss"]))

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
        metrics = quick_metrics(model, data, split="dev")
        trials.append(Trial(settings.learning_rate, settings.logit_scale, metrics))
        goodness = [watched()[shared.metric].goodness(trial.dev[shared.metric]) for trial in trials]
        if not first or goodness[-1] >= max(goodness):
            first = {(rate, scale): (model, curve)}
    (((rate, scale), (model, curve)),) = first.items()
    models = [model]
    for seed in range(1, budget.seeds):
        models.append(fit(rate, scale, shared.seed + seed, f"seed {seed + 1} of {budget.seeds}")[0])
    chosen = _settings(entry, shared, rate, scale, shared.seed)
    training = _training(model, curve, chosen, data)
    return _measured(entry, chosen, trials, models, data, groups, float(np.mean(seconds)), training)


def _training(model: DualEncoder, curve: Curve, settings: Settings, data: MatchDataset) -> Training:
    places = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), POINTS)).round().astype(int)).tolist()
    sizes = [(parameter.nbytes, parameter.requires_grad) for parameter in model.parameters()]
    return Training(
        tuple(curve[place] for place in places),
        loss_floor(data, settings),
        sum(size for size, _ in sizes),
        2 * sum(size for size, trained in sizes if trained),
    )


def _run_baseline(
    entry: Contender, data: MatchDataset, groups: Ints, shared: Filled, advance: Advance
) -> tuple[Result, list[Answers]]:
    advance(0.0, "fit")
    begin = time.perf_counter()
    if entry.fit is None:
        raise ValueError(f"Expected the contender {entry.name} to have `loss` or `fit`.")
    model = entry.fit(data, shared)
    seconds = time.perf_counter() - begin
    return _measured(entry, None, [], [model], data, groups, seconds)


def _measured(
    entry: Contender,
    settings: Settings | None,
    trials: list[Trial],
    models: Sequence[Scorer],
    data: MatchDataset,
    groups: Ints,
    seconds: float,
    training: Training | None = None,
) -> tuple[Result, list[Answers]]:
    dev, test = [], []
    for model in models:
        if isinstance(model, DualEncoder):
            remember(model, data)
        split = scan(model, data, "dev")
        model.calibrator = calibrate_logits(split, groups=groups)
        dev.append(evaluate_logits(split, calibrator=model.calibrator, draws=0))
    answers: list[Answers] = []  # of the first seed
    promises = None
    for model in models:
        split = scan(model, data, "test")
        if data.labels and promises is None:
            promises = label_promises(model.calibrator, split)
        test.append(evaluate_logits(split, calibrator=model.calibrator))
        if not answers and model.calibrator is not None:
            answers = best_answers(split, data.candidates, model.calibrator)
    result = Result(
        contender=entry,
        settings=settings,
        trials=trials,
        dev={name: float(np.mean([one.draws[name][0] for one in dev])) for name in dev[0].draws},
        draws={name: combine_seeds([one.draws[name] for one in test]) for name in test[0].draws},
        evaluations=test,
        train_seconds=seconds,
        training=training,
        label_promises=promises,
    )
    return result, answers


def _settings(entry: Contender, shared: Filled, rate: float, scale: float, seed: int) -> Filled:
    return replace(
        shared,
        loss=entry.loss or shared.loss,
        draw=entry.draw,
        none_candidate=entry.none_candidate,
        seed=seed,
        learning_rate=shared.learning_rate * rate,
        logit_scale=shared.logit_scale * scale,
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
