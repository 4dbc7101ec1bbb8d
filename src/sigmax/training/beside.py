r"""N-grams beside a frozen encoder: two linear models of the same labels, and how much each counts.

What a pretrained encoder sees of a text is what it means; names, codes and turns of phrase that tell labels apart here
and nowhere else are in its n-grams. With s₁ the logits of the best linear model of the frozen vectors and s₂ those of
the n-grams, each with a penalty of its own,

    s = a · s₁ + b · s₂ + c,

and a > 0, b > 0 and c are those with the least loss on dev, as a calibration's are: on the training queries both
models are surer than elsewhere, the n-grams most. It is one linear model still, of the vectors of both.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import torch
from scipy import sparse
from torch import Tensor, nn

from sigmax.data.dataset import MatchDataset
from sigmax.data.pictures import Query
from sigmax.encoders.joined import Joined
from sigmax.encoders.labels import LabelTable
from sigmax.encoders.module import encodes
from sigmax.losses import make_loss
from sigmax.model.dual_encoder import DualEncoder
from sigmax.training.linear import Logged, right_of, set_plain, solve
from sigmax.training.names import solve_with_names
from sigmax.training.problem import positives_of
from sigmax.training.settings import Filled

__all__ = ["solve_beside", "weigh"]

log = logging.getLogger(__name__)

#: Pull of log a and log b towards 0, for where dev says nothing of one of them.
RIDGE = 1e-3


def solve_beside(
    model: DualEncoder, data: MatchDataset, settings: Filled, *, logged: Logged | None = None, tell: bool = True
) -> int:
    """Solve a model whose query encoder joins a frozen encoder, with its constant last, and n-grams.

    Args:
        model: its n-grams' vectors, label table and *none of these* are set.
        data: labelled texts.
        settings: loss, draw, metric and seed.
        logged: see `sigmax.training.linear.solve`; the second model's steps follow the first's.
        tell: log what was solved and chosen.

    Returns:
        How often a loss was computed on all queries.
    """
    joined = cast(Joined, model.query_encoder)
    first, second = (_alone(model, part, settings.loss) for part in (joined.first, joined.second))
    steps = solve_with_names(first, data, settings, logged=logged, tell=tell)

    def after(step: int, metrics: dict[str, float]) -> None:
        if logged is not None:
            logged(steps + step, metrics)

    more = solve(
        second,
        data,
        settings.loss,
        one_positive=settings.draw == "one-positive",
        seed=settings.seed,
        logged=after,
        tell=tell,
    )
    dev = data.split("dev")
    queries = [data.queries[i] for i in dev]
    one, other = (_with_none(each, queries, data.candidates) for each in (first, second))
    a, b, c = weigh(one, other, right_of(model, data, dev), settings.loss)
    with torch.no_grad():
        table = torch.cat([a * _table(first), b * _table(second)], dim=1)
        table[:, encodes(joined.first).get_embedding_dimension() - 1] += c
        model.candidate_encoder = LabelTable(model.candidates, table[: len(model.candidates)])
        if model.none_vector is not None:
            model.none_vector = nn.Parameter(table[-1].clone())
    set_plain(model.loss)
    if tell:
        log.info("The frozen encoder's logits count %.2g, the n-grams' %.2g, chosen on dev.", a, b)
    return steps + more


def weigh(first: Tensor, second: Tensor, right: sparse.csr_array, loss: str) -> tuple[float, float, float]:
    """Fit a, b and c, see above.

    Args:
        first: (n, m) logits.
        second: (n, m) others.
        right: (n, m) 1 where the pair is right.
        loss: a name in `sigmax.families.OBJECTIVES`.
    """
    positives = positives_of(right)
    objective = make_loss(loss, logit_scale=1.0, logit_bias=0.0)
    logs = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logs, bias], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        a, b = logs.exp()
        value = objective.from_logits(a * first.double() + b * second.double() + bias, positives)
        total = value + RIDGE * logs.square().sum()
        total.backward()
        return total

    optimizer.step(closure)
    a, b = logs.exp().tolist()
    return a, b, bias.item()


def _alone(model: DualEncoder, encoder: nn.Module, loss: str) -> DualEncoder:
    """A model of one of the encoders, with a label table of its width."""
    width = encodes(encoder).get_embedding_dimension()
    made = DualEncoder(
        encoder,
        LabelTable(model.candidates, torch.zeros(len(model.candidates), width)),
        make_loss(loss, logit_scale=1.0, logit_bias=0.0, similarity="dot"),
        candidates=model.candidates,
        candidate_ids=model.candidate_ids,
    )
    if model.none_vector is not None:
        made.none_vector = nn.Parameter(torch.zeros(width))
    return made


def _with_none(model: DualEncoder, queries: Sequence[Query], candidates: Sequence[str]) -> Tensor:
    """(n, m) logits, or (n, m + 1) with those of *none of these*."""
    found = model.logits(queries, candidates)
    values = torch.from_numpy(found.values)
    return values if found.none is None else torch.cat([values, torch.from_numpy(found.none)[:, None]], dim=1)


def _table(model: DualEncoder) -> Tensor:
    """(m, d) vectors of labels, or (m + 1, d) with that of *none of these*."""
    vectors = cast(LabelTable, model.candidate_encoder).vectors
    return vectors if model.none_vector is None else torch.cat([vectors, model.none_vector[None]])
