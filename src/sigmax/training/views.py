"""How much each of a model's views of texts says: where training starts, and what dev decides in the end."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sigmax.data.batches import Batches
from sigmax.data.dataset import MatchDataset
from sigmax.evaluation import quick_metric
from sigmax.model.dual_encoder import DualEncoder
from sigmax.model.vectors import Vectors
from sigmax.positives import Positives

__all__ = ["start_lexical", "weigh_views"]

#: Batches that the start is fitted on.
START_BATCHES = 4
#: Pairs of a dev query and a candidate that the choice looks at, at most.
PAIRS = 2**25
#: Factors of the dense logit tried on dev, of equal ones the first; with the last two, one view only breaks ties.
DENSE = (1.0, 0.5, 2.0, 0.25, 4.0, 0.125, 8.0, 2.0**10, 2.0**-10)


def start_lexical(model: DualEncoder, batches: Batches) -> None:
    """Scale BM25, and move the bias, so that beside the untrained encoder it has the least loss on the first batches.

    BM25's unit is its own: with logits too small nothing would be learnt about words, with logits too large nothing but
    what BM25 gets wrong. What the encoder sees already, as a pretrained one does, and n-grams not trained yet, whose
    cosine is near that of tf-idf, is not counted twice.
    """
    lexical, loss, data = model.lexical, model.loss, batches.data
    if lexical is None:
        return
    made: list[tuple[Tensor, Tensor, Positives]] = []
    with torch.no_grad():
        for number in range(min(START_BATCHES, len(batches))):
            batch = batches[number]
            queries = [str(data.queries[i]) for i in batch.queries]
            candidates = [data.candidates[j] for j in batch.candidates]
            dense = loss.logits(model.encode(queries, "query"), model.encode(candidates, "candidate")).cpu()
            if loss.logit_bias is not None:
                dense -= loss.logit_bias.item()
            shared = lexical(lexical.tokens(queries, "query"), lexical.tokens(candidates, "candidate"))
            made.append((dense, shared, batch.positives))
    log_scale = torch.zeros((), requires_grad=True)
    bias = torch.tensor(0.0 if loss.logit_bias is None else loss.logit_bias.item(), requires_grad=True)
    free = [log_scale] if loss.logit_bias is None else [log_scale, bias]
    optimizer = torch.optim.LBFGS(free, max_iter=30, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        terms = [loss.from_logits(dense + shared * log_scale.exp() + bias, right) for dense, shared, right in made]
        total = torch.stack(terms).mean() + 1e-3 * log_scale**2  # where nothing is shared, any scale is as good
        total.backward()
        return total

    optimizer.step(closure)
    with torch.no_grad():
        lexical.log_weights.add_(log_scale.clamp(-4, 4))
        if loss.logit_bias is not None:
            loss.logit_bias.copy_(bias)


@torch.no_grad()
def weigh_views(model: DualEncoder, data: MatchDataset, start: Tensor, metric: str) -> None:
    """Choose on dev how much the dense logit counts beside the words, and whether what was learnt about words does.

    On the training queries both views are surer than elsewhere, the encoder most: weights fitted there trust it too
    much. BM25 as it was before training is among the choices, so that the model is never behind it on dev.

    Args:
        model: a trained model; its weights are changed.
        data: its data set.
        start: what the kinds of tokens weighed before training.
        metric: what decides, one of `sigmax.metrics.registry.watched`.
    """
    lexical = model.lexical
    if lexical is None:
        return
    rows = data.split("dev")[: max(1, PAIRS // len(data.candidates))]
    queries = model.vectors([data.queries[i] for i in rows])
    candidates = model.vectors(data.candidates, "candidate")
    right = data.graph[rows].toarray().astype(bool)
    bias = 0.0 if model.loss.logit_bias is None else model.loss.logit_bias.item()
    dense: NDArray[np.float32] = np.empty(right.shape, np.float32)
    for tile in model.tiles(Vectors(queries.dense), Vectors(candidates.dense)):
        dense[tile.rows, tile.columns] = tile.logits - bias

    def words() -> NDArray[np.float32]:
        assert queries.tokens is not None and candidates.tokens is not None
        return lexical.scores(queries.tokens, candidates.tokens)

    def measured(factor: float, shared: NDArray[np.float32]) -> float:
        return quick_metric(metric, np.float32(factor) * dense + shared, right)

    learnt = words()
    choices = [(measured(factor, learnt), factor, True) for factor in DENSE]
    trained = [parameter.clone() for parameter in lexical.parameters()]
    lexical.theta.zero_()
    lexical.log_weights.copy_(start)
    choices.append((measured(DENSE[-1], words()), DENSE[-1], False))
    _, factor, keep = max(choices, key=lambda choice: choice[0])  # of equal ones the first
    if keep:
        for parameter, value in zip(lexical.parameters(), trained, strict=True):
            parameter.copy_(value)
    if factor <= 1:
        model.loss.log_scale.add_(math.log(factor))
    else:
        lexical.log_weights.sub_(math.log(factor))
