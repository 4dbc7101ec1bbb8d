"""SoftmaxLoss and SigmoidLoss for `SentenceTransformerTrainer`: columns of texts to the loss of `sigmax.losses`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from sentence_transformers.base.losses import CachedLossMixin
from sentence_transformers.base.losses.merged_forward import embed_columns
from torch import Tensor, nn

from sentence_transformers import SentenceTransformer
from sigmax import losses
from sigmax.errors import check_least
from sigmax.processes import world_size
from sigmax.sentence_transformers.graph import BatchGraph, Columns, Features, KnownPairs, find_graph

__all__ = ["SentenceMatchLoss", "SigmoidLoss", "SoftmaxLoss"]

log = logging.getLogger(__name__)


class SentenceMatchLoss(nn.Module):
    """What both losses share. Use `SoftmaxLoss` or `SigmoidLoss`.

    The first column of the data set holds anchors, the second a positive for each, further ones a negative each.
    Every candidate of the batch is offered to every anchor, each distinct one once:

    - anchors with equal tokens are one query: what is right for one of them is right for all;
    - candidates with equal tokens are one candidate: never right and wrong at once;
    - a candidate with the anchor's own tokens, unless known to be right, is ignored: neither right nor wrong;
    - pairs in `positives` are right wherever they meet;
    - a column named "label" of integers [anchor id, positive id] (and further ids for negatives; below 0: none) makes
      anchors or candidates of equal id the same though their texts differ.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        match_loss: losses.MatchLoss,
        *,
        positives: Mapping[str, Iterable[str]] | None,
        learnable: bool,
        mini_batch_size: int | None,
    ) -> None:
        super().__init__()
        check_least(1, mini_batch_size=mini_batch_size)
        self.model = model
        self.match_loss = match_loss
        self.known = None if positives is None else KnownPairs(positives, model.preprocess)
        self.learnable = learnable
        self.mini_batch_size = mini_batch_size
        self._warned = False
        if learnable:  # DistributedDataParallel holds the model's parameters, not the loss's
            for parameter in match_loss.parameters():
                parameter.register_hook(_mean_over_ranks)

    @property
    def uses_gradient_cache(self) -> bool:
        """Whether vectors are made again in the backward pass. Read by sentence-transformers' MatryoshkaLoss."""
        return self.mini_batch_size is not None

    def forward(self, sentence_features: Iterable[Features], labels: Tensor | None = None) -> Tensor:
        """Columns of tokenised texts, and ids where the data set has them -> () the loss.

        Raises:
            ValueError: fewer than two columns, labels that are no ids, vectors that are not finite, or
                `mini_batch_size` with a static encoder.
        """
        features = list(sentence_features)
        if len(features) < 2:
            raise ValueError(f"Expected a column of anchors and one of positives, got {len(features)} column.")
        if self.mini_batch_size is not None and "offsets" in features[0]:
            raise ValueError(
                "Expected no `mini_batch_size` with an encoder whose texts come as one run of tokens (static "
                "embeddings): it holds no activations to save. Leave it out."
            )
        graph = self._graph(features, labels)  # first: modules may write into the features
        if self.mini_batch_size is None:
            return self.calculate_loss([[column] for column in embed_columns(self.model, features)], graph)
        in_parts = _InParts(self)
        loss: Tensor = in_parts.forward_cached(features, graph)
        # What comes back is cut off from scale and bias; their gradients come by way of the value before the cut.
        return loss + (in_parts.value - in_parts.value.detach())

    def calculate_loss(self, vectors: list[list[Tensor]], graph: BatchGraph, *, with_backward: bool = False) -> Tensor:
        """Compute the loss of vectors, a list of parts for each column. MatryoshkaLoss shortens them on the way.

        With `with_backward` the vectors have their gradients when it returns; scale and bias get theirs in the
        backward pass of what is returned.
        """
        anchors = torch.cat(vectors[0])
        candidates = torch.cat([part for column in vectors[1:] for part in column])
        if graph.kept is not None:
            candidates = candidates[graph.kept.to(candidates.device)]
        loss: Tensor = self.match_loss(
            anchors, candidates, graph.positives, candidate_log_q=self._candidate_log_q(candidates, graph)
        )
        if not with_backward:
            return loss
        parts = [part for column in vectors for part in column]
        learnt = [parameter for parameter in self.match_loss.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(loss, [*parts, *learnt])
        for part, gradient in zip(parts, gradients, strict=False):
            part.grad = gradient
        value = loss.detach()
        for parameter, gradient in zip(learnt, gradients[len(parts) :], strict=True):
            value = value + gradient * (parameter - parameter.detach())
        return value

    def get_config_dict(self) -> dict[str, Any]:
        """Return the settings, for the model card."""
        inner = self.match_loss
        bias = {} if inner.logit_bias is None else {"logit_bias": inner.logit_bias.item()}
        return {
            "objective": inner.objective.name,
            "logit_scale": round(inner.logit_scale.item(), 6),
            **bias,
            "learnable": self.learnable,
            "similarity": inner.similarity,
            "directions": inner.directions,
            "known_pairs": 0 if self.known is None else len(self.known),
            "mini_batch_size": self.mini_batch_size,
            "gather_across_devices": inner.gather_across_devices,
        }

    @property
    def citation(self) -> str:
        """BibTeX of the paper that the objective comes from, for the model card; empty where it names none."""
        paper = self.match_loss.objective.paper
        return "" if paper is None else paper.bibtex()

    def _graph(self, features: list[Features], labels: Tensor | None) -> BatchGraph:
        mine = Columns.of(features, labels)
        everywhere = self.match_loss.gather_across_devices and world_size() > 1
        parts, rank = (mine.gathered(), dist.get_rank()) if everywhere else ([mine], 0)
        if self.known is not None and self.training and not self._warned and not len(self.known.of(mine.anchors)[0]):
            log.warning(
                "None of the batch's anchors is in `positives`. Were they given without the prompt that training puts "
                "before them?"
            )
            self._warned = True
        return find_graph(parts, rank, self.known)

    def _candidate_log_q(self, candidates: Tensor, graph: BatchGraph) -> Tensor | None:
        return None


class SoftmaxLoss(SentenceMatchLoss):
    r"""Softmax + cross-entropy over the batch's candidates, every known right answer marked.

    Where MultipleNegativesRankingLoss stands: the same columns, the same value where no text comes twice. With
    s = logit_scale · cos(anchor, candidate) and Pᵢ the candidates right for anchor i, the mean over rows of

    - "decoupled": −(1/|Pᵢ|) Σ_{p∈Pᵢ} log[ exp sᵢₚ / (exp sᵢₚ + Σ_{j wrong} exp sᵢⱼ) ]: MultipleNegativesRankingLoss
      with the other right answers taken out of the denominator;
    - "average", "any", "pairs": see `sigmax.SoftmaxLoss`.

    Args:
        model: the SentenceTransformer that is trained.
        logit_scale: what multiplies the similarity.
        objective: "decoupled", "average", "any", "pairs", or another objective of the family in
            `sigmax.families.OBJECTIVES`.
        positives: right pairs known beforehand: anchor -> the texts right for it, as `known_pairs(dataset)` makes it.
            With them a row's text is right for every anchor of the batch that it is right for in the whole data set.
            With prompts in training, put them before these texts as well.
        directions: "queries", or "both": the mean of the loss over anchors and of the same over candidates.
        similarity: "cosine" or "dot" (then with a `logit_scale` of 1).
        learnable: train the scale, as its logarithm. It gets the trainer's learning rate, which for static
            embeddings is far too high; give it one of its own:
            `learning_rate_mapping={"match_loss": 1e-2}`. The trainer's checkpoints do not hold it.
        mini_batch_size: texts encoded at a time, twice, so that a large batch needs the memory of a small one
            (GradCache: Gao et al. 2021).
        gather_across_devices: compute the loss over the texts of all processes, exactly, duplicates of other
            processes included.

    Raises:
        ValueError: a number out of range or an unknown name.
        TypeError: `positives` that is not a mapping.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        logit_scale: float = 20.0,
        *,
        objective: str = "decoupled",
        positives: Mapping[str, Iterable[str]] | None = None,
        directions: losses.Directions = "queries",
        similarity: str = "cosine",
        learnable: bool = False,
        mini_batch_size: int | None = None,
        gather_across_devices: bool = False,
    ) -> None:
        match_loss = losses.SoftmaxLoss(
            logit_scale,
            positives=objective,
            directions=directions,
            similarity=similarity,
            learnable=learnable,
            gather_across_devices=gather_across_devices,
        )
        super().__init__(model, match_loss, positives=positives, learnable=learnable, mini_batch_size=mini_batch_size)


class SigmoidLoss(SentenceMatchLoss):
    r"""Sigmoid + binary cross-entropy: every pair of the batch on its own.

    With s = logit_scale · cos(anchor, candidate) + logit_bias + β, the mean over rows of

        Lᵢ = Σ_{j right} −log σ(sᵢⱼ) + Σ_{j wrong} −log(1 − σ(sᵢⱼ))

    β, the log odds of a right pair in the batch at hand, makes one bias fit all batch sizes. `logit_bias` makes up for
    what logit_scale · cos is of an ordinary wrong pair: where an encoder finds any two texts alike, start lower.

    Args:
        model: the SentenceTransformer that is trained.
        logit_scale: what multiplies the similarity.
        logit_bias: what is added beside.
        positives: right pairs known beforehand, see `SoftmaxLoss`.
        similarity: "cosine" or "dot".
        learnable: train scale (as its logarithm) and bias, see `SoftmaxLoss`.
        mini_batch_size: texts encoded at a time, see `SoftmaxLoss`.
        gather_across_devices: compute the loss over the texts of all processes.

    Raises:
        ValueError: a number out of range or an unknown name.
        TypeError: `positives` that is not a mapping.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        logit_scale: float = 20.0,
        logit_bias: float = -5.0,
        *,
        positives: Mapping[str, Iterable[str]] | None = None,
        similarity: str = "cosine",
        learnable: bool = False,
        mini_batch_size: int | None = None,
        gather_across_devices: bool = False,
    ) -> None:
        match_loss = losses.SigmoidLoss(
            logit_scale,
            logit_bias,
            similarity=similarity,
            learnable=learnable,
            gather_across_devices=gather_across_devices,
        )
        super().__init__(model, match_loss, positives=positives, learnable=learnable, mini_batch_size=mini_batch_size)

    def _candidate_log_q(self, candidates: Tensor, graph: BatchGraph) -> Tensor:
        return candidates.new_full((len(candidates),), -graph.log_odds, dtype=torch.float32)


class _InParts(CachedLossMixin):
    """sentence-transformers' GradCache over a loss, which MatryoshkaLoss may have decorated."""

    def __init__(self, loss: SentenceMatchLoss) -> None:
        self.loss = loss
        self.model = loss.model
        self.mini_batch_size = loss.mini_batch_size
        self.value = torch.zeros(())

    def calculate_loss(self, reps: list[list[Tensor]], labels: Any = None, *, with_backward: bool = False) -> Tensor:
        self.value = self.loss.calculate_loss(reps, labels, with_backward=with_backward)
        return self.value


def _mean_over_ranks(value: Tensor) -> Tensor:
    if world_size() == 1:
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / world_size()
