"""What is known of a label before any query is seen: how often it is right."""

from __future__ import annotations

import numpy as np
import torch

from sigmax.data.batches import DRAWS, Batches, training_weights
from sigmax.encoders.labels import LabelTable
from sigmax.model.dual_encoder import DualEncoder

__all__ = ["start_priors"]


@torch.no_grad()
def start_priors(model: DualEncoder, batches: Batches) -> None:
    r"""Start each label's bias where a model that sees nothing of the queries would have it.

    With pⱼ the part of the training queries that label j is right for, the least loss of logits that do not depend on
    the query is at the log odds for the sigmoid, log(pⱼ / (1 − pⱼ)), and for a softmax with one right answer per query
    at the log prior, log pⱼ, up to a constant:

        logit_scale · βⱼ + logit_bias = log odds,        logit_scale · βⱼ = log pⱼ − mean log p

    With labels that are all as frequent every βⱼ is 0. *None of these* has a prior too, where it is trained.

    Nothing is done where a batch offers a part of the labels: those of its own queries are in it, so that there a
    frequent label is wrong as often as it is right, and the log odds are about the same for all.

    Args:
        model: untrained, with a label table whose labels have a bias: `LabelTable.biases`, or of a linear head the last
            coordinate, beside which the queries' is 1.
        batches: what it will be trained on.
    """
    table, loss, data = model.candidate_encoder, model.loss, batches.data
    if not isinstance(table, LabelTable) or table.frozen:
        return
    if not batches.offer_all or batches.draw is not DRAWS["known-positives"]:
        return
    queries = data.split("train")
    given = training_weights(data)
    weights = np.ones(len(queries)) if given is None else given[queries].double().numpy()
    right = data.graph[queries]
    counts = right.T @ weights
    if model.none_vector is not None:
        counts = np.append(counts, weights[np.asarray(right.sum(1)).ravel() == 0].sum())
    part = torch.from_numpy((counts + 0.5) / (weights.sum() + 1))
    if loss.logit_bias is None:
        level = part.log() - part.log().mean()
    else:
        level = part.log() - (1 - part).log() - loss.logit_bias.item()
    biases = (level / loss.logit_scale.item()).float()
    labels = len(data.candidates)
    if table.biases is not None:
        table.biases.copy_(biases[:labels])
    else:
        table.vectors[:, -1] = biases[:labels]
    if model.none_vector is not None:
        model.none_vector[-1] = biases[-1]
