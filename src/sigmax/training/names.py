"""Labels' names as examples: what is known of a label before any query of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from sigmax.data.dataset import MatchDataset
from sigmax.encoders.build import label_text
from sigmax.encoders.choose import ENOUGH
from sigmax.encoders.frozen import FrozenEncoder
from sigmax.evaluation import quick_metrics
from sigmax.metrics.registry import watched
from sigmax.model.dual_encoder import DualEncoder
from sigmax.training.linear import Logged, solve
from sigmax.training.settings import Filled

__all__ = ["few_per_label", "solve_with_names", "with_names"]

log = logging.getLogger(__name__)

#: How often each name counts, tried on dev, of equal ones the first.
COPIES = (0, 1, 3, 10)


def few_per_label(data: MatchDataset) -> bool:
    """Whether labels that are texts have fewer than `ENOUGH` training queries, in the median of those that have any."""
    if not data.labels or data.pictures:
        return False
    counts = np.asarray(data.graph[data.split("train")].sum(0)).ravel()
    return bool(np.median(counts[counts > 0]) < ENOUGH) if counts.any() else False


def with_names(data: MatchDataset, copies: int) -> MatchDataset:
    """Add each label's name to the training queries, as a text that this label alone is right for.

    Args:
        data: texts with fixed labels.
        copies: how often.
    """
    if not copies:
        return data
    n, m = len(data.queries), len(data.candidates)
    added = np.arange(n, n + copies * m)
    weights = data.weights
    if weights is not None:
        weights = np.concatenate([weights, np.full(len(added), weights[data.split("train")].mean())])
    return replace(
        data,
        queries=[*data.queries, *copies * [label_text(name) for name in data.candidates]],
        query_ids=(),
        pairs=np.concatenate([data.pairs, np.stack([added, np.tile(np.arange(m), copies)], axis=1)]),
        weights=weights,
        splits={**data.splits, "train": np.concatenate([data.split("train"), added])},
    )


def solve_with_names(
    model: DualEncoder, data: MatchDataset, settings: Filled, *, logged: Logged | None = None, tell: bool = True
) -> int:
    """Solve what follows a frozen encoder; with few queries per label, the labels' names help where dev says so.

    A name is one more example, so that it weighs much beside one query and little beside ten: the more queries a label
    has, the less its name says.

    Args:
        model: see `sigmax.training.linear.solve`.
        data: the data set.
        settings: loss, draw, metric and seed.
        logged: see `sigmax.training.linear.solve`.
        tell: log what was solved and chosen.

    Returns:
        How often the loss was computed on all queries, for what was kept.
    """
    solved = partial(solve, one_positive=settings.draw == "one-positive", seed=settings.seed, tell=tell)
    if not (isinstance(model.query_encoder, FrozenEncoder) and few_per_label(data)):
        return solved(model, data, settings.loss, logged=logged)
    model.query_encoder.remember([label_text(name) for name in data.candidates])
    learnt = [parameter for parameter in (*_labels(model), model.none_vector) if parameter is not None]
    found: list[_Solved] = []
    for copies in COPIES:
        curve: list[tuple[int, dict[str, float]]] = []
        made = with_names(data, copies)
        steps = solved(model, made, settings.loss, logged=partial(_keep, curve))
        value = watched()[settings.metric].goodness(quick_metrics(model, data)[settings.metric])
        found.append(_Solved(value, copies, steps, [one.detach().clone() for one in learnt], curve))
    best = max(found, key=lambda one: one.value)  # of equal ones the first
    with torch.no_grad():
        for parameter, kept in zip(learnt, best.learnt, strict=True):
            parameter.copy_(kept)
    if logged is not None:
        for step, metrics in best.curve:
            logged(step, metrics)
    if tell:
        log.info("Few queries per label: each label's name counts as %d of them, chosen on dev.", best.copies)
    return best.steps


@dataclass(frozen=True)
class _Solved:
    value: float  #: of the dev metric, larger is better
    copies: int
    steps: int
    learnt: list[torch.Tensor]
    curve: list[tuple[int, dict[str, float]]]


def _keep(curve: list[tuple[int, dict[str, float]]], step: int, metrics: dict[str, float]) -> None:
    curve.append((step, metrics))


def _labels(model: DualEncoder) -> list[torch.nn.Parameter]:
    assert model.candidate_encoder is not None
    return list(model.candidate_encoder.parameters())
